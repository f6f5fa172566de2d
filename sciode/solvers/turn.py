"""One turn of a loop that never looks at a value: a step, the outputs it passed, and a row of the tape.

`turn` is `advance` with its results written where the host can find them afterwards: `take`, which is pure, then
`write`. Engines repeat it inside compiled code. `retake` is the same turn as a differentiable function of what its row
recorded, for the adjoint that takes steps again; the adjoint that does not differentiates `take` itself.
A turn writes at most `width` outputs a sample: a step that passed more is taken again, unmerged, until all are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .advance import Attempt, attempt, merge
from .between import bridged, columns
from .books import rows
from .problem import PLACE, Carry, Problem
from .status import RUNNING, Status
from .steppers import Memory, Step
from .trajectory import Row, measured

__all__ = [
    "Limits",
    "Loop",
    "Plan",
    "Retaken",
    "Sinks",
    "Taken",
    "Word",
    "outputs_at",
    "places_of",
    "retake",
    "take",
    "turn",
    "word_of",
    "write",
    "write_row",
]

_AT_END = 1e-9
"""An output time within this part of a step from its end is at its end."""


@dataclass(frozen=True)
class Plan:
    """What a loop does beside stepping.

    width: most outputs a turn writes; resumable: it keeps where to resume; taped: it keeps a tape; kept: the tape keeps
    what the derivatives of its steps need, too.
    """

    width: int
    resumable: bool
    taped: bool
    kept: bool = False


class Loop(NamedTuple):
    """The state of a loop between two turns.

    origin: () or the place to resume from and which samples have one of their own [L]; count [L], outputs written, the
    first included; row, rows of the tape written; turns taken: [] each; word, what the host wants to know.
    """

    carry: Carry
    origin: Any
    count: Tensor
    row: Tensor
    turns: Tensor
    word: Tensor


class Word(NamedTuple):
    """The word of a loop, int64 [7], as the host reads it.

    Whether to go on in this loop; whether any sample runs; whether all have succeeded with all their outputs; whether
    any has an origin of its own; rows of the tape written; turns taken; whether y0 and the field there were finite.
    """

    going: int
    running: int
    well: int
    marked: int
    rows: int
    turns: int
    sound: int


class Sinks(NamedTuple):
    """Where a turn writes: out [T + 1, B, D] and the tape's columns [rows + 1, ...]; the last row of each is waste."""

    out: Tensor
    rows: Any


class Limits(NamedTuple):
    """Numbers [] at which a loop stops.

    Trial steps a sample; turns of the loop; the first step without noise; rows of the tape, and so the row for waste.
    """

    trials: Tensor
    turns: Tensor
    noise: Tensor
    rows: Tensor


class Due(NamedTuple):
    """Output times that a step passed: theta, k [m, L] as in `Row`; fresh [L], how many; more [L], do others wait."""

    theta: Tensor
    k: Tensor
    fresh: Tensor
    more: Tensor


class Taken(NamedTuple):
    """A turn before anything of it is written.

    loop, after it; at [], the row of the tape that its line belongs to; values [m, B, D], outputs for the rows line.k.
    """

    loop: Loop
    at: Tensor
    line: Row
    values: Tensor


def turn(problem: Problem, plan: Plan, times: Tensor, limits: Limits, loop: Loop, sinks: Sinks) -> Loop:
    """Try a step, write the outputs it passed, merge it; times [R, T] are the output times."""
    taken = take(problem, plan, times, limits, loop)
    write(sinks, taken)
    return taken.loop


def take(problem: Problem, plan: Plan, times: Tensor, limits: Limits, loop: Loop) -> Taken:
    """A turn as a pure function.

    Where gradients are asked for, the state and the memory of `loop.carry`, `values` and `line.penalties` have them.
    """
    carry = loop.carry
    noise = problem.noise.at(carry.n) if problem.counted else None
    place = _in_good_places(problem, limits, carry) if plan.kept and not problem.stepper.hands_on else carry
    tried, waits = _wait(problem, plan, limits, carry, attempt(problem, place, noise))
    due = _due(times, plan.width, loop.count, tried)
    values, penalties = _results(problem, place.t, tried.dt, place.y, tried.step, due.theta)
    if plan.kept and problem.stepper.basis_nfe:
        tried, waits, due = _pass_over(problem, carry, tried, waits, due, values)
    held = _hold(carry, tried, due.more)
    written = torch.where(tried.accept.any(), 1, 0)
    at = torch.where(written > 0, loop.row, limits.rows)
    line, row = _row(problem, carry, tried, held, due, penalties), loop.row + written
    merged = merge(carry, held)
    merged = merged._replace(trials=torch.where(due.more | waits, carry.trials, merged.trials))
    late = (merged.status == RUNNING) & (merged.trials >= limits.trials)
    merged = merged._replace(status=torch.where(late, int(Status.MAX_STEPS), merged.status).to(torch.int8))
    turns, count = loop.turns + 1, loop.count + due.fresh
    running = merged.status == RUNNING
    going = (loop.word[0] > 0) & running.any() & (turns < limits.turns)
    if problem.counted:
        going = going & ~(running & (merged.n >= limits.noise)).any()
    if plan.taped:
        going = going & (row < limits.rows)
    origin = _origin(plan, loop, tried)
    marked = origin[1].any() if plan.resumable else running.new_zeros(())
    well = (merged.status == int(Status.SUCCESS)).all() & (count == times.shape[1]).all()
    word = word_of(going, running, well, marked, row, turns, loop.word[-1])
    return Taken(Loop(merged, origin, count, row, turns, word), at, line, values)


