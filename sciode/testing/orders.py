"""Orders of convergence, measured: slopes of log error against log step under refinement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sciode.solvers import Solution, solve

from .problems import HOPF, ODEProblem

__all__ = ["convergence_order", "dense_order", "observed_order"]

_FLOOR = 2e-14
"""Below this rounding, not the method, makes the error of float64 states of size 1."""
_REFINEMENTS = (4, 6, 8, 12, 16, 24, 32, 64, 128)
_FINEST = 2
"""How many of the finest slopes are looked at: coarse ones may flatter a method."""


def observed_order(steps: Sequence[int], errors: Sequence[float], floor: float = _FLOOR) -> float:
    """The better of the two finest slopes of log(error) against log(1 / steps), over errors above `floor`.

    steps: numbers of steps, increasing; errors: one each. Raises ValueError if fewer than two errors are finite and lie
    above the floor.
    """
    kept = [(n, e) for n, e in zip(steps, errors, strict=True) if floor < e < math.inf]
    if len(kept) < 2:
        raise ValueError(f"errors: fewer than two lie above {floor:g}; take larger steps or a longer interval")
    slopes = [math.log(e / f) / math.log(m / n) for (n, e), (m, f) in pairwise(kept)]
    return max(slopes[-_FINEST:])


def convergence_order(method: Any, problem: ODEProblem = HOPF, steps: Sequence[int] = _REFINEMENTS) -> float:
    """The global order p in |y(t1) - y_n| = O((1/n)^p) of `method` with n fixed steps on a problem with exact solution.

    method: a name, `Tableau` or `Stepper`; steps: the values of n. The error is the root mean square over samples and
    components. Good values: the default problem, which sees every order condition. Source: Hairer, Norsett, Wanner:
    Solving Ordinary Differential Equations I (1993), section II.3.
    """
    ts, exact = [problem.t0, problem.t1], problem.at([problem.t1])
    errors = []
    for n in steps:
        dt = (problem.t1 - problem.t0) / n
        errors.append(_error(_solve(problem, method, ts, dt, problem.y0), exact))
    return observed_order(steps, errors)


def dense_order(method: Any, problem: ODEProblem = HOPF, steps: Sequence[int] = _REFINEMENTS) -> float:
    """The order q of a method's dense output: within ONE step of length h from exact data the error is O(h^(q+1)).

    The error is the root mean square over four inner points. Steps begin at the start and at 0.7 of the interval, and
    the better slope counts: from one start the first two terms of the error may cancel until rounding hides both.
    """
    span = problem.t1 - problem.t0
    return max(_dense_order(method, problem, problem.t0 + shift * span, steps) for shift in (0.0, 0.7))


def _dense_order(method: Any, problem: ODEProblem, t0: float, steps: Sequence[int]) -> float:
    errors = []
    for n in steps:
        dt = (problem.t1 - problem.t0) / n
        inner = [t0 + theta * dt for theta in (0.15, 0.4, 0.65, 0.9)]
        solution = _solve(problem, method, [t0, *inner, t0 + dt], dt, problem.at(t0))
        errors.append(_error(solution, problem.at(inner)))
    return observed_order(steps, errors, floor=_FLOOR / 5) - 1


def _solve(problem: ODEProblem, method: Any, ts: list[float], dt: float, y0: Tensor) -> Solution:
    with torch.no_grad():
        return solve(problem.field, y0, ts, method=method, dt=dt, batch_dims=1, throw=False)


def _error(solution: Solution, exact: Tensor) -> float:
    """The root mean square at the first times after the start; infinite where a coarse step was unstable."""
    if bool((solution.status != 0).any()):
        return math.inf
    return float((solution.ys[1 : 1 + exact.shape[0]] - exact).abs().square().mean().sqrt())
