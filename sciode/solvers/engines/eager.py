"""The plain engine: a Python loop that reads the device once a step, or never if the steps are known beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..advance import Attempt, attempt, merge, select
from ..controllers import Fixed
from ..problem import Carry, Problem
from ..status import RUNNING, Status
from ..trajectory import Crossing, Record, Run, emit

__all__ = ["run", "split_clock"]

Watch = Callable[[Tensor], None]
_AT_END = 1e-9
"""An output time within this part of a step from its end is at its end."""
_DRAW = 2**18
"""How many normals to hash at a time: enough to hide the cost of a call, little enough to stay in cache."""


def run(problem: Problem, carry: Carry, max_steps: int, watch: Watch | None = None) -> Run:
    """Repeat the transition until every sample has ended, recording what the accepted steps contribute.

    Under grad mode the records are on the tape (that is the `direct` adjoint); else they are plain values.
    """
    if isinstance(problem.controller, Fixed) and problem.s0.shape[0] == 1:
        done, last = _lockstep(problem, carry, max_steps, watch)
        # Explicit increments keep a NaN for ever, so the end tells whether any step had one.
        if bool(torch.isfinite(last).all()):
            return done
        problem, carry = split_clock(problem, carry)
    return _march(problem, carry, max_steps, watch)


def split_clock(problem: Problem, carry: Carry) -> tuple[Problem, Carry]:
    """The same solve with a clock and a status for every sample (noise hangs on seeds, so nothing else changes)."""
    lanes = 1 if problem.coupled else carry.y.shape[0]
    each = {name: getattr(carry, name).expand(lanes) for name in ("t", "h", "n", "status", "trials", "accepted")}
    steps = None if problem.steps is None else problem.steps.expand(lanes)
    problem = replace(problem, s0=problem.s0.expand(lanes), s1=problem.s1.expand(lanes), steps=steps)
    return problem, carry._replace(**each)


def _lockstep(problem: Problem, carry: Carry, max_steps: int, watch: Watch | None) -> tuple[Run, Tensor]:
    """Fixed steps on one clock: all times are known, nothing is decided, so nothing is read."""
    assert problem.steps is not None and isinstance(problem.controller, Fixed)
    start, stop = int(carry.n), int(problem.steps)
    last = min(stop, start + max_steps)
    times, lengths = _grid(problem, carry, start, last, stop)
    clock, host = _HostClock(problem, float(carry.t)), times.tolist()
    records, emissions, noise = [], [], _Noise(problem, carry, stop - start)
    last_y, nfe = carry.y, 0
    for i in range(last - start):
        s, dt = times[i : i + 1], lengths[i : i + 1]
        crossing = clock.advance(host[i], host[i + 1])
        essential = problem.stepper.essential(carry.memory)
        record = Record(s, dt, carry.y, essential, None, times[i + 1 : i + 2], crossing, start + i)
        step = problem.stepper.step(problem.field, noise(i), problem.forward(s), dt, carry.y, carry.memory)
        last_y, nfe = step.y1, step.nfe
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
    return Run(problem, carry, carry, records, emissions, taken, clock.interpolated, nfe), last_y


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
    look = _HostClock(problem, float(carry.t)) if problem.s0.shape[0] == 1 else _LaneClock(problem, carry)
    records, emissions, noise = [], [], _Noise(problem, carry, max_steps)
    iterations = nfe = 0
    origin = _Origin()
    running = bool((carry.status == RUNNING).any())
    while running and iterations < max_steps:
        tried = attempt(problem, carry, noise(iterations))
        seen = look(tried)
        iterations, nfe = iterations + 1, tried.step.nfe
        if seen.some:
            if not seen.finite and torch.is_grad_enabled():
                tried = _without_failures(problem, carry, tried, noise(iterations - 1))
            record = _record(problem, carry, tried, seen, noise.base + iterations - 1)
            records.append(record)
            emissions.append(emit(problem, record, tried.step))
        if watch is not None:
            watch(tried.reached)
        if seen.cut:
            origin.mark(carry, tried)
        carry = _merge(carry, tried, seen)
        running = not seen.done
    late = (carry.status == RUNNING).to(torch.int8) * int(Status.MAX_STEPS)
    carry = carry._replace(status=torch.where(carry.status == RUNNING, late, carry.status))
    return Run(problem, carry, origin.of(carry), records, emissions, iterations, look.interpolated, nfe)


def _record(problem: Problem, carry: Carry, tried: Attempt, seen: Seen, n: int | Tensor) -> Record:
    accept = None if seen.every else tried.accept
    dt = tried.dt if seen.every else torch.where(tried.accept, tried.dt, 0.0)
    essential = problem.stepper.essential(carry.memory)
    reached = torch.where(tried.accept, tried.reached, carry.t) if accept is not None else tried.reached
    return Record(carry.t, dt, carry.y, essential, accept, reached, seen.crossing, n)


def _merge(carry: Carry, tried: Attempt, seen: Seen) -> Carry:
    """`merge`, without selecting where there is nothing to select: fewer kernels, and no tape of rejected steps."""
    if not seen.some:
        tried = tried._replace(step=tried.step._replace(y1=carry.y, memory=carry.memory), control=carry.control)
    elif seen.all_going:
        return Carry(
            t=tried.reached, h=tried.h, n=carry.n + 1, y=tried.step.y1, memory=tried.step.memory, control=tried.control,
            status=carry.status, trials=carry.trials + 1, accepted=carry.accepted + 1,
        )  # fmt: skip
    return merge(carry, tried)


def _without_failures(problem: Problem, carry: Carry, tried: Attempt, noise: Tensor | None) -> Attempt:
    """The same step with length 0 where it was not accepted: a NaN on the tape would reach shared parameters as 0 * NaN."""
    dt = torch.where(tried.accept, tried.dt, 0.0)
    step = problem.stepper.step(problem.field, noise, problem.forward(carry.t), dt, carry.y, carry.memory)
    return tried._replace(dt=dt, step=step)


class _Origin:
    """Where samples resume whose step was cut short by the end of the interval and then rejected.

    From there on such a sample walks other steps than it would without the end, so the carry before is kept.
    """

    def __init__(self) -> None:
        self.marked: Tensor | None = None
        self.kept: Carry | None = None

    def mark(self, carry: Carry, tried: Attempt) -> None:
        """Keep the carry of the samples that are cut here for the first time."""
        cut = tried.final & ~tried.accept & (carry.status == RUNNING)
        if self.marked is None or self.kept is None:
            self.marked, self.kept = cut, carry
            return
        self.kept = select(cut & ~self.marked, carry, self.kept)
        self.marked = self.marked | cut

    def of(self, carry: Carry) -> Carry:
        """The carry to resume from."""
        if self.marked is None or self.kept is None:
            return carry
        return select(self.marked, self.kept, carry)._replace(status=carry.status)


class Seen(NamedTuple):
    """What the host learns from one read.

    Did some, did every sample accept; do all go on; have all ended; is all finite; was a step cut by the end and rejected.
    """

    some: bool
    every: bool
    all_going: bool
    done: bool
    finite: bool
    cut: bool
    crossing: Crossing | None


class _HostClock:
    """Output times of a batch with one clock, kept as Python numbers."""

    def __init__(self, problem: Problem, start: float) -> None:
        self.times = problem.output.host_times or ()
        self.lengths = len(self.times)
        self.next = 1
        self.now = start
        self.interpolated = 0
        self.extra = problem.output.dense

    def advance(self, start: float, end: float) -> Crossing | None:
        """The output times in (start, end]."""
        first, slack = self.next, _AT_END * (end - start)
        while self.next < self.lengths and self.times[self.next] <= end + slack:
            self.next += 1
        if self.next == first:
            self.interpolated += self.extra
            return None
        passed = self.times[first : self.next]
        thetas = tuple(1.0 if s >= end - slack else (s - start) / (end - start) for s in passed)
        self.interpolated += self.extra or thetas[0] < 1
        return Crossing(range(first, self.next), None, thetas)

    def __call__(self, tried: Attempt) -> Seen:
        flags = torch.cat((tried.reached, tried.accept, tried.final, tried.finite, tried.status)).tolist()
        reached, accept, final, finite, status = flags
        crossing = None
        if accept:
            crossing, self.now = self.advance(self.now, reached), reached
        ok = bool(accept)
        return Seen(ok, ok, ok and not final, status != RUNNING, bool(finite), bool(final) and not ok, crossing)


class _LaneClock:
    """Output times of samples that step by themselves: a cursor a sample, on the device."""

    def __init__(self, problem: Problem, carry: Carry) -> None:
        self.times = problem.output.times.contiguous()
        self.cursor = torch.ones_like(carry.n)
        self.interpolated = 0
        self.dense = problem.output.dense
        self.pairs = problem.output.save.at != "steps"
        self.now = carry.t

    def __call__(self, tried: Attempt) -> Seen:
        ahead = tried.reached + _AT_END * tried.dt.abs()
        reached = torch.where(tried.accept, ahead, -math.inf).unsqueeze(-1)
        table = self.times[0] if self.times.shape[0] == 1 else self.times
        passed = torch.searchsorted(table, reached, right=True).squeeze(-1)
        passed = torch.maximum(passed, self.cursor)
        fresh = passed - self.cursor
        going = tried.accept & ~tried.final
        ended = tried.status != RUNNING
        cut = tried.final & ~(tried.accept | ended)
        some_of = torch.stack((tried.accept, ~tried.finite, fresh > 0, cut)).any(1)
        all_of = torch.stack((tried.accept, going, ended)).all(1)
        some, broken, crossed, was_cut, every, all_going, done = torch.cat((some_of, all_of)).tolist()
        crossing = self._crossing(tried, passed, fresh) if crossed and self.pairs else None
        self.interpolated += self.dense or crossing is not None
        return Seen(some, every, all_going, done, not broken, was_cut, crossing)

    def _crossing(self, tried: Attempt, passed: Tensor, fresh: Tensor) -> Crossing:
        """One entry for every output time that every sample passed in this step."""
        lane = torch.repeat_interleave(fresh)
        starts = torch.cumsum(fresh, 0) - fresh
        within = torch.arange(lane.shape[0], device=lane.device) - starts[lane]
        k = self.cursor[lane] + within
        rows = self.times[0, k] if self.times.shape[0] == 1 else self.times[lane, k]
        end, length = tried.reached[lane], tried.dt[lane].abs()
        theta = 1 - (end - rows) / length
        theta = torch.where(theta > 1 - _AT_END, 1.0, theta.clamp(min=0.0))
        self.cursor = torch.where(tried.accept, passed, self.cursor)
        return Crossing(k, lane, theta)


class _Noise:
    """Hands out the increments of the i-th step of this run, hashing a block of steps at a time."""

    def __init__(self, problem: Problem, carry: Carry, steps: int) -> None:
        self.noise = problem.noise
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
