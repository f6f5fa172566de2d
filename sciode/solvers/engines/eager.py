"""The plain engine: a Python loop that reads the device once a step, or never if the steps are known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..advance import Attempt, attempt, merge, select, step_of
from ..books import Book, namespace, on_host, on_tensor, rows
from ..controllers import Fixed
from ..problem import Carry, Problem
from ..status import RUNNING, Status
from ..trajectory import Emission, Origin, Record, Run, emit, replay
from ..transforms import transforming
from .clocks import HostClock, LaneClock, Seen

__all__ = ["run", "split_clock", "with_lanes"]

Watch = Callable[[Tensor], None]
_BOOKS = ("t", "h", "n", "status", "trials", "accepted")
_DRAW = 2**18
"""How many normals to hash at a time: enough to hide the cost of a call, little enough to stay in cache."""


def run(problem: Problem, carry: Carry, max_steps: int, watch: Watch | None = None) -> Run:
    """Repeat the transition until every sample has ended, recording what the accepted steps contribute.

    Under grad mode the records are on the tape (that is the `direct` adjoint); else they are plain values.
    """
    if isinstance(problem.controller, Fixed) and problem.s0.shape[0] == 1:
        done, ends = _lockstep(problem, carry, max_steps, watch)
        # Explicit increments keep a NaN for ever, so the end tells whether any step had one.
        if bool(torch.stack([end.detach().abs().amax() for end in ends]).sum() < torch.inf):
            return done
        problem, carry = split_clock(problem, carry)
    return _march(problem, carry, max_steps, watch)


def split_clock(problem: Problem, carry: Carry) -> tuple[Problem, Carry]:
    """The same solve with a clock and a status for every sample (noise hangs on seeds, so nothing else changes)."""
    lanes = 1 if problem.coupled else carry.y.shape[0]
    return with_lanes(problem, lanes), _kept(carry, lambda book: book.expand(lanes))


def with_lanes(problem: Problem, lanes: int) -> Problem:
    """The problem with so many clocks."""
    steps = None if problem.steps is None else problem.steps.expand(lanes)
    return replace(problem, s0=problem.s0.expand(lanes), s1=problem.s1.expand(lanes), steps=steps)


def _lockstep(problem: Problem, carry: Carry, max_steps: int, watch: Watch | None) -> tuple[Run, list[Tensor]]:
    """Fixed steps on one clock: all times are known, nothing is decided, so nothing is read."""
    assert problem.steps is not None and isinstance(problem.controller, Fixed)
    start, stop = int(carry.n), int(problem.steps)
    last = min(stop, start + max_steps)
    times, lengths = _grid(problem, carry, start, last, stop)
    clock, host = HostClock(problem, float(carry.t)), times.tolist()
    records, emissions, noise = [], [], _Noise(problem, carry, stop - start)
    ends, nfe = [carry.y], 0
    for i in range(last - start):
        s, dt = times[i : i + 1], lengths[i : i + 1]
        crossing = clock.advance(host[i], host[i + 1])
        essential = problem.stepper.essential(carry.memory)
        record = Record(s, dt, carry.y, essential, None, times[i + 1 : i + 2], crossing, start + i)
        driven = problem.driven(noise(i), problem.forward(s), dt)
        step = problem.stepper.step(problem.field, driven, problem.forward(s), dt, carry.y, carry.memory)
        ends, nfe = [step.y1, *step.memory[: problem.stepper.hands_on]], step.nfe
        records.append(record)
        emissions.append(emit(problem, record, step))
        if start + i + 1 < stop:
            carry = carry._replace(y=step.y1, memory=step.memory)
        if watch is not None:
            watch(times[i + 1 : i + 2])
    done = last == stop
    taken = last - start
    merged = stop - 1 if done and taken else last
    carry = carry._replace(
        t=times[merged - start : merged - start + 1] if taken else carry.t,
        n=torch.full_like(carry.n, merged if taken else start),
        trials=carry.trials + taken,
        accepted=carry.accepted + taken,
        status=torch.full_like(carry.status, int(Status.SUCCESS if done else Status.MAX_STEPS)),
    )
    return Run(problem, carry, None, records, emissions, taken, clock.interpolated, nfe), ends


def _grid(problem: Problem, carry: Carry, start: int, last: int, stop: int) -> tuple[Tensor, Tensor]:
    """Times [steps + 1] of the grid and signed steps [steps] between them."""
    assert isinstance(problem.controller, Fixed)
    n = torch.arange(start, last + 1, dtype=torch.float64, device=carry.y.device)
    times = problem.s0 + n * problem.controller.dt
    times = torch.where(n == stop, problem.s1, times)
    lengths = torch.full_like(times[1:], problem.controller.dt)
    if last == stop and last > start:
        lengths = torch.where(n[1:] == stop, times[1:] - times[:-1], lengths)
    return times, problem.forward(lengths)


def _march(problem: Problem, carry: Carry, max_steps: int, watch: Watch | None) -> Run:
    """Steps that have to be decided: one read of the device a step tells all the host needs to know."""
    look = HostClock(problem, float(carry.t)) if problem.s0.shape[0] == 1 else LaneClock(problem, carry)
    records, emissions, noise = [], [], _Noise(problem, carry, max_steps)
    books, carry = _books(problem, carry)
    start = carry
    iterations = nfe = 0
    cuts = _Cuts()
    running = bool((carry.status == RUNNING).any())
    while running and iterations < max_steps:
        tried = attempt(books, carry, noise(iterations))
        seen = look(tried)
        iterations, nfe = iterations + 1, tried.step.nfe
        if seen.some:
            place = carry
            if not seen.finite:
                place = _without_failures(start, carry, tried)
                tried = _retaken(problem, place, tried, noise(iterations - 1))
            record = _record(problem, place, tried, seen, noise.base + iterations - 1)
            records.append(record)
            emissions.append(emit(problem, record, tried.step))
        if watch is not None:
            watch(on_tensor(tried.reached))
        if seen.cut:
            cuts.mark(carry, tried)
        carry = _merge(carry, tried, seen)
        running = not seen.done
    carry = _tensors(carry)
    late = torch.full_like(carry.status, int(Status.MAX_STEPS))
    carry = carry._replace(status=torch.where(carry.status == RUNNING, late, carry.status))
    _part_with_lost(problem, carry, records, emissions)
    return Run(problem, carry, cuts.origin(carry), records, emissions, iterations, look.interpolated, nfe)


def _books(problem: Problem, carry: Carry) -> tuple[Problem, Carry]:
    """On a CPU, the same problem and carry with their books as arrays."""
    if carry.y.device.type != "cpu" or transforming():
        return problem, carry
    steps = None if problem.steps is None else on_host(problem.steps)
    return replace(problem, s0=on_host(problem.s0), s1=on_host(problem.s1), steps=steps), _kept(carry, on_host)


def _tensors(carry: Carry) -> Carry:
    """The carry with its books as tensors."""
    return _kept(carry, on_tensor)


def _kept(carry: Carry, how: Callable[[Book], Book]) -> Carry:
    """The carry with its books kept in another way."""
    books = {name: how(getattr(carry, name)) for name in _BOOKS}
    control, ahead = (tuple(how(book) for book in kept) for kept in (carry.control, carry.ahead))
    return carry._replace(**books, control=control, ahead=ahead)


def _record(problem: Problem, carry: Carry, tried: Attempt, seen: Seen, n: int | Tensor) -> Record:
    essential = problem.stepper.essential(carry.memory)
    s, dt, reached = on_tensor(carry.t), on_tensor(tried.dt), on_tensor(tried.reached)
    if seen.every:
        return Record(s, dt, carry.y, essential, None, reached, seen.crossing, n)
    accept = on_tensor(tried.accept)
    reached = torch.where(accept, reached, s)
    return Record(s, torch.where(accept, dt, 0.0), carry.y, essential, accept, reached, seen.crossing, n)


def _merge(carry: Carry, tried: Attempt, seen: Seen) -> Carry:
    """`merge`, without selecting where there is nothing to select: fewer kernels, and no tape of rejected steps."""
    if not seen.some:
        tried = tried._replace(step=tried.step._replace(y1=carry.y, memory=carry.memory), control=carry.control)
    elif seen.all_going:
        return Carry(
            t=tried.reached, h=tried.h, n=carry.n + 1, y=tried.step.y1, memory=tried.step.memory, control=tried.control,
            status=carry.status, trials=carry.trials + 1, accepted=carry.accepted + 1, ahead=tried.ahead,
        )  # fmt: skip
    return merge(carry, tried)


def _without_failures(start: Carry, carry: Carry, tried: Attempt) -> Carry:
    """The carry, with samples that did not accept back where they began, where the field is known to be finite.

    Where they are it may not be; what they do there is nobody's, but a NaN reaches shared parameters as 0 * NaN.
    """
    accept = tried.accept
    return carry._replace(
        t=rows(accept, carry.t, start.t),
        y=rows(accept, carry.y, start.y),
        memory=tuple(rows(accept, now, first) for now, first in zip(carry.memory, start.memory, strict=True)),
    )


def _retaken(problem: Problem, place: Carry, tried: Attempt, noise: Tensor | None) -> Attempt:
    """The step from there, with length 0 where it was not accepted; a second time only if a tape is to know of it."""
    if not torch.is_grad_enabled():
        return tried
    dt = namespace(tried.dt).where(tried.accept, tried.dt, 0.0)
    return tried._replace(dt=dt, step=step_of(problem, place, dt, noise))


def _part_with_lost(problem: Problem, carry: Carry, records: list[Record], emissions: list[Emission]) -> None:
    """Take the last step of samples that failed again, where it cannot be interpolated, and say so in its record.

    It led to where the field is not finite, and dense output may ask for the slope there.
    """
    waiting = (carry.status == int(Status.NONFINITE)) & (carry.accepted > 0)
    if not problem.stepper.basis_nfe or not bool(waiting.any()):
        return
    for i in reversed(range(len(records))):
        record = records[i]
        last = waiting if record.accept is None else waiting & record.accept
        if not bool(last.any()):
            continue
        waiting = waiting & ~last
        if problem.output.needs_basis(record.crossing):
            lost = last & _uninterpolable(problem, record)
            if bool(lost.any()):
                records[i] = record._replace(lost=lost)
                _, emissions[i] = replay(problem, records[i], record.y, _memory(problem, record))
        if not bool(waiting.any()):
            return


def _uninterpolable(problem: Problem, record: Record) -> Tensor:
    """Whose dense output of a recorded step is not finite [L]."""
    with torch.no_grad():
        step, _ = replay(problem, record._replace(crossing=None), record.y, _memory(problem, record))
        basis = problem.stepper.basis(problem.field, problem.forward(record.s), record.dt, record.y, step)
    bad = ~torch.isfinite(torch.stack(basis)).all(-1).all(0)
    return bad.any().reshape(1) if problem.coupled else bad


def _memory(problem: Problem, record: Record) -> tuple[Tensor, ...]:
    return problem.stepper.restore(problem.field, problem.forward(record.s), record.y, record.essential)


class _Cuts:
    """Where samples resume whose step was cut short by the end of the interval and then rejected.

    From there on such a sample walks other steps than it would without the end, so the carry before is kept.
    """

    def __init__(self) -> None:
        self.marked: Book | None = None
        self.kept: Carry | None = None

    def mark(self, carry: Carry, tried: Attempt) -> None:
        """Keep the carry of the samples that are cut here for the first time."""
        cut = tried.final & ~tried.accept & (carry.status == RUNNING)
        if self.marked is None or self.kept is None:
            self.marked, self.kept = cut, carry
            return
        self.kept = select(cut & ~self.marked, carry, self.kept)
        self.marked = self.marked | cut

    def origin(self, last: Carry) -> Origin | None:
        """Who resumes earlier than from the last carry, and where."""
        if self.marked is None or self.kept is None:
            return None
        return Origin(on_tensor(self.marked), _tensors(self.kept)._replace(status=last.status))


class _Noise:
    """Hands out the increments of the i-th step of this run, hashing a block of steps at a time."""

    def __init__(self, problem: Problem, carry: Carry, steps: int) -> None:
        self.noise = problem.noise if problem.counted else None
        self.steps = steps
        self.base = int(carry.n) if carry.n.shape[0] == 1 else carry.n
        self.first, self.block = 0, None
        self.count = 0 if self.noise is None else max(1, _DRAW // max(self.noise.width, 1))

    def __call__(self, i: int) -> Tensor | None:
        if self.noise is None:
            return None
        if self.block is None or i >= self.first + self.block.shape[0]:
            self.first = i
            with torch.no_grad():
                self.block = self.noise.block(self.base + i, min(self.count, max(self.steps - i, 1)))
        return self.block[i - self.first]
