"""Continuous paths through irregular, partly missing observations: the controls of neural CDEs and SDEs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, final

import torch
from torch import Tensor

__all__ = ["ControlPath", "HermitePath", "LinearPath", "NaturalCubicPath", "RectilinearPath"]

Leading = Literal["first", "zero"]


class ControlPath(ABC):
    """A path X [B, C] over time that drives controlled differential equations (`CDETerm`).

    times: [B, L], the rows of the observations, padding at infinity. Parameters and errors as for `HermitePath`.
    """

    times: Tensor
    start: Tensor
    _segments: tuple[Tensor, ...]

    @property
    def batch(self) -> int:
        """B, the number of paths."""
        return self.times.shape[0]

    @abstractmethod
    def evaluate(self, t: Tensor | float) -> Tensor:
        """Return X(t): [B, C] for a number, a 0-d tensor or per-sample times [B, 1]; [B, T, C] for shared times [T]."""

    @abstractmethod
    def derivative(self, t: Tensor | float) -> Tensor:
        """Return dX/dt at t; the shapes are those of `evaluate`."""

    def _keep(self, values: Tensor, times: Tensor, leading: str) -> Tensor:
        """Check the observations and keep their times; return these in the shape [B, L]."""
        _check(values, times, leading)
        times = times.to(values.device).expand(values.shape[:2])
        self.times = times.nan_to_num(nan=torch.inf).contiguous()  # searchsorted needs ordered rows: padding comes last
        self.start = self.times[:, :1]
        return times

    def _at(self, t: Tensor | float, right: bool = False) -> tuple[Tensor, ...]:
        """Return the time since the left knot, then the coefficients of the segments that hold t, knots left out.

        right: at a row's time, the segment that begins there (at the last row's, the one that ends there).
        """
        t = torch.as_tensor(t, dtype=self.times.dtype, device=self.times.device)
        if t.ndim > 2 or (t.ndim == 2 and t.shape != self.start.shape):
            raise ValueError(f"t has shape {tuple(t.shape)}: pass a number, [T], or [B, 1] = {tuple(self.start.shape)}")
        query = t if t.ndim == 2 else t.reshape(1, -1)
        query = torch.maximum(query, self.start).contiguous()  # [B, T]
        row = torch.searchsorted(self.times, query)
        if right:
            after = torch.searchsorted(self.times, query, right=True)
            row = torch.where(after < self.times.isfinite().sum(1, keepdim=True), after, row)
        row = row.sub(1).clamp(min=0)
        sample = torch.arange(row.shape[0], device=row.device).unsqueeze(-1)
        knot, *rest = (part[sample, row] for part in self._segments)
        found = ((query.unsqueeze(-1) - knot).to(rest[0].dtype), *rest)
        return found if t.ndim == 1 else tuple(part.squeeze(1) for part in found)


@final
class HermitePath(ControlPath):
    r"""Cubic Hermite path with backward differences through the observed values of every channel.

    Between two consecutive observations (p, x_p), (q, x_q) of one channel, with r = (t - p) / (q - p),

        X(t) = x_p + (t - p) (s + (b - s)(1 - r)²),   s = (x_q - x_p) / (q - p),   b = the secant before p,

    so the slope is b at p and s at q: X is continuously differentiable, exact on straight lines, and on [p, q]
    depends on nothing after q ("causal up to one interval"). Each channel uses its own observations: rows that are NaN
    in a channel, such as other channels' or other series' times, do not change that channel's path.

    Outside a channel's observations:

    - before the first one: constant at that value (`leading="first"`), or the same cubic rule from a knot of value 0 at
      the start time (`leading="zero"`, which does not read the future; 0 is the mean of standardised data);
    - after the last one: held constant (the derivative jumps to 0 there);
    - a channel without any observation is 0 throughout.

    Parameters
    ----------
    values: [B, L, C] floating point, NaN = missing. The path is differentiable in the observed values.
    times: [L] or [B, L], strictly increasing; shorter series end in NaN times. Any unit.
    leading: "first" or "zero", see above.

    Raises
    ------
    ValueError: shapes that do not fit, infinite values, times that do not increase or have NaN before their end.

    Source: Morrill, Kidger, Yang, Lyons, "Neural controlled differential equations for online prediction tasks"
    (arXiv 2106.11028), section 3. Differences from torchcde: there, missing values are first filled linearly and the
    cubic runs between grid times (so adding empty rows changes the path), and a last value is repeated at the end time.
    """

    def __init__(self, values: Tensor, times: Tensor, *, leading: Leading = "first") -> None:
        self._segments = _segments(values, self._keep(values, times, leading), leading)

    def evaluate(self, t: Tensor | float) -> Tensor:
        elapsed, left, secant, kink, gap = self._at(t)
        return left + elapsed * (secant + kink * (1 - elapsed / gap) ** 2)

    def derivative(self, t: Tensor | float) -> Tensor:
        """Return dX/dt at t, left-sided where it jumps; the shapes are those of `evaluate`."""
        elapsed, _, secant, kink, gap = self._at(t)
        ratio = elapsed / gap
        return secant + kink * (1 - ratio) * (1 - 3 * ratio)


@final
class LinearPath(ControlPath):
    """Straight lines from observation to observation of every channel; before, between and after as `HermitePath`.

    Between two observations X looks ahead to the second one. The derivative jumps at observations and is right-sided
    there, but left-sided at a series' last time: a solve goes forward in steps that end at observations, by a method
    without a stage at the end of its step (midpoint), to keep its order.

    Source: Kidger, Morrill, Foster, Lyons: Neural controlled differential equations (2020).
    """

    def __init__(self, values: Tensor, times: Tensor, *, leading: Leading = "first") -> None:
        self._segments = _segments(values, self._keep(values, times, leading), leading)[:3]

    def evaluate(self, t: Tensor | float) -> Tensor:
        elapsed, left, secant = self._at(t)
        return left + elapsed * secant

    def derivative(self, t: Tensor | float) -> Tensor:
        return self._at(t, right=True)[2]


@final
class NaturalCubicPath(ControlPath):
    """The natural cubic spline of every channel through its own observations: X is twice continuously differentiable.

    X'' = 0 at a channel's first and last observation; before and after them X is constant. Every observation changes
    the whole path: it looks ahead without limit, and is for series that are complete. Parameters: those of
    `HermitePath` without leading. Takes L steps over the whole batch to make.

    Source: de Boor: A practical guide to splines (1978), chapter 4.
    """

    def __init__(self, values: Tensor, times: Tensor) -> None:
        self._segments = _natural(values, self._keep(values, times, "first"))

    def evaluate(self, t: Tensor | float) -> Tensor:
        elapsed, left, first, second, third = self._at(t)
        return left + elapsed * (first + elapsed * (second + elapsed * third))

    def derivative(self, t: Tensor | float) -> Tensor:
        """Return dX/dt at t, left-sided at a channel's first and last observation, where it jumps."""
        elapsed, _, first, second, third = self._at(t)
        return first + elapsed * (2 * second + elapsed * 3 * third)


