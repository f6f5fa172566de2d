"""THE transition of a solve: carry -> carry, without a branch on a value, every sample for itself.

`attempt` tries a step and decides; `merge` applies the decision. An engine may look at the decision on the host and skip
a merge that changes nothing; `advance`, which does not look, is the reference and the unit of compilation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .controllers import PID, Fixed
from .problem import Carry, Problem, scaled_error
from .status import RUNNING, Status
from .steppers import Step

__all__ = ["Attempt", "advance", "attempt", "merge", "select"]

_SNAP = 1 + 1e-9
"""A step that ends within this factor of the last time ends at the last time."""


class Attempt(NamedTuple):
    """A step and what was decided about it; all but `step` are [L] and carry no gradient."""

    dt: Tensor
    step: Step
    reached: Tensor
    accept: Tensor
    final: Tensor
    finite: Tensor
    h: Tensor
    control: tuple[Tensor, ...]
    status: Tensor


def advance(problem: Problem, carry: Carry, noise: Tensor | None = None) -> Carry:
    """One trial step of every unfinished sample."""
    return merge(carry, attempt(problem, carry, noise))


def attempt(problem: Problem, carry: Carry, noise: Tensor | None = None) -> Attempt:
    """Try one step: its length, the step itself, whether it is accepted, what comes next."""
    fixed = isinstance(problem.controller, Fixed)
    with torch.no_grad():
        active = carry.status == RUNNING
        remaining = problem.s1 - carry.t
        final = carry.n + 1 >= problem.steps if fixed else carry.h * _SNAP >= remaining
        length = torch.where(active, torch.where(final, remaining, carry.h), 0.0)
        dt = problem.forward(length)
    step = problem.stepper.step(problem.field, noise, problem.forward(carry.t), dt, carry.y, carry.memory)
    with torch.no_grad():
        decide = _keep_going if fixed else _control
        accept, finite, h, control, failure = decide(problem, carry, length, step)
        accept = accept & active
        ended = torch.where(accept, torch.where(final, int(Status.SUCCESS), RUNNING), failure)
        status = torch.where(active, ended, carry.status).to(torch.int8)
        reached = torch.where(final, problem.s1, _next_time(problem, carry, length))
    return Attempt(dt, step, reached, accept, final, finite, h, control, status)


def merge(carry: Carry, tried: Attempt) -> Carry:
    """Take over an accepted step, unless it ends the sample; keep everything else of finished samples."""
    keep = tried.accept & ~tried.final
    going = tried.status == RUNNING
    rows = keep.unsqueeze(-1)
    return Carry(
        t=torch.where(keep, tried.reached, carry.t),
        h=torch.where(going, tried.h, carry.h),
        n=carry.n + keep,
        y=torch.where(rows, tried.step.y1, carry.y),
        memory=tuple(_rows(keep, new, old) for new, old in zip(tried.step.memory, carry.memory, strict=True)),
        control=tuple(torch.where(keep, new, old) for new, old in zip(tried.control, carry.control, strict=True)),
        status=tried.status,
        trials=carry.trials + (carry.status == RUNNING),
        accepted=carry.accepted + tried.accept,
    )


def select(mask: Tensor, new: Carry, old: Carry) -> Carry:
    """Sample by sample one carry or the other."""
    return pytree.tree_map(lambda a, b: _rows(mask, a, b), new, old)


def _rows(keep: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(keep.reshape(keep.shape + (1,) * (new.ndim - 1)), new, old)


def _next_time(problem: Problem, carry: Carry, length: Tensor) -> Tensor:
    """Fixed steps are counted, never accumulated."""
    if isinstance(problem.controller, Fixed):
        return problem.s0 + (carry.n + 1).to(torch.float64) * problem.controller.dt
    return carry.t + length


Decision = tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...], Tensor]


def _keep_going(problem: Problem, carry: Carry, length: Tensor, step: Step) -> Decision:
    """Fixed steps: accept whatever is finite; anything else ends the sample."""
    size = step.y1.abs()
    finite = (size.amax().reshape(1) if problem.coupled else size.amax(dim=1)) < torch.inf
    if step.ok is not None:
        finite = finite & step.ok
    failure = torch.full_like(carry.status, int(Status.NONFINITE))
    return finite, finite, carry.h, (), failure


def _control(problem: Problem, carry: Carry, length: Tensor, step: Step) -> Decision:
    """Adaptive steps: accept if the scaled error is at most 1; a step that shrinks to nothing ends the sample."""
    controller, order = problem.controller, problem.stepper.error_order
    assert isinstance(controller, PID) and order is not None
    ratio, size = scaled_error(problem, carry.y, step, problem.coupled)
    finite = (ratio + size) < torch.inf
    if step.ok is not None:
        finite = finite & step.ok
    ratio = torch.where(finite, ratio, torch.inf).to(torch.float64)
    accept, factor, control = controller.next(ratio, carry.control, order)
    h = length * factor
    floor = problem.smallest if controller.dtmin is None else problem.smallest.clamp(min=controller.dtmin)
    if controller.force_dtmin:
        accept = accept | (finite & (length <= floor))
        h = torch.maximum(h, floor)
    if controller.dtmax is not None:
        h = h.clamp(max=controller.dtmax)
    stuck = torch.where(finite, int(Status.DT_MIN), int(Status.NONFINITE))
    failure = torch.where(h < floor, stuck, RUNNING)
    return accept, finite, h, control, failure
