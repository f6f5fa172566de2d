"""Laws of the time that a training step looks at, as maps of uniform numbers, so that strata stay strata."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sciode.diffusion.schedules.base import Schedule

__all__ = ["TimeLaw", "log_normal", "stratified", "u_shaped", "uniform"]

TimeLaw = Callable[[Tensor], Tensor]
"""Uniform numbers [B] in (0, 1) -> times [B], float64: the inverse of the law's distribution function."""


def stratified(count: int, generator: torch.Generator) -> Tensor:
    """Uniform numbers [count], one in each of `count` equal cells in random order: less noise in a loss over times."""
    device = generator.device
    cells = torch.randperm(count, generator=generator, device=device)
    inside = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
    return (cells + inside) / count


def uniform(low: float, high: float) -> TimeLaw:
    """Times uniform in [low, high], 0 <= low < high <= t_max. Raises ValueError for an empty interval."""
    if not low < high:
        raise ValueError(f"uniform: expected low < high, got {low} and {high}")
    return lambda u: low + (high - low) * u.double()


def log_normal(schedule: Schedule, mean: float = -1.2, deviation: float = 1.2, t_end: float = 1e-3) -> TimeLaw:
    """log(sigma / alpha) normal, cut off at the ends of the schedule: t_end and t_max.

    mean, deviation: -1.2 and 1.2 in EDM, for data of deviation 0.5. Raises ValueError for deviation <= 0. Source:
    Karras et al. (2022).
    """
    if not deviation > 0:
        raise ValueError(f"log_normal: expected deviation > 0, got {deviation}")
    low, high = (-float(schedule.half_log_snr(t)) for t in (t_end, schedule.t_max))
    ends = [0.5 * (1 + math.erf((v - mean) / deviation / math.sqrt(2))) for v in (low, high)]

    def times(u: Tensor) -> Tensor:
        inside = ends[0] + (ends[1] - ends[0]) * u.double()
        logs = (mean + deviation * torch.special.ndtri(inside)).clamp(low, high)
        return schedule.t_of(-logs)

    return times


def u_shaped(steepness: float = 4.0, edge: float = 1e-5) -> TimeLaw:
    """Density proportional to cosh(a (t - 1/2)) on [edge, 1 - edge]: both ends of a flow are hard, its middle is not.

    steepness: a. It is the mixture, half and half, of exponentials rising and falling with rate a. Source: Lee et al.
    (2024), improving the training of rectified flows, with a = 4. Raises ValueError for steepness <= 0.
    """
    if not steepness > 0:
        raise ValueError(f"steepness: expected > 0, got {steepness}")

    def times(u: Tensor) -> Tensor:
        t = 0.5 + torch.asinh((2 * u.double() - 1) * math.sinh(steepness / 2)) / steepness
        return t.clamp(edge, 1 - edge)

    return times
