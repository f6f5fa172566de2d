"""Time grids: where the steps of a sampler end, N + 1 times from t_start down to t_end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betaincinv
from torch import Tensor

from sciode.diffusion.schedules.base import Schedule
from sciode.solvers.suggest import choose

__all__ = ["GRIDS", "Grid", "check_ends", "karras", "middle", "shifted", "times_of"]

Array = NDArray[np.float64]
Grid = str | Sequence[float] | NDArray[Any] | Tensor | Callable[[Schedule, int, float, float], Any]
"""A name of GRIDS, the times themselves, or a function (schedule, steps, t_start, t_end) -> times [steps + 1]."""


def _array(x: Tensor) -> Array:
    return x.detach().cpu().double().numpy()


def _ratios(schedule: Schedule, t: float) -> float:
    """rho = sigma / alpha."""
    return float(schedule.sigma(t) / schedule.alpha(t))


def _uniform(schedule: Schedule, steps: int, start: float, end: float) -> Array:
    return np.linspace(start, end, steps + 1)


def _quadratic(schedule: Schedule, steps: int, start: float, end: float) -> Array:
    return np.linspace(np.sqrt(start), np.sqrt(end), steps + 1) ** 2


def _log_snr(schedule: Schedule, steps: int, start: float, end: float) -> Array:
    if float(schedule.alpha(start)) == 0:
        # No log-SNR to be uniform in: the first step is that of the uniform grid.
        first = float(_uniform(schedule, steps, start, end)[1])
        return (
            np.concatenate(([start], _log_snr(schedule, steps - 1, first, end)))
            if steps > 1
            else np.array([start, end])
        )
    low, high = (float(schedule.half_log_snr(t)) for t in (start, end))
    return _array(schedule.t_of(_tensor(np.linspace(low, high, steps + 1))))


def karras(rho: float = 7.0) -> Callable[[Schedule, int, float, float], Array]:
    """A grid for `sample(grid=)`: sigma / alpha uniform to the power 1 / rho; 7, EDM's, is dense near the data.

    Raises ValueError for rho <= 0, and on use where alpha is 0 at t_start. Source: Karras et al. (2022), EDM.
    """
    if not rho > 0:
        raise ValueError(f"karras: expected rho > 0, got {rho}")

    def grid(schedule: Schedule, steps: int, start: float, end: float) -> Array:
        high, low = (_ratios(schedule, t) ** (1 / rho) for t in (start, end))
        if not np.isfinite(high):
            raise ValueError(
                "grid: karras divides by alpha, which is 0 at t_start; use 'uniform' or an earlier t_start"
            )
        return _array(schedule.t_of(_tensor(-rho * np.log(np.linspace(high, low, steps + 1)))))

    return grid


def middle(strength: float = 2.5) -> Callable[[Schedule, int, float, float], Array]:
    """Log-SNRs m + w sinh(v) around the middle m of their range, v uniform in +-strength: long steps at both ends.

    At the ends every model is nearly linear in the state, and what bends lies in between. For dpm-v3, whose linear part
    makes long steps harmless, and from 8 evaluations on for unipc-asinh-2; other multistep samplers extrapolate badly
    into steps that grow, and are better off with "log-snr" above 6. Lower last orders cost these two nothing up to some
    20 steps, and help from 7 to 10: `sampler("dpm-v3", lower_final=True)`. strength: 2.5; 0.1 is nearly "log-snr".
    Raises ValueError for strength <= 0, and on use where alpha is 0 at t_start.
    """
    if not strength > 0:
        raise ValueError(f"middle: expected strength > 0, got {strength}")

    def grid(schedule: Schedule, steps: int, start: float, end: float) -> Array:
        low, high = (float(schedule.half_log_snr(t)) for t in (start, end))
        if not np.isfinite(low):
            raise ValueError("grid: middle needs a finite log-SNR at t_start; use 'uniform' or an earlier t_start")
        places = np.sinh(np.linspace(-strength, strength, steps + 1)) / np.sinh(strength)
        return _array(schedule.t_of(_tensor(0.5 * (low + high) + 0.5 * (high - low) * places)))

    return grid


def _beta(schedule: Schedule, steps: int, start: float, end: float) -> Array:
    # Quantiles of a Beta(0.6, 0.6) law: dense at both ends.
    return end + (start - end) * betaincinv(0.6, 0.6, np.linspace(1, 0, steps + 1))


def _trailing(schedule: Schedule, steps: int, start: float, end: float) -> Array:
    return np.append(start * (1 - np.arange(steps) / steps), end)


def _leading(schedule: Schedule, steps: int, start: float, end: float) -> Array:
    return np.append(start * np.arange(steps, 0, -1) / (steps + 1), end)


def shifted(shift: float) -> Callable[[Schedule, int, float, float], Array]:
    """t -> shift t / (1 + (shift - 1) t) of the uniform grid, for flows on [0, 1]: more steps near the noise.

    shift: exp(mu) in FLUX (mu 0.5 to 1.15, by image size), 3 in Stable Diffusion 3; 1 changes nothing.
    Raises ValueError for shift <= 0. Source: Esser et al. (2024), Stable Diffusion 3.
    """
    if not shift > 0:
        raise ValueError(f"shifted: expected shift > 0, got {shift}")

    def grid(schedule: Schedule, steps: int, start: float, end: float) -> Array:
        first, last = (t / (shift - (shift - 1) * t) for t in (start, end))
        t = np.linspace(first, last, steps + 1)
        return shift * t / (1 + (shift - 1) * t)

    return grid


GRIDS: Mapping[str, Callable[[Schedule, int, float, float], Array]] = MappingProxyType(
    {
        "uniform": _uniform,
        "linspace": _uniform,
        "quadratic": _quadratic,
        "log-snr": _log_snr,
        "exponential": _log_snr,
        "middle": middle(),
        "karras": karras(),
        "beta": _beta,
        "trailing": _trailing,
        "leading": _leading,
    }
)
"""uniform in t (linspace: the same); quadratic: in sqrt(t); log-snr (exponential: the same, geometric in sigma /
alpha); middle: dense in its middle, for dpm-v3 and unipc-asinh-2; karras: rho = 7; beta: quantiles of Beta(0.6, 0.6)
in t; trailing and leading: diffusers' spacings, without their rounding to integers (leading starts BELOW t_start, at
N / (N + 1) of it: the state there is noisier than the network is told)."""


_NOTHING = 1e-4
"""An alpha below which a time is no time of a schedule of variances."""
_NO_NOISE = (
    "grid: sigma must be > 0 at every time, and alpha after the first: end at t_end > 0 and ask for denoise_last=True"
)


def _tensor(x: Array) -> Any:
    return torch.as_tensor(x, dtype=torch.float64)


def check_ends(schedule: Schedule, start: float, end: float) -> None:
    """Raise ValueError for times that no schedule, or not this one, has."""
    if not 0 <= end < start < float("inf"):
        raise ValueError(f"t_start, t_end: expected 0 <= t_end < t_start, got {start:g} and {end:g}")
    if start > 1.5 * schedule.t_max and float(schedule.alpha(start)) < _NOTHING:
        raise ValueError(f"t_start: {start:g} is far beyond the schedule, which ends at t_max = {schedule.t_max:g}")


def times_of(grid: Grid, schedule: Schedule, steps: int, start: float, end: float) -> Array:
    """The times [steps + 1] of a grid, with its ends exact; lambda rises strictly along them.

    Raises ValueError for an unknown name, for times that repeat or go back, and where sigma is 0 at an end.
    """
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    named = isinstance(grid, str) or callable(grid)
    if named:
        check_ends(schedule, start, end)
    if named and not float(schedule.sigma(end)) > 0:
        raise ValueError(_NO_NOISE)
    if callable(grid):
        t = np.asarray(grid(schedule, steps, start, end), dtype=np.float64)
    elif isinstance(grid, str):
        t = np.array(GRIDS[choose("grid", grid, GRIDS)](schedule, steps, start, end))
        t[-1] = end
        t[0] = t[0] if grid == "leading" else start
    else:
        t = _array(_tensor(np.asarray(grid, dtype=np.float64)))
    if t.ndim != 1 or t.shape[0] < 2:
        raise ValueError("grid: expected at least two times in one dimension")
    if t[0] > t[-1]:
        check_ends(schedule, float(t[0]), float(t[-1]))
    snr = _array(schedule.half_log_snr(_tensor(t)))
    if not np.isfinite(snr[1:]).all() or np.isnan(snr[0]) or snr[0] == np.inf:
        raise ValueError(_NO_NOISE)
    if not (np.diff(snr) > 0).all():
        raise ValueError("grid: the log-SNR must rise strictly from t_start to t_end; times repeat or go back")
    return t
