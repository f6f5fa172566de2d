"""Curves of error over seconds: when a level is reached, and how much sooner by one of two contestants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

__all__ = ["Duel", "Entry", "duel", "pace", "reached", "together"]


class Entry(NamedTuple):
    """A look at a training: its stage, iterations of that stage, seconds since the beginning, the error."""

    stage: int
    iteration: int
    seconds: float
    error: float


Curve = Sequence[Entry]


def reached(curve: Curve, level: float) -> float | None:
    """Seconds until the first look at which the error is at most `level`; None if it never is."""
    return next((one.seconds for one in curve if one.error <= level), None)


def together(curves: Sequence[Curve], level: float) -> float | None:
    """Mean seconds of several curves until `level`; None unless each reaches it."""
    each = [reached(curve, level) for curve in curves]
    found = [seconds for seconds in each if seconds is not None]
    return fmean(found) if found and len(found) == len(each) else None


def least(curve: Curve) -> float:
    """The least error that was seen; a curve of none that is a number has an infinite one."""
    return min((one.error for one in curve if math.isfinite(one.error)), default=math.inf)


class Duel(NamedTuple):
    """Two contestants at one error: the level, mean seconds of ours and of the rival, and the one over the other."""

    level: float
    ours: float
    rival: float

    @property
    def ratio(self) -> float:
        """Ours over the rival's."""
        return self.ours / self.rival if self.rival > 0 else math.inf


def duel(ours: Sequence[Curve], rivals: Sequence[Curve], level: float | None = None) -> Duel | None:
    """Compare the seconds to one error; None if a curve does not reach it.

    level: None is the least that all curves of both reach, the largest of their least errors.
    """
    if level is None:
        level = max(least(curve) for curve in (*ours, *rivals))
    own, other = together(ours, level), together(rivals, level)
    return None if own is None or other is None or math.isinf(level) else Duel(level, own, other)


def pace(curve: Curve, stage: int) -> float | None:
    """Seconds an iteration of a stage; None where there were none."""
    own = [one for one in curve if one.stage == stage]
    before = [one for one in curve if one.stage < stage] or own[:1]
    if not own or own[-1].iteration <= (first := 0 if before[-1].stage < stage else before[-1].iteration):
        return None
    return (own[-1].seconds - before[-1].seconds) / (own[-1].iteration - first)