@final
class RectilinearPath(ControlPath):
    """The path (t, X) [B, 1 + C] that looks at nothing ahead: time moves while the values stay, then they move.

    Its parameter s is not time: at s = 2 i row i has been read, over s in [2 i, 2 i + 1] time goes on to that of row
    i + 1, over [2 i + 1, 2 i + 2] the values go to those of row i + 1. A missing value stays what it was, one that has
    never been seen is 0. A short series rests at the end of its own. Derivative: that of `LinearPath`, with which
    it shares what keeps a method's order: steps of 1 and the midpoint rule.

    Parameters: values, times as for `HermitePath`. Source: Morrill, Kidger, Yang, Lyons: Neural controlled
    differential equations for online prediction tasks (2021).
    """

    def __init__(self, values: Tensor, times: Tensor) -> None:
        clock = self._keep(values, times, "zero").to(values.dtype).unsqueeze(-1)
        length = values.shape[1]
        observed = ~values.isnan()
        position = torch.arange(length, device=values.device).view(1, length, 1)
        last = torch.where(observed, position, 0).cummax(1).values
        filled = torch.where(observed, values, 0.0).gather(1, last)
        rest = torch.cat((clock, filled), -1)
        moved = torch.cat((clock[:, 1:], filled[:, :-1]), -1)
        knots = torch.stack((rest[:, :-1], moved), 2).flatten(1, 2)
        knots = torch.cat((knots, rest[:, -1:]), 1)
        there = knots[..., :1].isfinite()
        s = torch.arange(2 * length - 1, dtype=self.times.dtype, device=values.device).expand(len(values), -1)
        self._line = LinearPath(torch.where(there, knots, torch.nan), torch.where(there[..., 0], s, torch.nan))
        self.times, self.start, self._segments = self._line.times, self._line.start, self._line._segments

    def evaluate(self, t: Tensor | float) -> Tensor:
        return self._line.evaluate(t)

    def derivative(self, t: Tensor | float) -> Tensor:
        return self._line.derivative(t)