def write(sinks: Sinks, taken: Taken) -> None:
    """Put the outputs and, if there is a tape, the line of a turn where the host will find them."""
    _write_outputs(sinks.out, taken.line.k, taken.values)
    if sinks.rows:
        write_row(sinks.rows, taken.at, taken.line)


def word_of(
    going: Tensor, running: Tensor, well: Tensor, marked: Tensor, row: Tensor, turns: Tensor, sound: Tensor
) -> Tensor:
    """The fields of a `Word`, each [] but running [L], as one tensor."""
    return torch.stack([x.to(torch.int64) for x in (going, running.any(), well, marked, row, turns, sound)])


class Retaken(NamedTuple):
    """The differentiable results of a turn: the state and the essential memory after it, outputs, penalties."""

    y: Tensor
    essential: Memory
    values: Tensor
    penalties: tuple[Tensor, ...]


def retake(problem: Problem, row: Row) -> Retaken:
    """Take the step of a row again, from row.y and row.essential."""
    memory = problem.stepper.restore(problem.field, problem.forward(row.s), row.y, row.essential)
    noise = problem.driven(problem.noise.at(row.n) if problem.counted else None, problem.forward(row.s), row.dt)
    step = problem.stepper.step(problem.field, noise, problem.forward(row.s), row.dt, row.y, memory)
    values, penalties = _results(problem, row.s, row.dt, row.y, step, row.theta)
    after = problem.stepper.essential(step.memory)
    essential = tuple(_where(row.merged, a, b) for a, b in zip(after, row.essential, strict=True))
    return Retaken(_where(row.merged, step.y1, row.y), essential, values, penalties)


