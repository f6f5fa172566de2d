"""Which parts of a trajectory are kept, and how they become the tensors of a `Solution`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .between import bridged
from .problem import Carry, Problem
from .status import Status
from .steppers import Step
from .trajectory import Crossing, Record, Run, accepts

__all__ = ["SAVES", "Output", "Save", "assemble", "compact", "gather_rows"]

SAVES = ("ts", "steps", "dense")


@dataclass(frozen=True)
class Save:
    """What `solve` keeps.

    Arguments:
        at: "ts", the times asked for; "steps", every accepted step; "dense", the times asked for and a dense output for
            `Solution.interpolate`.
        fn: fn(t, y[, args]) -> a tensor or tree kept instead of y, called once an output time with the whole batch.
            With one clock for all samples it is called during the solve, so a small summary of a large state stays
            small.
        state: keep what `resume=` needs (False lets a long list of solutions stay small).
    """

    at: Literal["ts", "steps", "dense"] = "ts"
    fn: Callable[..., Any] | None = None
    state: bool = True


@dataclass(frozen=True, eq=False)
class Output:
    """Output times [R, T] in the solve's direction (R = 1 or B, padded with inf) and how rows are made."""

    times: Tensor
    save: Save
    host_times: tuple[float, ...] | None

    @property
    def dense(self) -> bool:
        """Whether every step's dense output is kept."""
        return self.save.at == "dense"

    def needs_basis(self, crossing: Crossing | None) -> bool:
        """Whether the step has to be interpolated: not if all its output times lie at its end."""
        if self.dense:
            return True
        if crossing is None:
            return False
        return crossing.lane is not None or crossing.theta[0] < 1

    def rows(self, problem: Problem, record: Record, step: Step, basis: Tensor | None) -> tuple[Tensor, ...]:
        """What is kept of this step."""
        if self.save.at == "steps":
            return (step.y1,)
        crossing = record.crossing
        if crossing is None:
            return ()
        if crossing.lane is not None:
            return (_pairs(problem, record, step, basis, crossing),)
        values = _shared(problem, record, step, basis, crossing)
        if self.save.fn is None:
            return (values,)
        kept = [
            self.apply(problem, problem.output.times[0, k : k + 1], v) for k, v in zip(crossing.k, values, strict=True)
        ]
        return tuple(torch.stack(column) for column in zip(*kept, strict=True))

    def apply(self, problem: Problem, s: Tensor, y: Tensor) -> list[Tensor]:
        """The leaves of fn(t, y[, args]) for one output time s [L] and a whole batch y [B, D]."""
        return pytree.tree_leaves(problem.field.call(self.save.fn, problem.forward(s), y))


def _shared(problem: Problem, record: Record, step: Step, basis: Tensor | None, crossing: Crossing) -> Tensor:
    """States at output times all samples share: [n, B, D]. At the end of a step it is y1 itself, not a polynomial."""
    inner = [theta for theta in crossing.theta if theta < 1]
    at_end = step.y1.unsqueeze(0).expand(len(crossing.theta) - len(inner), *step.y1.shape)
    if not inner:
        return at_end
    assert basis is not None
    theta = torch.tensor(inner, dtype=torch.float64, device=basis.device)
    weights = problem.stepper.weights(theta, record.dt).to(basis.dtype)
    values = _spanned(record.y.unsqueeze(0), weights.reshape(*weights.shape, 1, 1), basis.unsqueeze(1))
    t, columns = problem.forward(record.s), tuple(basis[len(weights) :])
    values = bridged(values, problem, t, record.dt, theta.unsqueeze(-1), columns)
    return torch.cat((values, at_end)) if len(inner) < len(crossing.theta) else values


