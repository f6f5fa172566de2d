"""What a solve returns: values, and what became of each sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .adjoints.results import Dense
from .between import bridged
from .outputs import compact, gather_rows
from .problem import Problem
from .status import Status
from .trajectory import Run, accepts

__all__ = ["Solution", "SolveError", "Stats"]


class SolveError(RuntimeError):
    """Some samples of a solve failed; the message names the first one, `solution` holds all that was computed."""

    def __init__(self, message: str, solution: Solution) -> None:
        super().__init__(message)
        self.solution = solution


@dataclass(frozen=True)
class Stats:
    """What a solve cost.

    steps [*batch]: trial steps, accepted + rejected; accepted [*batch]; before, each: evaluations of the field (for an
    SDE: of the drift) before the first step, and in every step; calls: batched evaluations, with those for dense
    output; engine: the one that ran.
    """

    steps: Tensor
    accepted: Tensor
    before: int
    each: int
    calls: int
    engine: str

    @property
    def nfe(self) -> Tensor:
        """Evaluations of the field that a sample's own steps took, the first one and the heuristic's included."""
        return self.before + self.steps * self.each

    @property
    def rejected(self) -> Tensor:
        """Steps [*batch] that were not accepted."""
        return self.steps - self.accepted


@dataclass(frozen=True)
class Solution:
    """The result of `solve`.

    ts: the output times, [T] or [T, *batch]. ys: the states there, [T, *batch, *state], nested like y0 (or what
    `Save(fn=)` made of them). valid [T, *batch]: False where a sample has no value (padding, failure); ys then repeats
    the last one, without gradient. status [*batch]: 0 = success, see `Status`. penalties: name -> [*batch]. seed: what
    drew the noise (None for an ODE).
    """

    ts: Tensor
    ys: Any
    valid: Tensor
    stats: Stats
    status: Tensor
    penalties: dict[str, Tensor]
    seed: Any
    state: Run | None = field(default=None, repr=False)
    dense: DenseOutput | None = field(default=None, repr=False)

    @property
    def message(self) -> str:
        """One sentence: success, or the first failing sample and why."""
        bad = self.status != 0
        if not bool(bad.any()):
            return Status.SUCCESS.message
        index = tuple(bad.nonzero()[0].tolist())
        which = f"sample {index[0] if len(index) == 1 else index}" if index else "the solve"
        count = f" ({int(bad.sum())} of {bad.numel()} failed)" if bad.numel() > 1 else ""
        return f"{which}{count}: {Status(int(self.status[index])).message}"

    def check(self) -> Solution:
        """This solution, or SolveError naming the first failing sample."""
        if bool((self.status != 0).any()):
            raise SolveError(self.message, self)
        return self

    def interpolate(self, t: Tensor | float) -> Any:
        """The state at any times within the solve, by the method's own dense output; needs `save="dense"`.

        t: a number, [T], or [T, *batch]; returns [*batch, *state] or [T, *batch, *state]. Outside the solved interval a
        sample's nearest end is returned.
        """
        if self.dense is None:
            raise ValueError('interpolate: this solution has no dense output; call solve(..., save="dense")')
        return self.dense(t)


@dataclass(frozen=True)
class DenseOutput:
    """All steps' interpolants, each sample's own moved together."""

    problem: Problem
    run: Run
    basis: Dense

    def __call__(self, t: Tensor | float) -> Any:
        """States at times t: see `Solution.interpolate`."""
        problem = self.problem
        if not self.run.records:
            return self._at_start(torch.as_tensor(t))
        taken = accepts(problem, self.run.records)
        order, count = compact(taken)
        starts = torch.stack([r.s for r in self.run.records]).gather(0, order)
        lengths = torch.stack([r.dt for r in self.run.records]).abs().gather(0, order)
        times = torch.as_tensor(t, dtype=torch.float64, device=starts.device) * problem.sign
        single = times.ndim == 0
        lanes, samples = starts.shape[1], self.basis.starts.shape[1]
        query = times.reshape(1, 1) if single else times.reshape(times.shape[0], -1)
        query = query.expand(query.shape[0], max(lanes, query.shape[1]))
        starts, lengths = starts.expand(-1, query.shape[1]), lengths.expand(-1, query.shape[1])
        step = torch.searchsorted(starts.T.contiguous(), query.T.contiguous(), right=True).T - 1
        step = torch.minimum(step.clamp(min=0), (count - 1).clamp(min=0))
        length = lengths.gather(0, step)
        theta = ((query - starts.gather(0, step)) / length.clamp(min=1e-300)).clamp(0.0, 1.0)
        index = order.expand(-1, query.shape[1]).gather(0, step)
        y = gather_rows(self.basis.starts, index)
        basis = gather_rows(self.basis.basis.transpose(1, 2), index)
        dt = problem.forward(length)
        weights = problem.stepper.weights(theta, dt).to(basis.dtype).movedim(0, -1)
        own = weights.shape[-1]
        values = y + (weights.unsqueeze(-1) * basis[:, :, :own]).sum(2)
        start = problem.forward(starts.gather(0, step))
        values = bridged(values, problem, start, dt, theta, basis[:, :, own:].unbind(2))
        # A sample that took no step may have no field anywhere.
        values = torch.where((length > 0).unsqueeze(-1), values, y)
        states = problem.field.layout.unravel(values.expand(-1, samples, -1))
        return _first(states) if single else states

    def _at_start(self, t: Tensor) -> Any:
        """Where nobody took a step: the states at the first time, whatever is asked for."""
        count = t.shape[0] if t.ndim else 1
        states = self.problem.field.layout.unravel(self.basis.starts.expand(count, -1, -1))
        return states if t.ndim else _first(states)


def _first(tree: Any) -> Any:
    from .trees import map_tree

    return map_tree(lambda leaf: leaf[0], tree)
