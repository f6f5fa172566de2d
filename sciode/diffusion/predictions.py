"""What a network predicts: eps, x0, v, score or flow, each a linear map of the state and the output to x0 and eps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from sciode.diffusion.schedules.base import Schedule
from sciode.solvers.suggest import choose

__all__ = ["PREDICTIONS", "Conversion", "Level", "convert", "level_at"]


class Level(NamedTuple):
    """alpha, sigma and their slopes in time at one noise level: numbers, arrays or tensors."""

    alpha: Any
    sigma: Any
    alpha_slope: Any
    sigma_slope: Any


class Conversion(NamedTuple):
    """x0 = x0_x x + x0_m m and eps = eps_x x + eps_m m for the output m of a network at state x."""

    x0_x: Any
    x0_m: Any
    eps_x: Any
    eps_m: Any


def _eps(at: Level) -> Conversion:
    return Conversion(1 / at.alpha, -at.sigma / at.alpha, 0 * at.alpha, 1 + 0 * at.alpha)


def _x0(at: Level) -> Conversion:
    return Conversion(0 * at.sigma, 1 + 0 * at.sigma, 1 / at.sigma, -at.alpha / at.sigma)


def _v(at: Level) -> Conversion:
    square = at.alpha**2 + at.sigma**2
    return Conversion(at.alpha / square, -at.sigma / square, at.sigma / square, at.alpha / square)


def _score(at: Level) -> Conversion:
    return Conversion(1 / at.alpha, at.sigma**2 / at.alpha, 0 * at.alpha, -at.sigma)


def _flow(at: Level) -> Conversion:
    down, up = at.alpha_slope, at.sigma_slope
    det = at.alpha * up - at.sigma * down
    return Conversion(up / det, -at.sigma / det, -down / det, at.alpha / det)


PREDICTIONS: Mapping[str, Callable[[Level], Conversion]] = MappingProxyType(
    {"eps": _eps, "x0": _x0, "v": _v, "score": _score, "flow": _flow}
)
"""eps; x0; v = alpha eps - sigma x0; score = -eps / sigma; flow = alpha' x0 + sigma' eps. A new one is one entry."""


def level_at(schedule: Schedule, t: Tensor | float) -> Level:
    """The schedule's alpha, sigma and slopes at times t of any shape, float64."""
    return Level(schedule.alpha(t), schedule.sigma(t), *schedule.slopes(t))


def convert(output: Tensor, x: Tensor, schedule: Schedule, t: Tensor | float, source: str, target: str) -> Tensor:
    """A prediction of one kind as another at state x [B, ...] and time t (a number or [B]).

    source, target: "eps", "x0", "v", "score" or "flow". Raises ValueError for others.
    """
    choose("target", target, PREDICTIONS)
    level = level_at(schedule, t)
    level = Level(*(part.to(x).reshape(-1, *[1] * (x.ndim - 1)) if part.ndim else part.to(x) for part in level))
    into = PREDICTIONS[choose("source", source, PREDICTIONS)](level)
    x0, eps = into.x0_x * x + into.x0_m * output, into.eps_x * x + into.eps_m * output
    if target == "v":
        return level.alpha * eps - level.sigma * x0
    if target == "flow":
        return level.alpha_slope * x0 + level.sigma_slope * eps
    return {"x0": x0, "eps": eps, "score": -eps / level.sigma}[target]
