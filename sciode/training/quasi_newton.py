"""L-BFGS for many functions at once, each arm with a history and a line search of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from sciode.training.side_by_side import CONVERGED, GOING, STUCK, Memory, Minimiser, Objective, stopped

__all__ = ["LBFGS"]

_ARMIJO, _CURVATURE = 1e-4, 0.9
_LEAST = 1e-12
"""A pair of steps counts if s.y is above this share of |y|^2."""


@final
@dataclass(frozen=True)
class LBFGS(Minimiser):
    """theta <- theta - t B g with B from the last `history` steps, and t by bisection for the weak Wolfe conditions.

    An arm without a step that lowers its loss forgets its history and descends along its gradient; fails that, too, it
    is stuck. tolerance: the largest entry of a gradient that counts as none. searches: evaluations a line search may
    take. Good values: the defaults; after Adam. Raises ValueError for bad numbers.
    Source: Nocedal & Wright (2006), section 7.2; Lewis & Overton, Math. Program. 141 (2013), algorithm 4.6.
    """

    iterations: int = 1000
    history: int = 50
    tolerance: float = 1e-10
    searches: int = 20
    still: bool = True

    def __post_init__(self) -> None:
        if min(self.iterations, self.history, self.searches) < 1 or not self.tolerance >= 0:
            raise ValueError(f"iterations, history and searches must be >= 1 and tolerance >= 0, got {self}")

    def begin(self, theta: Tensor) -> Memory:
        """See `Minimiser.begin`."""
        empty = theta.new_zeros(len(theta), self.history, theta.shape[1])
        pairs = {"steps": empty, "changes": empty.clone(), "inverse": empty[..., 0].clone()}
        return {**super().begin(theta), **pairs, "gradient": torch.full_like(theta, torch.nan)}

    def step(self, memory: Mapping[str, Tensor], objective: Objective, k: int) -> Memory:
        """See `Minimiser.step`."""
        now = dict(memory)
        if k == 0:
            loss, now["gradient"] = objective(now["theta"])
            now = stopped(now, loss, now["gradient"])
        gradient = now["gradient"]
        small = gradient.abs().amax(1) <= self.tolerance
        now["state"] = torch.where((now["state"] == GOING) & small, CONVERGED, now["state"])
        going = now["state"] == GOING
        if not bool(going.any()):
            return now
        fresh = now["inverse"][:, -1] == 0
        direction = -self._turned(now, gradient, min(k, self.history))
        slope = (direction * gradient).sum(1)
        # Where rounding has spoilt the history, the gradient itself leads down.
        fresh = fresh | ~(slope < 0)
        direction = torch.where(fresh[:, None], -gradient, direction)
        slope = (direction * gradient).sum(1)
        length = torch.where(fresh, 1 / gradient.abs().sum(1).clamp(min=1.0), torch.ones_like(slope))
        found = _searched(objective, now["theta"], now["loss"], direction, slope, length, going, self.searches)
        step, change = found.theta - now["theta"], found.gradient - gradient
        product = (step * change).sum(1)
        kept = found.moved & (product > _LEAST * change.square().sum(1))
        failed = going & ~found.moved
        now["state"] = torch.where(failed & fresh, STUCK, now["state"])
        for name, new in (("steps", step), ("changes", change), ("inverse", 1 / product)):
            old = now[name]
            pushed = torch.cat((old[:, 1:], new.unsqueeze(1)), 1)
            shape = (-1,) + (1,) * (old.ndim - 1)
            now[name] = torch.where(kept.view(shape), pushed, torch.where(failed.view(shape), 0.0, old))
        theta = torch.where(found.moved[:, None], found.theta, now["theta"])
        return {
            **now,
            "theta": theta,
            "good": theta,
            "loss": torch.where(found.moved, found.loss, now["loss"]),
            "gradient": torch.where(found.moved[:, None], found.gradient, gradient),
        }

    def _turned(self, memory: Mapping[str, Tensor], gradient: Tensor, filled: int) -> Tensor:
        """B g by two loops over the pairs, the newest last; pairs that are not there weigh nothing."""
        steps, changes, inverse = memory["steps"], memory["changes"], memory["inverse"]
        last = range(self.history - 1, self.history - 1 - filled, -1)
        turned, shares = gradient, {}
        for i in last:
            shares[i] = inverse[:, i] * (steps[:, i] * turned).sum(1)
            turned = turned - shares[i][:, None] * changes[:, i]
        size = changes[:, -1].square().sum(1)
        scale = torch.where(size > 0, 1 / (inverse[:, -1] * size).clamp(min=1e-300), 1.0)
        turned = torch.where((inverse[:, -1] > 0) & (size > 0), scale, 1.0)[:, None] * turned
        for i in reversed(last):
            back = inverse[:, i] * (changes[:, i] * turned).sum(1)
            turned = turned + (shares[i] - back)[:, None] * steps[:, i]
        return turned


class _Found(NamedTuple):
    """Where line searches ended, and which of them lowered their loss."""

    theta: Tensor
    loss: Tensor
    gradient: Tensor
    moved: Tensor


def _searched(
    objective: Objective,
    theta: Tensor,
    loss: Tensor,
    direction: Tensor,
    slope: Tensor,
    length: Tensor,
    going: Tensor,
    tries: int,
) -> _Found:
    """Bisect for a length that lowers the loss enough and flattens its slope enough; else the best one seen."""
    low, high = torch.zeros_like(length), torch.full_like(length, torch.inf)
    best = _Found(theta, loss, torch.zeros_like(theta), torch.zeros_like(going))
    looking = going.clone()
    for _ in range(tries):
        at = theta + torch.where(looking, length, 0.0)[:, None] * direction
        value, gradient = objective(at)
        fine = value.isfinite() & gradient.isfinite().all(1)
        lower = looking & fine & (value <= loss + _ARMIJO * length * slope) & (value < loss)
        flat = (gradient * direction).sum(1) >= _CURVATURE * slope
        better = lower & (value <= best.loss)
        best = _Found(
            torch.where(better[:, None], at, best.theta),
            torch.where(better, value, best.loss),
            torch.where(better[:, None], gradient, best.gradient),
            best.moved | better,
        )
        high = torch.where(looking & ~lower, length, high)
        low = torch.where(lower & ~flat, length, low)
        looking = looking & ~(lower & flat)
        if not bool(looking.any()):
            break
        length = torch.where(looking, torch.where(high.isfinite(), (low + high) / 2, 2 * low), length)
    return best
