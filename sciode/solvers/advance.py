"""THE transition of a solve: carry -> carry, without a branch on a value, every sample for itself.

`attempt` tries a step and decides; `merge` applies the decision. An engine may look at the decision on the host and
skip a merge that changes nothing; `advance`, which does not look, is the reference and the unit of compilation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .books import Book, like_status, namespace, on_host, on_tensor, rows
from .controllers import PID, Fixed
from .problem import Carry, Problem, scaled_error
from .status import RUNNING, Status
from .steppers import Step

__all__ = ["Attempt", "advance", "attempt", "merge", "select", "step_of"]

_SNAP = 1 + 1e-9
"""A step that ends within this factor of the last time ends at the last time."""


class Attempt(NamedTuple):
    """A step and what was decided about it; all but `step` are books [L] and carry no gradient."""

    dt: Book
    step: Step
    reached: Book
    accept: Book
    final: Book
    finite: Book
    h: Book
    control: tuple[Book, ...]
    status: Book
    ahead: tuple[Book, ...] = ()


def advance(problem: Problem, carry: Carry, noise: Tensor | None = None) -> Carry:
    """One trial step of every unfinished sample."""
    return merge(carry, attempt(problem, carry, noise))


def attempt(problem: Problem, carry: Carry, noise: Tensor | None = None) -> Attempt:
    """Try one step: its length, the step itself, whether it is accepted, what comes next."""
    fixed = isinstance(problem.controller, Fixed)
    xp = namespace(carry.t)
    with torch.no_grad():
        active = carry.status == RUNNING
        remaining = problem.s1 - carry.t
        wanted = carry.h if fixed else problem.length_of(carry.h)
        final = carry.n + 1 >= problem.steps if fixed else wanted * _SNAP >= remaining
        wanted = xp.where(final, remaining, wanted)
        if carry.ahead:
            wanted, hits = _up_to(problem, carry, wanted)
            final = final & (wanted >= remaining)
        length = xp.where(active, wanted, 0.0)
    dt = problem.forward(length)
    step = step_of(problem, carry, dt, noise)
    with torch.no_grad():
        decide = _keep_going if fixed else _control
        accept, finite, h, control, failure = decide(problem, carry, length, step)
        accept = accept & active
        ended = xp.where(accept, xp.where(final, int(Status.SUCCESS), RUNNING), failure)
        status = like_status(xp.where(active, ended, carry.status))
        reached = xp.where(final, problem.s1, _next_time(problem, carry, length))
        ahead: tuple[Book, ...] = ()
        if carry.ahead:
            ahead = _still_ahead(carry, reached, accept & hits, active & ~(accept | final | hits))
            # A step cut short by such a time says nothing against the one that was wanted.
            h = xp.where(accept, xp.maximum(h, carry.h), h)
    return Attempt(dt, step, reached, accept, final, finite, h, control, status, ahead)


def step_of(problem: Problem, carry: Carry, dt: Book, noise: Tensor | None) -> Step:
    """The step of signed length dt [L] from a carry; noise: what was drawn for it, if that was beforehand."""
    t, length = problem.forward(on_tensor(carry.t)), on_tensor(dt)
    driven = problem.driven(noise, t, length)
    return problem.stepper.step(problem.field, driven, t, length, carry.y, carry.memory)


def merge(carry: Carry, tried: Attempt) -> Carry:
    """Take over an accepted step, unless it ends the sample; keep everything else of finished samples."""
    keep = tried.accept & ~tried.final
    return Carry(
        t=rows(keep, tried.reached, carry.t),
        h=rows(tried.status == RUNNING, tried.h, carry.h),
        n=carry.n + keep,
        y=rows(keep, tried.step.y1, carry.y),
        memory=tuple(rows(keep, new, old) for new, old in zip(tried.step.memory, carry.memory, strict=True)),
        control=tuple(rows(keep, new, old) for new, old in zip(tried.control, carry.control, strict=True)),
        status=tried.status,
        trials=carry.trials + (carry.status == RUNNING),
        accepted=carry.accepted + tried.accept,
        ahead=tried.ahead,
    )


def select(mask: Book, new: Carry, old: Carry) -> Carry:
    """Sample by sample one carry or the other."""
    return pytree.tree_map(lambda a, b: rows(mask, a, b), new, old)


def _up_to(problem: Problem, carry: Carry, wanted: Book) -> tuple[Book, Book]:
    """The next step [L], which passes no time that lies ahead, and whether it ends at one; nearly there, in halves."""
    xp = namespace(carry.t)
    gap = carry.ahead[0] - carry.t
    hits = wanted * _SNAP >= gap
    return xp.where(hits, gap, xp.where(2 * wanted > gap, problem.length_of(gap / 2), wanted)), hits


def _still_ahead(carry: Carry, end: Book, passed: Book, rejected: Book) -> tuple[Book, ...]:
    """The times ahead, without the nearest where it was passed, with the step's own end where it was rejected."""
    xp, old = namespace(carry.t), carry.ahead
    nearer, farther = (end, *old[:-1]), (*old[1:], xp.full_like(end, torch.inf))
    return tuple(xp.where(rejected, a, xp.where(passed, b, c)) for a, b, c in zip(nearer, farther, old, strict=True))


