"""Recurrent networks on irregular clocks: ODE-RNN and GRU-D, with states at any time."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from sciode.nn import Autonomous, OdeRnn, SolveGaps, StepGaps, mlp, rowwise
from sciode.solvers import Solution
from sciode.timeseries.model import Batch, Paths, SequenceModel, judged, nothing_solved, refuse_regularizers, seeds_for
from sciode.timeseries.schedule import asked

__all__ = ["Gaps", "GruD", "OdeRnnModel", "last_read"]


class Gaps:
    """How an ODE-RNN crosses gaps in one forward pass, and the account of it: midpoint steps, one a gap.

    Without a regularizer and with engine "auto" nothing is solved (`StepGaps`): the launching of a solve a reading
    costs more than it computes. Else each gap is a solve with the same step, whose penalties add up.
    """

    def __init__(self, batch: Batch, seed: int | Tensor, throw: bool, regularize: Any, engine: str) -> None:
        self.solves = engine != "auto" or bool(regularize)
        options = {"method": "midpoint", "dt": 1.0, "throw": throw, "regularize": regularize, "engine": engine}
        self._solve, self._step, self._seeds = SolveGaps(options), StepGaps("midpoint"), seeds_for(seed, batch)
        self.status, self.nfe = nothing_solved(batch)
        self.penalties: dict[str, Tensor] = {}

    def __call__(self, f: Any, h: Tensor, t0: Tensor, t1: Tensor) -> Tensor:
        """The state at t1 [B, H] or [B, Q, H]."""
        if not self.solves:
            moved = (t1 != t0).squeeze(-1)
            self.nfe = self.nfe + 2 * (moved if moved.ndim == 1 else moved.sum(1))
            return self._step(f, h, t0, t1)
        seeds = self._seeds.reshape(-1, *[1] * (h.ndim - 2)).expand(h.shape[:-1]).contiguous()
        solution = SolveGaps({**self._solve.options, "seed": seeds}).solved(f, h, t0, t1)
        self._add(solution)
        return solution.ys[-1]

    def _add(self, solution: Solution) -> None:
        """Sum what a solve [B] or [B, Q] cost; the first failure of a series is its status."""
        own = len(self.status)
        worst = solution.status.reshape(own, -1).amax(1)
        self.status = torch.where(self.status == 0, worst, self.status)
        self.nfe = self.nfe + solution.stats.nfe.reshape(own, -1).sum(1)
        for name, value in solution.penalties.items():
            self.penalties[name] = self.penalties.get(name, 0.0) + value.reshape(own, -1).sum(1)


def last_read(times: Tensor, here: Tensor, wanted: Tensor) -> Tensor:
    """Return the row of the last reading at or before wanted [B, Q], -1 if none; times, here (any reading) [B, T]."""
    before = here.unsqueeze(1) & (times.unsqueeze(1) <= wanted.unsqueeze(2))
    row = torch.arange(times.shape[1], device=times.device)
    return torch.where(before, row, -1).amax(2)


def _states_at(states: Tensor, row: Tensor) -> Tensor:
    """Rows [B, Q] of states [B, T, H]; 0 where the row is -1."""
    found = states.gather(1, row.clamp(min=0).unsqueeze(-1).expand(-1, -1, states.shape[-1]))
    return torch.where((row >= 0).unsqueeze(-1), found, 0.0)


class OdeRnnModel(SequenceModel):
    """ODE-RNN: h' = f(h) between readings, a GRU at them (`sciode.nn.OdeRnn`); 0 before the first reading.

    Gaps are crossed as `Gaps` says; static covariates are read at the first time.
    Source: Rubanova, Chen, Duvenaud: Latent ordinary differential equations for irregularly sampled series (2019).
    """

    causal = True
    reads: Literal["control", "values"] = "values"
    noisy = False

    def __init__(self, channels: int, hidden: int = 32, layers: int = 2, *, static: int = 0) -> None:
        super().__init__()
        self.hidden = hidden
        field = Autonomous(mlp([hidden] * (layers + 1) + [hidden], nn.Tanh))
        self.rnn = OdeRnn(field, nn.GRUCell(2 * (channels + static), hidden), hidden)

    def forward(
        self,
        batch: Batch,
        queries: Tensor | None,
        seed: int | Tensor,
        *,
        throw: bool = False,
        regularize: Any = (),
        engine: str = "auto",
    ) -> Paths:
        times, values, seen = batch.clocked()
        gaps = Gaps(batch, seed, throw, regularize, engine)
        read = self.rnn(times, values, seen, evolve=gaps).states
        wanted = asked(batch, queries)
        row = last_read(times, seen.any(-1), wanted)
        since = times.gather(1, row.clamp(min=0))
        # A time that nothing is known of, or nobody asks for, is a gap of no length.
        until = torch.where((row >= 0) & wanted.isfinite(), wanted, since)
        begin, end = (x.to(values.dtype).unsqueeze(-1) for x in (since, until))
        found = gaps(self.rnn.field, _states_at(read, row), begin, end)
        found = torch.where((row >= 0).unsqueeze(-1), found, 0.0)
        return Paths(found[:, :-1], found[:, -1], judged(found, gaps.status, throw), gaps.nfe, gaps.penalties)


class GruD(SequenceModel):
    """GRU-D: a GRU whose state and whose last readings decay with the time since each channel was read.

        x^ = x where read, else exp(-relu(w d + b)) x_last        (towards 0, the mean of standardised values)
        h <- GRU([x^, read], exp(-relu(W d + c)) h)

    d [C], the time since each channel's reading before (since the first time if there was none). Between readings the
    state is what the next reading would find. A time without any reading is passed over. It has one layer, whatever
    `layers` says. No solver: `regularize` is refused.
    Source: Che, Purushotham, Cho, Sontag, Liu: Recurrent neural networks for multivariate time series with missing
    values (2018).
    """

    causal = True
    reads: Literal["control", "values"] = "values"
    noisy = False
    reads_rowwise = ("fade_rate", "fade_bias")

    def __init__(self, channels: int, hidden: int = 32, layers: int = 2, *, static: int = 0) -> None:
        super().__init__()
        width = channels + static
        self.hidden = hidden
        self.cell = nn.GRUCell(2 * width, hidden)
        self.fade_state = nn.Linear(width, hidden)
        # Positive at the start: where the relu is 0 for all readings, a decay would never learn.
        self.fade_rate = nn.Parameter(torch.full((width,), 0.1))
        self.fade_bias = nn.Parameter(torch.full((width,), 0.01))

    def forward(
        self,
        batch: Batch,
        queries: Tensor | None,
        seed: int | Tensor,
        *,
        throw: bool = False,
        regularize: Any = (),
        engine: str = "auto",
    ) -> Paths:
        refuse_regularizers(regularize, "GRU-D")
        status, nfe = nothing_solved(batch)
        times, values, seen = batch.clocked()
        here = seen.any(-1)
        row = torch.arange(times.shape[1], device=times.device).view(1, -1, 1)
        through = torch.where(seen, row, -1).cummax(1).values  # [B, T, C], the reading at or before a row
        before = torch.cat((torch.full_like(through[:, :1], -1), through[:, :-1]), 1)
        waited = (times.unsqueeze(-1) - self._when(times, before)).to(values.dtype).clamp(min=0)
        known = torch.where(before >= 0, values.gather(1, before.clamp(min=0)), 0.0)
        rate, bias = (rowwise(x, waited, 1) for x in (self.fade_rate, self.fade_bias))
        filled = torch.where(seen, values, torch.exp(-(rate * waited + bias).relu()) * known)
        inputs = torch.cat((filled, seen.to(values.dtype)), -1)
        fade = self._fade(waited)
        h, states = values.new_zeros(len(values), self.hidden), []
        for x, kept, read in zip(inputs.unbind(1), fade.unbind(1), here.unbind(1), strict=True):
            h = torch.where(read.unsqueeze(-1), self.cell(x, kept * h), h)
            states.append(h)
        wanted = asked(batch, queries)
        found = self._between(torch.stack(states, 1), times, through, last_read(times, here, wanted), wanted)
        return Paths(found[:, :-1], found[:, -1], judged(found, status, throw), nfe, {})

    def _fade(self, waited: Tensor) -> Tensor:
        """exp(-relu(W d + c)) [..., H] for d [..., C]."""
        return torch.exp(-self.fade_state(waited).relu())

    def _when(self, times: Tensor, row: Tensor) -> Tensor:
        """The times of rows [B, N, C]; the first time where a row is -1."""
        return times.unsqueeze(-1).expand(-1, -1, row.shape[-1]).gather(1, row.clamp(min=0))

    def _between(self, states: Tensor, times: Tensor, through: Tensor, row: Tensor, wanted: Tensor) -> Tensor:
        """The states at wanted [B, Q]: those after the last reading, faded if there has been time to."""
        held = through.gather(1, row.clamp(min=0).unsqueeze(-1).expand(-1, -1, through.shape[-1]))
        waited = (torch.nan_to_num(wanted).unsqueeze(-1) - self._when(times, held)).to(states.dtype).clamp(min=0)
        found = _states_at(states, row)
        later = (wanted > times.gather(1, row.clamp(min=0))).unsqueeze(-1)
        return torch.where(later, self._fade(waited) * found, found)
