"""From a run to the differentiable tensors of a solution."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..outputs import assemble
from ..problem import Problem
from ..trajectory import Run, accepts

__all__ = ["Dense", "Results", "results"]


class Dense(NamedTuple):
    """Dense output of all recorded steps: start states [I, B, D], spanning vectors [I, s, B, D]."""

    starts: Tensor
    basis: Tensor


class Results(NamedTuple):
    """Differentiable: ys (leaves, times first), penalties (each [B]), dense. Plain: ts, valid, run."""

    ys: list[Tensor]
    penalties: list[Tensor]
    dense: Dense | None
    ts: Tensor
    valid: Tensor
    run: Run

    def tensors(self) -> list[Tensor]:
        """The differentiable tensors in a fixed order."""
        return [*self.ys, *self.penalties, *(self.dense or ())]

    def with_tensors(self, tensors: list[Tensor]) -> Results:
        """The same results with other differentiable tensors, in the same order."""
        a, b = len(self.ys), len(self.ys) + len(self.penalties)
        dense = None if self.dense is None else Dense(*tensors[b:])
        return self._replace(ys=list(tensors[:a]), penalties=list(tensors[a:b]), dense=dense)


def results(y0: Tensor, run: Run) -> Results:
    """Put the emissions of a run together; a pure, differentiable function of y0 and the emissions."""
    problem = run.problem
    ys, ts, valid = assemble(problem, y0, run)
    penalties = []
    for i, regularizer in enumerate(problem.regularizers):
        values, taken = _measured(problem, run, i)
        penalties.append(regularizer.total(values, taken, y0.real.detach()))
    dense = _dense(y0, run) if problem.output.dense else None
    return Results(ys, penalties, dense, ts, valid, run)


def _dense(y0: Tensor, run: Run) -> Dense:
    """All steps' dense output; of a sample that took none (it may have been handed a stand-in state), where it is."""
    if not run.emissions:
        return Dense(y0.unsqueeze(0), y0.new_zeros((1, 0, *y0.shape)))
    starts, bases = zip(*(e.dense for e in run.emissions), strict=True)
    moved = (run.carry.accepted > 0).unsqueeze(-1)
    return Dense(torch.where(moved, torch.stack(starts), y0), torch.stack(bases))


def _measured(problem: Problem, run: Run, i: int) -> tuple[list[Tensor], Tensor]:
    """A regularizer's values [B] of all recorded steps, and which samples took which [n, L]."""
    if run.tape is None:
        if run.records:
            return [e.penalties[i] for e in run.emissions], accepts(problem, run.records)
    elif run.tape.blocks:
        blocks = run.tape.blocks
        values = [value for b in blocks for value in b.rows.penalties[i][: b.count].unbind()]
        return values, torch.cat([b.rows.taken[: b.count] for b in blocks])
    return [], problem.s0.new_zeros((0, problem.s0.shape[0]), dtype=torch.bool)