def _pairs(problem: Problem, record: Record, step: Step, basis: Tensor | None, crossing: Crossing) -> Tensor:
    """States [n, D] for n (time, sample) pairs, at a cost that grows with n, not with the batch."""
    assert basis is not None and crossing.lane is not None
    lane, theta = crossing.lane, crossing.theta
    weights = problem.stepper.weights(theta, record.dt[lane]).to(basis.dtype)
    values = _spanned(record.y[lane], weights.unsqueeze(-1), basis[:, lane])
    t, columns = problem.forward(record.s[lane]), tuple(basis[len(weights) :, lane])
    values = bridged(values.unsqueeze(0), problem, t, record.dt[lane], theta.unsqueeze(0), columns, lane).squeeze(0)
    return torch.where((theta >= 1).unsqueeze(-1), step.y1[lane], values)


def _spanned(y: Tensor, weights: Tensor, basis: Tensor) -> Tensor:
    """y + sum_i weights_i basis_i, term by term: a matrix product would round differently for other companions.

    The basis may have more vectors than the method's own.
    """
    for w, k in zip(weights, basis, strict=False):
        y = y + w * k
    return y


def assemble(problem: Problem, y0: Tensor, run: Run) -> tuple[list[Tensor], Tensor, Tensor]:
    """(leaves of ys with the times first, ts in the solve's direction [T, L or R], valid [T, L])."""
    if run.tape is not None:
        return _from_tape(problem, y0, run)
    if problem.output.save.at == "steps":
        return _at_steps(problem, y0, run)
    return _at_times(problem, y0, run)


def _from_tape(problem: Problem, y0: Tensor, run: Run) -> tuple[list[Tensor], Tensor, Tensor]:
    """The states a loop on the device has written; those it has not are as in `_held`."""
    tape, times = run.tape, problem.output.times
    assert tape is not None
    count, samples, size = tape.ys.shape
    if run.clean:
        valid = torch.ones(count, tape.count.shape[0], dtype=torch.bool, device=y0.device)
    else:
        valid = torch.arange(count, device=y0.device).unsqueeze(-1) < tape.count
    if tape.blocks or (torch.is_grad_enabled() and y0.requires_grad):
        ys = torch.cat((y0.unsqueeze(0), tape.ys[1:]))
    else:
        # Nobody else needs what the loop wrote, and a copy of it can be most of a solve's memory.
        ys = tape.ys.detach()
        ys[0].copy_(y0.detach())
    valid = valid if run.clean else _finite(valid, ys, run.carry)
    if not (run.clean or bool(valid.all())):
        reached = valid.expand(count, samples)
        ys = torch.where(reached.unsqueeze(-1), ys, torch.zeros_like(ys)).reshape(-1, size)
        ys = torch.where(reached.reshape(-1, 1), ys, _held(problem, ys, reached, run.carry)).reshape(
            count, samples, size
        )
    return [ys], times.T, valid


def _at_times(problem: Problem, y0: Tensor, run: Run) -> tuple[list[Tensor], Tensor, Tensor]:
    crossings = [
        (r.crossing, e.rows) for r, e in zip(run.records, run.emissions, strict=True) if r.crossing is not None
    ]
    times = problem.output.times
    if problem.s0.shape[0] == 1:
        return _one_clock(problem, y0, run.carry, [rows for _, rows in crossings])
    count, samples = times.shape[1], y0.shape[0]
    flat = [torch.arange(samples, device=y0.device)]
    flat += [c.k * samples + c.lane for c, _ in crossings if c is not None]
    values = torch.cat([y0, *(rows[0] for _, rows in crossings)])
    where = torch.cat(flat)
    ys = values.new_zeros(count * samples, y0.shape[1]).index_copy(0, where, values)
    filled = torch.zeros(count * samples, dtype=torch.bool, device=y0.device).index_fill(0, where, True)
    valid = filled.reshape(count, samples)
    if len(where) < count * samples:
        valid = _finite(valid, ys, run.carry)
        ys = torch.where(valid.reshape(-1, 1), ys, _held(problem, ys, valid, run.carry))
    return [ys.reshape(count, samples, -1)], times.T, valid


def _finite(valid: Tensor, ys: Tensor, carry: Carry) -> Tensor:
    """The outputs [T, L] without those that a failed sample's last step has where it cannot be interpolated.

    It led to where the field is not finite, and dense output may ask for the slope there.
    """
    failed = carry.status == int(Status.NONFINITE)
    finite = torch.isfinite(ys.detach()).reshape(*valid.shape, -1).all(-1)
    return valid & (finite | ~failed)