def _next_time(problem: Problem, carry: Carry, length: Book) -> Book:
    """Fixed steps are counted, never accumulated; `carry.h` is dt in float64 (an int64 times a float is float32)."""
    if isinstance(problem.controller, Fixed):
        return problem.s0 + (carry.n + 1) * carry.h
    return carry.t + length


Decision = tuple[Book, Book, Book, tuple[Book, ...], Book]


def _keep_going(problem: Problem, carry: Carry, length: Book, step: Step) -> Decision:
    """Fixed steps: accept whatever is finite; anything else ends the sample."""
    finite = _largest(problem, step.y1) < torch.inf
    if problem.stepper.overlooks(adaptive=False):
        finite = finite & (_largest(problem, step.memory[0]) < torch.inf)
    if step.ok is not None:
        finite = finite & step.ok
    finite = _book(finite, carry.t)
    return finite, finite, carry.h, (), namespace(carry.t).full_like(carry.status, int(Status.NONFINITE))


def _control(problem: Problem, carry: Carry, length: Book, step: Step) -> Decision:
    """Adaptive steps: accept if the scaled error is at most 1; a step that shrinks to nothing ends the sample."""
    controller, order, xp = problem.controller, problem.stepper.error_order, namespace(carry.t)
    assert isinstance(controller, PID) and order is not None
    ratio, size = (_book(x.to(torch.float64), carry.t) for x in scaled_error(problem, carry.y, step, problem.coupled))
    finite = (ratio + size) < torch.inf
    if problem.stepper.overlooks(adaptive=True):
        finite = finite & _book(_largest(problem, step.memory[0]) < torch.inf, carry.t)
    if step.ok is not None:
        finite = finite & _book(step.ok, carry.t)
    accept, factor, control = controller.next(xp.where(finite, ratio, torch.inf), carry.control, order)
    h = length * factor
    floor = problem.smallest if controller.dtmin is None else xp.clip(problem.smallest, controller.dtmin, None)
    if controller.force_dtmin:
        accept = accept | (finite & (length <= floor))
        h = xp.maximum(h, floor)
    if controller.dtmax is not None:
        h = xp.clip(h, None, controller.dtmax)
    stuck = xp.where(finite, int(Status.DT_MIN), int(Status.NONFINITE))
    return accept, finite, h, control, xp.where(h < floor, stuck, RUNNING)


def _largest(problem: Problem, x: Tensor) -> Tensor:
    """max |x| of every clock's samples [L]; NaN where there is one."""
    size = x.abs()
    return size.amax().reshape(1) if problem.coupled else size.amax(dim=1)


def _book(x: Tensor, like: Book) -> Book:
    """A decision's input; detached, because no_grad does not stop forward-mode derivatives."""
    x = x.detach()
    return x if isinstance(like, Tensor) else on_host(x)
