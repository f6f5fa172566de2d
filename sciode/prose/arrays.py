"""A user's trajectory as the model wants it: checked, in its units of time and size, on even times."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from sciode.prose.trees import Expression

__all__ = ["Trajectory", "in_own_units", "numbers_in", "trajectory"]

_FEWEST = 8
_LARGEST = 1e3
"""What training left out: trajectories that grow beyond this."""
_SPAN = 2.0
"""How long training's trajectories are read."""


class Trajectory(NamedTuple):
    """times [T], even, from 0 to 2, and values [T, d], float64, both in the model's units; time, size [d]: what one of
    them is in the user's; start: the user's first time; given: how many of the user's points there are."""

    times: Tensor
    values: Tensor
    time: float
    size: NDArray[np.float64]
    start: float
    given: int

    def asked(self, times: Any) -> Tensor:
        """Query times in the model's units, [Q]. ValueError for some that are not finite or before the start."""
        wanted = np.atleast_1d(numbers_in("query_times", times))
        if wanted.ndim != 1 or not len(wanted) or not np.isfinite(wanted).all():
            raise ValueError(f"query_times are [Q] and finite, got shape {wanted.shape}")
        if (wanted < self.start).any():
            raise ValueError(f"query_times begin at {wanted.min():g}, before the first reading at {self.start:g}")
        return torch.from_numpy((wanted - self.start) / self.time)


def trajectory(
    times: Any, values: Any, most: int, frames: int, scale: Sequence[float] | None = None, unit: float | None = None
) -> Trajectory:
    """Check readings [T, d] at times [T] and lay them on even times.

    most: components that the model knows. frames: even ones, between which cubic splines go. scale: what is 1 for the
    model, of each component; unit: of time; None: half of what the readings span, so that they end at 2, or 1 if they
    nearly do.

    Raises ValueError for arrays that do not fit, NaN, times that do not increase, too few points or too many
    components, readings that do not move, or that grow beyond what training has seen.
    """
    t, x = numbers_in("times", times), numbers_in("values", values)
    x = x[:, None] if x.ndim == 1 else x
    if t.ndim != 1 or x.ndim != 2 or len(t) != len(x):
        raise ValueError(f"expected times [T] and values [T, d], got {t.shape} and {x.shape}")
    if x.shape[1] > most:
        raise ValueError(
            f"there are {x.shape[1]} components, this model knows up to {most}: take one of a larger preset"
        )
    if len(t) < _FEWEST:
        raise ValueError(f"{len(t)} readings are too few: {_FEWEST} at least, some 60 are good")
    if not (np.isfinite(t).all() and np.isfinite(x).all()):
        place = int((~(np.isfinite(t) & np.isfinite(x).all(1))).argmax())
        raise ValueError(f"reading {place} is NaN or infinite: leave such rows out, times need not be even")
    if (np.diff(t) <= 0).any():
        place = int((np.diff(t) <= 0).argmax())
        raise ValueError(f"times must increase: {t[place]:g} is followed by {t[place + 1]:g} (sort the rows)")
    own = np.ones(()) if scale is None else numbers_in("scale", scale)
    if own.shape not in ((), x.shape[1:]) or not (np.isfinite(own).all() and (own > 0).all()):
        raise ValueError(f"scale must be positive, one number or {x.shape[1]}, got {own.tolist()}")
    size = np.broadcast_to(own, x.shape[1:]).copy()
    x = x / size
    if (x.std(0) <= 1e-9 * (1 + np.abs(x).max(0))).all():
        raise ValueError("the readings do not move: a constant trajectory tells nothing of its equations")
    if np.abs(x).max() > _LARGEST:
        raise ValueError(
            f"readings reach {np.abs(x).max():g}, training ended at {_LARGEST:g}: if they do not diverge, give scale="
        )
    span = float(t[-1] - t[0])
    near = abs(span / _SPAN - 1) < 0.1
    one = (1.0 if near else span / _SPAN) if unit is None else unit
    if not (isinstance(one, Real) and 0 < one < np.inf):
        raise ValueError(f"unit must be a positive number, got {unit!r}")
    clock = (t - t[0]) / one
    even = np.linspace(0, clock[-1], frames)
    same = len(clock) == frames and np.allclose(clock, even, rtol=0, atol=1e-9)
    laid = x if same else CubicSpline(clock, x)(even)
    return Trajectory(
        torch.from_numpy(even), torch.from_numpy(np.ascontiguousarray(laid)), one, size, float(t[0]), len(t)
    )


def numbers_in(name: str, given: Any) -> NDArray[np.float64]:
    """Of lists, arrays, frames or tensors. ValueError for what are no real numbers, which says what to do."""
    try:
        found = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)
        # Dates in a frame are objects or of numpy's own kind, which would turn into some count of nanoseconds.
        if found.dtype.kind in "mM":
            raise ValueError("they are dates: count from the first, (t - t[0]) / np.timedelta64(1, 's')")
        if found.dtype.kind == "c":
            raise ValueError("they are complex: give real and imaginary parts as two components")
        return found.astype(np.float64)
    except (TypeError, ValueError) as fault:
        raise ValueError(f"{name} must be an array of real numbers: {fault}") from fault


def in_own_units(equations: Sequence[Expression], given: Trajectory) -> tuple[Expression, ...]:
    """Return equations of the model's units as those of the user's: du_i/dt = size_i / time f_i(u / size)."""
    sizes = given.size.tolist()
    return tuple(_scaled(one, size / given.time, sizes) for one, size in zip(equations, sizes, strict=True))


def _scaled(tree: Expression, factor: float, sizes: Sequence[float]) -> Expression:
    symbols: list[str | float] = []
    for one in tree.symbols:
        size = sizes[int(one[2:])] if isinstance(one, str) and one.startswith("u_") else 1.0
        symbols += [one] if size == 1.0 else ["div", one, size]
    found = Expression(tuple(symbols))
    return found if factor == 1.0 else factor * found