def _held(problem: Problem, ys: Tensor, valid: Tensor, carry: Carry) -> Tensor:
    """What unfilled rows show [T * B, D]: the last value of a series that ended, the last state of one that failed."""
    count, samples = valid.shape
    last = valid.sum(0) - 1
    ended = ys.detach().reshape(count, samples, -1)[last, torch.arange(samples, device=ys.device)]
    # A sample that failed before its first step was handed a stand-in state; its own is in the first row.
    failed = ((carry.status > 0) & (carry.accepted > 0)).unsqueeze(-1)
    return torch.where(failed, carry.y.detach(), ended).repeat(count, 1)


def _one_clock(
    problem: Problem, y0: Tensor, carry: Carry, rows: list[tuple[Tensor, ...]]
) -> tuple[list[Tensor], Tensor, Tensor]:
    output = problem.output
    first = [y0] if output.save.fn is None else output.apply(problem, output.times[0, :1], y0)
    leaves = [torch.cat([a.unsqueeze(0), *(r[i] for r in rows)]) for i, a in enumerate(first)]
    count, got = output.times.shape[1], leaves[0].shape[0]
    valid = torch.arange(count, device=y0.device).unsqueeze(-1) < got
    if got < count:
        # As in `_held`; a carry that ended well is the one before the last step.
        held = [a[-1].detach() for a in leaves]
        if bool((carry.status > 0) & (carry.accepted > 0)):
            with torch.no_grad():
                y = carry.y.detach()
                held = [y] if output.save.fn is None else output.apply(problem, carry.t, y)
        leaves = [torch.cat([a, h.expand(count - got, *h.shape)]) for a, h in zip(leaves, held, strict=True)]
        if output.save.fn is None and bool(carry.status == int(Status.NONFINITE)) and bool(carry.accepted > 0):
            valid = _finite(valid, leaves[0], carry)
            leaves = [torch.where(valid.unsqueeze(-1), leaves[0], carry.y.detach())]
    return leaves, output.times.T, valid


def _at_steps(problem: Problem, y0: Tensor, run: Run) -> tuple[list[Tensor], Tensor, Tensor]:
    """Each sample's own accepted steps moved together; shorter samples repeat their last state, without gradient."""
    first = problem.output.times[:, 0].expand(problem.s0.shape).unsqueeze(0)
    if not run.records:
        return [y0.unsqueeze(0)], first, torch.ones_like(first, dtype=torch.bool)
    ends = torch.stack([r.reached for r in run.records])
    # A resumed sample may walk once more to where it had ended; those steps belong to the earlier solution.
    order, count = compact(accepts(problem, run.records) & (ends > first))
    ts = torch.cat([first, ends.gather(0, order)])
    ys = torch.stack([y0, *(e.rows[0] for e in run.emissions)])
    ys = gather_rows(ys, torch.cat([torch.zeros_like(order[:1]), order + 1]))
    valid = torch.arange(ts.shape[0], device=ts.device).unsqueeze(-1) <= count
    ys = torch.where(valid.unsqueeze(-1), ys, ys.detach())
    return [ys], ts, valid


def compact(taken: Tensor) -> tuple[Tensor, Tensor]:
    """For accept flags [I, L]: which step was the k-th accepted one (the last repeated) [N, L], and how many [L]."""
    count = taken.sum(0)
    order = torch.argsort((~taken).to(torch.int8), dim=0, stable=True)[: max(int(count.max()), 1)]
    k = torch.arange(order.shape[0], device=order.device).unsqueeze(-1)
    return order.gather(0, torch.minimum(k, (count - 1).clamp(min=0)).expand_as(order)), count


def gather_rows(x: Tensor, index: Tensor) -> Tensor:
    """x [I, B, ...] taken at index [N, L]: [N, B, ...]."""
    if index.shape[1] == 1:
        return x[index[:, 0]]
    return x[index, torch.arange(x.shape[1], device=x.device)]
