"""A user's readings of a field on a circle: checked, on even times, with the waves that its start is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciode.prose.arrays import numbers_in
from sciode.prose.circle import refined_grid
from sciode.prose.shooting import noise_of
from sciode.prose.trees import Expression

__all__ = ["FieldReadings", "field_readings", "last_heard"]

_FEWEST = 8
_FURTHEST = 1000
"""So many times as long as the readings last no answer is worked out."""
_SAME, _APART = 1e-6, 0.03
_HEARD = 3.0
"""A mode whose power is so many deviations above that of noise is no noise."""


@final
@dataclass(frozen=True, eq=False)
class FieldReadings:
    """values [T, seen, N] of the first fields of `fields`, at even times [T] from 0 on, on a circle; asked [Q]: query
    times after the first reading."""

    length: float
    times: Tensor
    values: Tensor
    asked: Tensor
    fields: int

    @property
    def points(self) -> int:
        """N."""
        return self.values.shape[-1]

    @cached_property
    def noise(self) -> Tensor:
        """The standard deviation of white noise, one for all, of each field at each point [seen N]."""
        return noise_of(self.values.flatten(1), shared=True)

    @cached_property
    def waves(self) -> list[Tensor]:
        """Orthonormal waves [modes, N] for the start of each field: up to the last that is heard above the noise.

        A field that is not given has those that are heard in all frames together.
        """
        seen = self.values.shape[1]
        found = []
        for field in range(self.fields):
            frames = self.values[:1, field] if field < seen else self.values.flatten(0, 1)
            found.append(_waves(last_heard(frames, float(self.noise[0])), self.points))
        return found

    @cached_property
    def start(self) -> Tensor:
        """What waves hold of the first frame, [S], field after field; 0 of fields that are not given."""
        seen = self.values.shape[1]
        return torch.cat([
            waves @ self.values[0, field] if field < seen else waves.new_zeros(len(waves))
            for field, waves in enumerate(self.waves)
        ])  # fmt: skip

    def on(self, points: int, start: Tensor) -> Tensor:
        """Return starts [..., S] as fields [..., fields, points]."""
        parts = start.split([len(waves) for waves in self.waves], -1)
        own = [part @ waves for part, waves in zip(parts, self.waves, strict=True)]
        return refined_grid(torch.stack(own, -2), points)


def last_heard(frames: Tensor, noise: float) -> int:
    """The last mode of frames [T, N] whose power stands out of white noise of that deviation, 0 where none does."""
    # Of white noise these are means of chi squared of two degrees: 1, give or take one over the root of frames.
    power = torch.fft.rfft(frames, dim=-1).abs().square().mean(0) / (frames.shape[-1] * noise**2)
    heard = (power > 1 + _HEARD / math.sqrt(len(frames))).nonzero()
    return int(heard.amax()) if len(heard) else 0


def _waves(last: int, points: int) -> Tensor:
    x = 2 * math.pi * torch.arange(points, dtype=torch.float64) / points
    found = [torch.full_like(x, 1 / math.sqrt(points))]
    for k in range(1, last + 1):
        alone = 2 * k == points
        found.append(torch.cos(k * x) * math.sqrt((1 if alone else 2) / points))
        found += [] if alone else [torch.sin(k * x) * math.sqrt(2 / points)]
    return torch.stack(found)


def field_readings(equations: Sequence[Any], x: Any, times: Any, values: Any, query_times: Any) -> FieldReadings:
    """Check readings [T, N] or [T, fields, N] at times [T] and points x [N] of a circle, for these equations.

    Raises ValueError for what are no equations, arrays that do not fit, NaN, uneven points or times, a first point
    that is there again at the end, or query times that do not increase, lie before the first reading or far beyond.
    """
    _check_equations(equations)
    places, t, u = (numbers_in(name, own) for name, own in (("x", x), ("times", times), ("values", values)))
    asked = np.atleast_1d(numbers_in("query_times", query_times))
    u = u[:, None] if u.ndim == 2 else u
    if places.ndim != 1 or t.ndim != 1 or u.ndim != 3 or (len(t), len(places)) != (len(u), u.shape[2]):
        raise ValueError(
            f"expected x [N], times [T] and values [T, N] or [T, fields, N], got {places.shape}, {t.shape}, {u.shape}"
        )
    if not 1 <= u.shape[1] <= len(equations) or len(t) < _FEWEST or len(places) < _FEWEST:
        raise ValueError(
            f"there are {len(equations)} equations, {u.shape[1]} fields are given at {len(t)} times on "
            f"{len(places)} points: give at most as many fields as equations, {_FEWEST} times and points or more"
        )
    if not all(np.isfinite(one).all() for one in (places, t, u, asked)):
        raise ValueError("x, times, values and query_times must be finite: leave frames with NaN out at the ends")
    _check_even("x", places)
    _check_ends(u)
    _check_even("times", t)
    if asked.ndim != 1 or (len(asked) and (asked[0] < t[0] - 1e-12 or (np.diff(asked) <= 0).any())):
        raise ValueError(f"query_times must increase, and begin at {t[0]:g} or later")
    if len(asked) and asked[-1] - t[0] > _FURTHEST * (t[-1] - t[0]):
        raise ValueError(f"query_times go on to {asked[-1]:g}, {_FURTHEST} times as far as times: are units the same?")
    even = torch.linspace(0, float(t[-1] - t[0]), len(t), dtype=torch.float64)
    length = float(places[-1] - places[0]) * len(places) / (len(places) - 1)
    behind = torch.from_numpy(asked - t[0]).clamp(min=0.0)
    return FieldReadings(length, even, torch.from_numpy(u.copy()), behind, len(equations))


def _check_equations(equations: Sequence[Any]) -> None:
    for one in equations:
        if not isinstance(one, Expression):
            raise ValueError(f"an equation is an Expression of variable(0), ..., got {one!r}")
        if one.parameters:
            raise ValueError(f"the equations have parameters without numbers: {', '.join(one.parameters)}; see `bound`")


def _check_even(name: str, given: NDArray[np.float64]) -> None:
    gaps = np.diff(given)
    if not (gaps[0] > 0 and np.allclose(gaps, gaps[0], rtol=1e-4, atol=0)):
        raise ValueError(f"{name} must increase evenly: lay the readings on an even grid first (a cubic spline)")


def _check_ends(given: NDArray[np.float64]) -> None:
    """A point that is there twice has the same values at both ends, while those beside them differ."""
    ends, beside = (np.abs(given[..., k] - given[..., -1 - k]).max() for k in (0, 1))
    if ends < _SAME * beside and beside > _APART * given.std():
        raise ValueError("the first and the last point read the same: leave the last out, a circle has it once")
