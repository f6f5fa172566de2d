"""Orders of convergence, measured: slopes of log error against log step under refinement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from sciode.solvers import solve

from .problems import HOPF, ODEProblem

__all__ = ["convergence_order", "dense_order", "observed_order"]

_FLOOR = 2e-14
"""Below this rounding, not the method, makes the error of float64 states of size 1."""
_REFINEMENTS = (4, 8, 16, 32, 64, 128)
_FINEST = 2
"""How many of the finest slopes are looked at: coarse ones may flatter a method."""


def observed_order(steps: Sequence[int], errors: Sequence[float], floor: float = _FLOOR) -> float:
    """The better of the two finest slopes of log(error) against log(1 / steps), over errors above `floor`.

    steps: numbers of steps, increasing; errors: one each. Raises ValueError if fewer than two errors lie above the floor.
    """
    kept = [(n, e) for n, e in zip(steps, errors, strict=True) if e > floor]
    if len(kept) < 2:
        raise ValueError(f"errors: fewer than two lie above {floor:g}; take larger steps or a longer interval")
    slopes = [math.log(e / f) / math.log(m / n) for (n, e), (m, f) in zip(kept[:-1], kept[1:], strict=True)]
    return max(slopes[-_FINEST:])


def convergence_order(method: Any, problem: ODEProblem = HOPF, steps: Sequence[int] = _REFINEMENTS) -> float:
    """The global order p in |y(t1) - y_n| = O((1/n)^p) of `method` with n fixed steps on a problem with exact solution.

    method: a name, `Tableau` or `Stepper`; steps: the values of n. The error is the root mean square over samples and
    components. Good values: the default problem, which sees every order condition. Source: Hairer, Norsett, Wanner:
    Solving Ordinary Differential Equations I (1993), section II.3.
    """
    exact = problem.at(problem.t1)
    errors = []
    for n in steps:
        ts, dt = [problem.t0, problem.t1], (problem.t1 - problem.t0) / n
        end = solve(problem.field, problem.y0, ts, method=method, dt=dt, batch_dims=1, adjoint="direct").ys[-1]
        errors.append(_rms(end - exact))
    return observed_order(steps, errors)


def dense_order(method: Any, problem: ODEProblem = HOPF, steps: Sequence[int] = _REFINEMENTS) -> float:
    """The order q of a method's dense output: within ONE step of length h from exact data the error is O(h^(q+1)).

    The first step of each refinement is looked at in four inner points; the error is the root mean square.
    """
    errors = []
    for n in steps:
        dt = (problem.t1 - problem.t0) / n
        times = problem.t0 + dt * torch.tensor([0.15, 0.4, 0.65, 0.9], dtype=torch.float64)
        ts = [problem.t0, *times.tolist(), problem.t0 + dt]
        ys = solve(problem.field, problem.y0, ts, method=method, dt=dt, batch_dims=1, adjoint="direct").ys[1:-1]
        errors.append(_rms(ys - problem.at(times)))
    return observed_order(steps, errors, floor=_FLOOR / 10) - 1


def _rms(error: torch.Tensor) -> float:
    return float(error.detach().abs().square().mean().sqrt())
