"""Output times of a batch: what one solve must pass through for every series' queries and its own end."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciode.solvers import solve
from sciode.timeseries.model import Paths

__all__ = ["Schedule", "schedule", "solved"]


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


def schedule(ends: Tensor, queries: Tensor | None, reach: float | None = None, step: float | None = None) -> Schedule:
    """Return the times to pass through for queries [B, Q] (see `SequenceModel.forward`) and ends [B].

    reach: how far the control goes; None = anywhere. step: the fixed step: solves go on to the end of the step that they
    are in, so that what is asked for changes no state. Raises ValueError for queries before 0 and times beyond reach.
    """
    ends = ends.double()
    wanted = ends.unsqueeze(1)
    if queries is not None:
        if queries.ndim != 2 or len(queries) != len(ends):
            raise ValueError(f"queries must be [B, Q] with B = {len(ends)}, got {tuple(queries.shape)}")
        wanted = torch.cat((queries.double().to(ends.device), wanted), 1)
    known = wanted.isfinite()
    first, last = float(torch.where(known, wanted, 0.0).amin()), float(torch.where(known, wanted, 0.0).amax())
    if first < 0:
        raise ValueError(f"queries must be >= 0, the start of every series, got {first:g}")
    if reach is not None and last > reach * (1 + 1e-9):
        raise ValueError(f"the control reaches to {reach:g}, the queries and ends to {last:g}: make it longer")
    stop = torch.where(known, wanted, 0.0).amax(1, keepdim=True)
    if step is not None:
        stop = torch.maximum(stop, (stop / step - 1e-6).ceil() * step)
    wanted = torch.where(known, wanted, torch.inf)
    column = torch.cat((torch.zeros_like(stop), wanted, stop), 1).sort(1).values
    column[:, 1:] = torch.where(column.diff(dim=1) == 0, torch.inf, column[:, 1:])
    column = column.sort(1).values
    column = column[:, : max(int(column.isfinite().sum(1).max()), 2)].contiguous()
    at = torch.searchsorted(column, wanted)
    at = torch.where(known, at, -1)
    ts = torch.where(column.isfinite(), column, torch.nan).t().contiguous()
    together = bool((column == column[:1]).all())
    return Schedule(ts[:, 0].contiguous() if together else ts, at)


def solved(term: Any, start: Tensor, plan: Schedule, **options: Any) -> Paths:
    """Solve term from start [B, H] through the plan's times; options: those of `solve`."""
    solution = solve(term, start, plan.ts, batch_dims=1, **options)
    states, last = plan.read(solution.ys)
    return Paths(states, last, solution.status, solution.stats.nfe, dict(solution.penalties))
