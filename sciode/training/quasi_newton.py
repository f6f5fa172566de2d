"""Steps t along -H g for many functions at once, each arm with an inverse Hessian and a search of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from sciode.training.side_by_side import CONVERGED, GOING, STUCK, Memory, Minimiser, Objective, stopped

__all__ = ["QuasiNewton"]

_ARMIJO, _CURVATURE = 1e-4, 0.9
_LEAST = 1e-12
"""A pair of steps counts if s.y is above this share of |y|^2."""


class QuasiNewton(Minimiser):
    """theta <- theta - t H g, and t by bisection for the weak Wolfe conditions.

    iterations: evaluations. Every arm has a search of its own and begins the next one as soon as its last is over, so
    that none waits for another's. searches: evaluations one may take; then the best length seen is taken. An arm
    without any that lowers its loss forgets what it knows and descends along its gradient; fails that, too, it is
    stuck. tolerance: the largest entry of a gradient that counts as none.
    Source: Nocedal & Wright (2006), chapter 6; Lewis & Overton, Math. Program. 141 (2013), algorithm 4.6.
    """

    tolerance: float
    searches: int
    whole: ClassVar[bool] = True

    @abstractmethod
    def turned(self, memory: Mapping[str, Tensor], gradient: Tensor) -> Tensor:
        """Return H g [arms, P]."""

    @abstractmethod
    def fresh(self, memory: Mapping[str, Tensor]) -> Tensor:
        """Return which arms know nothing yet, bool [arms]."""

    @abstractmethod
    def learnt(self, memory: Memory, step: Tensor, change: Tensor, kept: Tensor, failed: Tensor) -> Memory:
        """Return what a step and the gradient's change teach arms that keep them; those that failed know nothing more.

        memory: with the "gradient", "direction" and "plain" (along the gradient itself) that the step was made with.
        """

    def step(self, memory: Mapping[str, Tensor], objective: Objective, k: int) -> Memory:
        """See `Minimiser.step`; the first evaluation is that of the start."""
        now = dict(memory)
        if k == 0:
            loss, now["gradient"] = objective(now["theta"])
            now = stopped(now, loss, now["gradient"])
            return self._turned_to(now, torch.ones_like(loss, dtype=torch.bool))
        going = now["state"] == GOING
        now, enough = self._looked(now, objective, going)
        found = now["best"].isfinite()
        over = going & (enough | (now["tries"] >= self.searches))
        if k == self.iterations - 1:
            over = over | (going & found)
        return self._turned_to(self._moved(now, over & found, over & ~found), over)

    def _looked(self, now: Memory, objective: Objective, going: Tensor) -> tuple[Memory, Tensor]:
        """One evaluation of each arm's search; which of them have a length that does."""
        length, direction, slope = now["length"], now["direction"], now["slope"]
        at = torch.where(going[:, None], now["theta"] + length[:, None] * direction, now["theta"])
        value, gradient = objective(at)
        fine = going & value.isfinite() & gradient.isfinite().all(1)
        lower = fine & (value <= now["loss"] + _ARMIJO * length * slope) & (value < now["loss"])
        flat = (gradient * direction).sum(1) >= _CURVATURE * slope
        better = lower & (value <= now["best"])
        high = torch.where(lower, now["high"], length)
        low = torch.where(lower & ~flat, length, now["low"])
        return {
            **now,
            "best": torch.where(better, value, now["best"]),
            "best theta": torch.where(better[:, None], at, now["best theta"]),
            "best gradient": torch.where(better[:, None], gradient, now["best gradient"]),
            "low": low,
            "high": high,
            "length": torch.where(high.isfinite(), (low + high) / 2, 2 * low),
            "tries": now["tries"] + 1,
        }, lower & flat

    def _turned_to(self, now: Memory, over: Tensor) -> Memory:
        """New directions for arms whose search is over, and what a search begins with."""
        gradient = now["gradient"]
        small = gradient.abs().amax(1) <= self.tolerance
        now["state"] = torch.where((now["state"] == GOING) & small, CONVERGED, now["state"])
        direction = -self.turned(now, gradient)
        slope = (direction * gradient).sum(1)
        # Where rounding has spoilt the history, the gradient itself leads down.
        plain = self.fresh(now) | ~(slope < 0)
        direction = torch.where(plain[:, None], -gradient, direction)
        length = torch.where(plain, 1 / gradient.abs().sum(1).clamp(min=1.0), 1.0)
        unknown = torch.full_like(slope, torch.inf)
        begun = {
            "direction": direction, "slope": (direction * gradient).sum(1), "plain": plain, "length": length,
            "low": torch.zeros_like(slope), "high": unknown, "tries": torch.zeros_like(now["state"]),
            "best": unknown, "best theta": now["theta"], "best gradient": gradient,
        }  # fmt: skip
        for name, new in begun.items():
            old = now.get(name, new)
            now[name] = torch.where(over.view(-1, *[1] * (new.ndim - 1)), new, old)
        return now

    def _moved(self, now: Memory, moved: Tensor, failed: Tensor) -> Memory:
        """Arms at the best place of their search; those without one forget, and are stuck if they knew nothing."""
        step, change = now["best theta"] - now["theta"], now["best gradient"] - now["gradient"]
        product = (step * change).sum(1)
        kept = moved & (product > _LEAST * change.square().sum(1))
        now.update(self.learnt(now, step, change, kept, failed))
        theta = torch.where(moved[:, None], now["best theta"], now["theta"])
        return {
            **now,
            "state": torch.where(failed & now["plain"], STUCK, now["state"]),
            "theta": theta,
            "good": theta,
            "loss": torch.where(moved, now["best"], now["loss"]),
            "gradient": torch.where(moved[:, None], now["best gradient"], now["gradient"]),
        }
