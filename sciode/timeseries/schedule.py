"""Output times of a batch: what one solve must pass through for every series' queries and its own end."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciode.solvers import solve
from sciode.timeseries.model import Batch, Paths

__all__ = ["Schedule", "asked", "schedule", "solved", "solved_whole"]


class Schedule(NamedTuple):
    """ts: [T] or [T, B], increasing from 0, short columns end in NaN. at: [B, Q + 1], the row of every query and, last,
    of the end; -1 where the query is NaN."""

    ts: Tensor
    at: Tensor

    def read(self, ys: Tensor) -> tuple[Tensor, Tensor]:
        """Return (states [B, Q, H] at the queries, last [B, H] at the ends) from ys [T, B, H]."""
        rows = self.at.clamp(min=0).t().unsqueeze(-1).expand(-1, -1, ys.shape[-1])
        found = ys.gather(0, rows).transpose(0, 1)
        found = torch.where((self.at >= 0).unsqueeze(-1), found, 0.0)
        return found[:, :-1], found[:, -1]


def asked(batch: Batch, queries: Tensor | None) -> Tensor:
    """Return the times that a model owes states for [B, Q + 1] float64: the queries, NaN = none, and the end.

    Raises ValueError for queries of another shape, before 0 or infinite.
    """
    ends = batch.ends.double().unsqueeze(1)
    if queries is None:
        return ends
    if queries.ndim != 2 or len(queries) != len(ends):
        raise ValueError(f"queries must be [B, Q] with B = {len(ends)}, got {tuple(queries.shape)}")
    queries = queries.double().to(ends.device)
    if bool((queries < 0).any() | queries.isinf().any()):
        raise ValueError("queries must be finite and >= 0, the start of every series; NaN = none")
    return torch.cat((queries, ends), 1)


def schedule(batch: Batch, queries: Tensor | None, *, step: float | None = None, reach: float = math.inf) -> Schedule:
    """Return the times to pass through for queries [B, Q] (see `SequenceModel.forward`) and the series' ends.

    step: the fixed step: a solve goes on to the end of the step that it is in, so that what is asked for changes no
    state. reach: how far the control goes. Raises ValueError for bad queries (`asked`) and times beyond reach.
    """
    wanted = asked(batch, queries)
    known = wanted.isfinite()
    stop = torch.where(known, wanted, 0.0).amax(1, keepdim=True)
    if float(stop.amax()) > reach * (1 + 1e-9):
        raise ValueError(
            f"the control reaches to {reach:g}, queries and ends to {float(stop.amax()):g}: make it longer"
        )
    if step is not None:
        stop = torch.maximum(stop, (stop / step - 1e-6).ceil() * step)
    wanted = torch.where(known, wanted, torch.inf)
    column = torch.cat((torch.zeros_like(stop), wanted, stop), 1).sort(1).values
    column[:, 1:] = torch.where(column.diff(dim=1) == 0, torch.inf, column[:, 1:])
    column = column.sort(1).values
    column = column[:, : max(int(column.isfinite().sum(1).max()), 2)].contiguous()
    at = torch.where(known, torch.searchsorted(column, wanted), -1)
    ts = torch.where(column.isfinite(), column, torch.nan).t().contiguous()
    together = bool((column == column[:1]).all())
    return Schedule(ts[:, 0].contiguous() if together else ts, at)


def solved(term: Any, start: Tensor, plan: Schedule, **options: Any) -> Paths:
    """Solve term from start [B, H] through the plan's times; options: those of `solve`."""
    return solved_whole(term, start, plan, **options)[0]


def solved_whole(term: Any, start: Tensor, plan: Schedule, **options: Any) -> tuple[Paths, Tensor]:
    """Return what `solved` does, and the state [B, H] where each solve stopped, at the end or the last query."""
    solution = solve(term, start, plan.ts, batch_dims=1, **options)
    states, last = plan.read(solution.ys)
    paths = Paths(states, last, solution.status, solution.stats.nfe, dict(solution.penalties))
    return paths, solution.ys[-1]
