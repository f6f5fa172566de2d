"""What the host has to learn from a step: whether to go on, and which output times were passed."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..advance import Attempt
from ..books import on_tensor
from ..problem import Carry, Problem
from ..status import RUNNING
from ..trajectory import Crossing

__all__ = ["HostClock", "LaneClock", "Seen"]

_AT_END = 1e-9
"""An output time within this part of a step from its end is at its end."""


class Seen(NamedTuple):
    """What the host learns from one read.

    Did some, did every sample accept; do all go on; have all ended; is all finite; was a step cut by the end and
    rejected.
    """

    some: bool
    every: bool
    all_going: bool
    done: bool
    finite: bool
    cut: bool
    crossing: Crossing | None


class HostClock:
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
        books = (tried.reached, tried.accept, tried.final, tried.finite, tried.status)
        if isinstance(tried.reached, Tensor):
            books = torch.cat(books).split(1)
        reached, accept, final, finite, status = (float(book[0]) for book in books)
        crossing = None
        if accept:
            crossing, self.now = self.advance(self.now, reached), reached
        ok = bool(accept)
        return Seen(ok, ok, ok and not final, status != RUNNING, bool(finite), bool(final) and not ok, crossing)


class LaneClock:
    """Output times of samples that step by themselves: a cursor a sample."""

    def __init__(self, problem: Problem, carry: Carry) -> None:
        times = problem.output.times.contiguous()
        self.times = times[0] if times.shape[0] == 1 else times
        self.cursor = torch.ones_like(on_tensor(carry.n))
        self.interpolated = 0
        self.dense = problem.output.dense
        self.pairs = problem.output.save.at != "steps"

    def __call__(self, tried: Attempt) -> Seen:
        reached, accept, length = on_tensor(tried.reached), on_tensor(tried.accept), on_tensor(tried.dt).abs()
        ahead = torch.where(accept, reached + _AT_END * length, -math.inf).unsqueeze(-1)
        passed = torch.maximum(torch.searchsorted(self.times, ahead, right=True).squeeze(-1), self.cursor)
        some, broken, was_cut, crossed, every, all_going, done = _flags(tried, passed > self.cursor)
        crossing = None
        if crossed and self.pairs:
            crossing = self._crossing(reached, length, passed)
            self.cursor = passed
        self.interpolated += self.dense or crossing is not None
        return Seen(some, every, all_going, done, not broken, was_cut, crossing)

    def _crossing(self, end: Tensor, length: Tensor, passed: Tensor) -> Crossing:
        """One entry for every output time that every sample passed in this step."""
        fresh = passed - self.cursor
        lane = torch.repeat_interleave(fresh)
        k = torch.arange(lane.shape[0], device=lane.device) + (passed - torch.cumsum(fresh, 0))[lane]
        times = self.times[k] if self.times.ndim == 1 else self.times[lane, k]
        theta = 1 - (end[lane] - times) / length[lane]
        theta = torch.where(theta > 1 - _AT_END, 1.0, theta.clamp(min=0.0))
        return Crossing(k, lane, theta)


def _flags(tried: Attempt, fresh: Tensor) -> list[bool]:
    """Any: accepted, not finite, cut, output time passed; all: accepted, going on, ended. One read of a device."""
    ended = tried.status != RUNNING
    some_of = (tried.accept, ~tried.finite, tried.final & ~(tried.accept | ended))
    all_of = (tried.accept, tried.accept & ~tried.final, ended)
    if isinstance(ended, Tensor):
        return torch.cat((torch.stack((*some_of, fresh)).any(1), torch.stack(all_of).all(1))).tolist()
    return [*(bool(x.any()) for x in (*some_of, fresh)), *(bool(x.all()) for x in all_of)]