def _segments(values: Tensor, times: Tensor, leading: Leading) -> tuple[Tensor, ...]:
    """Return (left time, left value, secant, b - s, gap), each [B, L, C]; row i serves the times (t_i, t_{i+1}]."""
    batch, length, channels = values.shape
    position = torch.arange(length, device=values.device).view(1, length, 1).expand(batch, length, channels)
    observed = ~values.isnan()
    first = torch.where(observed, position, length).amin(1, keepdim=True)
    filled = torch.where(observed, values, 0.0)
    start = filled.gather(1, first.clamp(max=length - 1)) if leading == "first" else torch.zeros_like(filled[:, :1])
    at_start = position == 0
    # The start is a knot of every channel, so each row has a left knot and no case is left to treat apart.
    filled = torch.where(at_start & ~observed, start, filled)
    observed = observed | at_start

    left = torch.where(observed, position, 0).cummax(1).values
    upcoming = torch.where(observed, position, length).flip(1).cummin(1).values.flip(1)
    right = torch.cat([upcoming[:, 1:], torch.full_like(upcoming[:, :1], length)], 1)
    inside = right < length
    right = torch.where(inside, right, left)

    clock = times.unsqueeze(-1).expand(batch, length, channels)
    knot = clock.gather(1, left)
    gap = torch.where(inside, clock.gather(1, right) - knot, 1.0).to(values.dtype)
    left_value = filled.gather(1, left)
    secant = (filled.gather(1, right) - left_value) / gap
    before = secant.gather(1, (left - 1).clamp(min=0))
    before = torch.where(left > 0, before, secant)
    kink = torch.where(inside, before - secant, 0.0)
    return knot, left_value, secant, kink, gap


def _natural(values: Tensor, times: Tensor) -> tuple[Tensor, ...]:
    """Return (left time, left value, and the coefficients of elapsed, its square and cube), each [B, L, C]."""
    observed = ~values.isnan()
    # Each channel's own knots to the front: [B, L, C], of which the first `count` are real.
    order = torch.sort((~observed).to(torch.int8), dim=1, stable=True).indices
    count = observed.sum(1, keepdim=True)
    place = torch.arange(values.shape[1], device=values.device).view(1, -1, 1)
    knot = times.unsqueeze(-1).expand_as(values).gather(1, order)
    knot = torch.where(place < count, knot, 0.0)
    value = torch.where(observed, values, 0.0).gather(1, order)
    inside = place[:, :-1] < count - 1  # segments
    gap = torch.where(inside, knot.diff(dim=1), 1.0).to(values.dtype)
    secant = torch.where(inside, value.diff(dim=1) / gap, 0.0)
    bend = _bends(gap, secant, inside)
    first = torch.where(inside, secant - gap * (2 * bend[:, :-1] + bend[:, 1:]) / 6, 0.0)
    second = torch.where(inside, bend[:, :-1] / 2, 0.0)
    third = torch.where(inside, bend.diff(dim=1) / (6 * gap), 0.0)
    # Back to rows: the knot at or before each row; before the first, and after the last, nothing moves.
    left = observed.cumsum(1) - 1
    begun, at = left >= 0, left.clamp(min=0)
    parts = (torch.cat((part, torch.zeros_like(value[:, :1])), 1).gather(1, at) for part in (first, second, third))
    moving = tuple(torch.where(begun, part, 0.0) for part in parts)
    return (knot.gather(1, at), value.gather(1, at), *moving)


def _bends(gap: Tensor, secant: Tensor, inside: Tensor) -> Tensor:
    """X'' at the knots [B, L, C], 0 at the first and from the last on, by elimination (Thomas)."""
    zero = gap.new_zeros(gap.shape[0], gap.shape[2])
    if not gap.shape[1]:
        return zero.unsqueeze(1)
    upper, right, bend = [zero], [zero], [zero]
    for i in range(1, gap.shape[1]):
        before, after = gap[:, i - 1], gap[:, i]
        pivot = 2 * (before + after) - before * upper[-1]
        inner = inside[:, i]
        upper.append(torch.where(inner, after / pivot, 0.0))
        load = 6 * (secant[:, i] - secant[:, i - 1]) - before * right[-1]
        right.append(torch.where(inner, load / pivot, 0.0))
    for i in range(gap.shape[1] - 1, 0, -1):
        bend.append(right[i] - upper[i] * bend[-1])
    return torch.stack([zero, *bend[:0:-1], zero], 1)


def _check(values: Tensor, times: Tensor, leading: str) -> None:
    if values.ndim != 3 or not values.is_floating_point():
        raise ValueError(f"values must be a floating tensor [B, L, C], got {values.dtype} {tuple(values.shape)}")
    if times.shape not in (values.shape[1:2], values.shape[:2]) or not times.is_floating_point():
        raise ValueError(
            f"times must be a floating tensor [L] or [B, L] = {tuple(values.shape[:2])}, "
            f"got {times.dtype} {tuple(times.shape)}"
        )
    if leading not in ("first", "zero"):
        raise ValueError(f'leading must be "first" or "zero", got {leading!r}')
    if values.isinf().any():
        raise ValueError("values hold infinities: mark missing values as NaN")
    step = times.diff(dim=-1)
    if times[..., 0].isnan().any() or not (step.isnan() | (step > 0)).all():
        raise ValueError("times must start with a number and strictly increase; shorter series end in NaN")
    if (times[..., :-1].isnan() & ~times[..., 1:].isnan()).any():
        raise ValueError("times have NaN before their end: only trailing NaN (padding) is allowed")
    padded = times.isnan().expand(values.shape[:2]).unsqueeze(-1)
    if (padded & ~values.isnan()).any():
        raise ValueError("an observed value has a NaN time: set padded values to NaN too")