def _where(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(mask.reshape(mask.shape + (1,) * (new.ndim - 1)), new, old)


def _due(times: Tensor, width: int, count: Tensor, tried: Attempt) -> Due:
    """The next output times of each sample that lie in its accepted step."""
    none = times.shape[1]
    k = count + torch.arange(width + 1, device=count.device).unsqueeze(-1)
    there = k.clamp(max=none - 1)
    due = times[0][there] if times.shape[0] == 1 else times.gather(1, there.T).T
    length = tried.dt.abs()
    passed = tried.accept & (k < none) & (due <= tried.reached + _AT_END * length)
    # Divided by a safe length where nothing was passed, so that no 0 / 0 is written anywhere.
    theta = 1 - (tried.reached - due) / torch.where(passed, length, 1.0)
    theta = torch.where(passed & (theta <= 1 - _AT_END), theta.clamp(min=0.0), 1.0)
    passed, more = passed[:width], passed[width]
    return Due(theta[:width], torch.where(passed, k[:width], none), passed.sum(0), more)


def _results(
    problem: Problem, s: Tensor, dt: Tensor, y: Tensor, step: Step, theta: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """States [m, B, D] at theta [m, L] of a step, and the regularizers' values."""
    # Stages beyond the step's own look at its end, which nobody has: only where an output lies inside.
    within = torch.where((theta < 1).any(0), dt, 0.0) if problem.stepper.basis_nfe else dt
    basis = problem.stepper.basis(problem.field, problem.forward(s), within, y, step)
    values = []
    for at in theta.unbind():
        value = y
        for w, k in zip(problem.stepper.weights_apart(at, dt), basis, strict=True):
            value = value + w.to(y.dtype).unsqueeze(-1) * k
        values.append(_where(at >= 1, step.y1, value))
    states = bridged(torch.stack(values), problem, problem.forward(s), dt, theta, columns(problem, step))
    return states, measured(problem, problem.forward(s), dt, y, step)


def _write_outputs(out: Tensor, k: Tensor, values: Tensor) -> None:
    """values [m, B, D] into the rows k [m, L] of out."""
    shape, flat = places_of(out, k)
    out.view(shape).index_copy_(0, flat, values.flatten(0, 1).view(-1, *shape[1:]))


def outputs_at(out: Tensor, k: Tensor) -> Tensor:
    """The rows k [m, L] of out [T + 1, B, D]: [m, B, D]."""
    shape, flat = places_of(out, k)
    return out.view(shape).index_select(0, flat).view(k.shape[0], *out.shape[1:])


def places_of(out: Tensor, k: Tensor) -> tuple[tuple[int, ...], Tensor]:
    """A shape of out [T + 1, B, D] and the rows of it that k [m, L] names."""
    samples, size = out.shape[1:]
    if k.shape[1] == 1:
        return (-1, samples, size), k.flatten()
    return (-1, size), (k * samples + torch.arange(samples, device=k.device)).flatten()


def _in_good_places(problem: Problem, limits: Limits, carry: Carry) -> Carry:
    """The carry, with every sample that takes no step in this turn at the place of one that does.

    Where it is, the field may not be finite (it failed there), and a turn that is itself differentiated would hand the
    NaN on to shared parameters, as 0 * NaN.
    """
    if carry.t.shape[0] == 1:
        return carry
    status = carry.status
    if problem.counted:
        # Ahead of the noise that was drawn (see `_wait`).
        ahead = (status == RUNNING) & (carry.n >= limits.noise)
        status = torch.where(ahead, int(Status.SUCCESS), status).to(torch.int8)
    going = status == RUNNING
    one = going.to(torch.int8).argmax(0, keepdim=True)
    t, y, *memory = (rows(going, x, x.index_select(0, one).expand_as(x)) for x in (carry.t, carry.y, *carry.memory))
    return carry._replace(status=status, t=t, y=y, memory=tuple(memory))


def _wait(problem: Problem, plan: Plan, limits: Limits, carry: Carry, tried: Attempt) -> tuple[Attempt, Tensor]:
    """Samples that take no step in this turn, because others hold them up; they will take the same one later.

    Those that are ahead of the noise that was drawn wait for those that were held back by their outputs. Where the
    turn itself is differentiated, all wait until no sample's step is infinite: it would reach shared parameters as
    0 * inf.
    """
    running = carry.status == RUNNING
    waits = torch.zeros_like(running)
    if problem.counted:
        waits = running & (carry.n >= limits.noise)
    if plan.kept:
        spoilt = running & ~tried.finite & ~waits
        waits = waits | (running & tried.finite & spoilt.any())
    if not (problem.counted or plan.kept):
        return tried, waits
    return _waiting(carry, tried, waits), waits


def _waiting(carry: Carry, tried: Attempt, waits: Tensor) -> Attempt:
    """The attempt, as if those that wait [L] had not made it."""
    return tried._replace(
        accept=tried.accept & ~waits,
        final=tried.final & ~waits,
        h=torch.where(waits, carry.h, tried.h),
        status=torch.where(waits, carry.status, tried.status),
        ahead=tuple(torch.where(waits, old, new) for old, new in zip(carry.ahead, tried.ahead, strict=True)),
    )


def _pass_over(
    problem: Problem, carry: Carry, tried: Attempt, waits: Tensor, due: Due, values: Tensor
) -> tuple[Attempt, Tensor, Due]:
    """A turn that is itself differentiated, where an output within a step cannot be interpolated.

    The step leads to where the field is not finite, and dense output may ask for the slope there. All wait, and what is
    written are those outputs alone, NaN; the turn leaves no row, and the next one finds them behind it.
    """
    finite = torch.isfinite(values).all(-1)
    if problem.coupled:
        finite = finite.all(-1, keepdim=True)
    bad = ~finite & (due.theta < 1) & (due.k < problem.output.times.shape[1]) & tried.accept
    # The first ones: an output behind one that is well is not passed over.
    lost = bad.to(torch.int64).cumprod(0)
    some = lost.any()
    waits = waits | (some & (carry.status == RUNNING))
    k = torch.where(some & (lost == 0), problem.output.times.shape[1], due.k)
    due = due._replace(k=k, fresh=torch.where(some, lost.sum(0), due.fresh), more=due.more & ~some)
    return _waiting(carry, tried, waits), waits, due


def _hold(carry: Carry, tried: Attempt, more: Tensor) -> Attempt:
    """The attempt, not accepted where outputs still wait; nothing else of those samples changes either."""
    return tried._replace(
        accept=tried.accept & ~more,
        h=torch.where(more, carry.h, tried.h),
        status=torch.where(more, carry.status, tried.status),
        ahead=tuple(torch.where(more, old, new) for old, new in zip(carry.ahead, tried.ahead, strict=True)),
    )


def _row(problem: Problem, carry: Carry, tried: Attempt, held: Attempt, due: Due, penalties: Any) -> Row:
    dt = torch.where(tried.accept, tried.dt, 0.0)
    essential = problem.stepper.essential(carry.memory)
    merged = held.accept & ~held.final
    return Row(carry.t, dt, carry.n, carry.y, essential, held.accept, merged, due.theta, due.k, penalties)


def write_row(columns: Any, at: Tensor, line: Any) -> None:
    """The tensors of a line into row `at` [] of columns of the same structure, [rows + 1, ...] each."""
    index = at.reshape(1)
    for column, value in zip(pytree.tree_leaves(columns), pytree.tree_leaves(line), strict=True):
        column.index_copy_(0, index, value.unsqueeze(0))


def _origin(plan: Plan, loop: Loop, tried: Attempt) -> Any:
    """Where samples resume whose step was cut short by the end of the interval and then rejected (see `Run.origin`)."""
    if not plan.resumable:
        return ()
    carry, (kept, marked) = loop.carry, loop.origin
    cut = tried.final & ~tried.accept & (carry.status == RUNNING) & ~marked
    return pytree.tree_map(lambda new, old: rows(cut, new, old), carry[:PLACE], kept), marked | cut
