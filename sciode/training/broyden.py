"""Dense quasi-Newton methods of Broyden's class, scaled by themselves, for many functions at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

import torch
from torch import Tensor

from sciode.solvers.suggest import choose
from sciode.training.quasi_newton import _searched
from sciode.training.side_by_side import CONVERGED, GOING, STUCK, Memory, Minimiser, Objective, stopped

__all__ = ["UPDATES", "Broyden"]

_LEAST = 1e-12
"""A step counts if s.y is above this share of |y|^2; and what b h - 1 >= 0 is taken for at least."""

Factors = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""(b = s.Bs / s.y, h = y.Hy / s.y, number of weights) -> what the old B is multiplied by, and the weight of v v^T."""


def _bfgs(b: Tensor, h: Tensor, n: int) -> tuple[Tensor, Tensor]:
    return torch.ones_like(b), torch.ones_like(b)


def _scaled(b: Tensor, h: Tensor, n: int) -> tuple[Tensor, Tensor]:
    return (1 / b).clamp(max=1.0), torch.ones_like(b)


def _broyden(b: Tensor, h: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """theta between its bounds as near to (1 - b) / b as they let; theta 0 is BFGS, 1 is DFP."""
    a = (h * b - 1).clamp(min=_LEAST)
    lowest = (h * (1 - (a / (1 + a)).sqrt())).clamp(max=1.0)
    theta = torch.maximum((lowest - 1) / a, torch.minimum(1 / lowest, (1 - b) / b))
    sigma = 1 + theta * a
    scale, spread = (1 / b).clamp(max=1.0), sigma ** (-1 / max(n - 1, 1))
    positive = torch.where(theta > 0, theta, 1.0)
    shrunk = torch.where(theta > 0, scale * torch.minimum(spread, 1 / positive), torch.minimum(scale * spread, sigma))
    return shrunk, (1 - theta) / sigma


UPDATES: Mapping[str, Factors] = MappingProxyType({"bfgs": _bfgs, "ssbfgs": _scaled, "ssbroyden": _broyden})
"""By name: plain BFGS; Al-Baali's self-scaled BFGS; Al-Baali and Khalfan's self-scaled member of Broyden's class."""


@final
@dataclass(frozen=True)
class Broyden(Minimiser):
    """theta <- theta - t H g, H the whole inverse Hessian [P, P] of each arm, and t as in `LBFGS`.

    H <- (H - Hy y^T H / y.Hy + phi v v^T) / tau + s s^T / s.y,  v = sqrt(y.Hy) (s / s.y - Hy / y.Hy)

    with the step s and the gradient's change y; update: one of `UPDATES` says tau and phi. It remembers 8 arms P^2
    bytes in float64, and an iteration costs O(P^2): for up to some 3,000 weights, and few arms of that size.

    Good values: "ssbroyden" after Adam, in float64: in float32 gradients are too coarse for it. Measured: relative
    errors after 500 steps of Adam and 20 s of one core, 501 weights, three seeds: advection (speed 10) 1e-6 to 3e-5,
    "ssbfgs" 5e-6 to 9e-5, "bfgs" 4e-4 to 6e-4, `LBFGS` 3e-4 to 5e-4; Burgers (viscosity 0.01) 1.6e-3 to 1.8e-3,
    `LBFGS` 7e-3 to 5e-2. `LevenbergMarquardt`, on points drawn anew, was better still: 3e-7 to 8e-7, 2e-4 to 5e-4.
    tolerance, searches: as in `LBFGS`. Raises ValueError for bad numbers or an unknown update.
    Source: Al-Baali & Khalfan, J. Comput. Appl. Math. 175 (2005); Urban, Stefanou, Pons, J. Comput. Phys. 523 (2025),
    for physics-informed networks; so Kiyani et al., Comput. Methods Appl. Mech. Eng. 446 (2025).
    """

    iterations: int = 1000
    update: str = "ssbroyden"
    tolerance: float = 1e-10
    searches: int = 20
    still: bool = True

    def __post_init__(self) -> None:
        choose("update", self.update, UPDATES)
        if min(self.iterations, self.searches) < 1 or not self.tolerance >= 0:
            raise ValueError(f"iterations and searches must be >= 1 and tolerance >= 0, got {self}")

    def begin(self, theta: Tensor) -> Memory:
        """See `Minimiser.begin`; a `fresh` H is the identity and takes its size from the first step."""
        size = theta.shape[1]
        inverse = torch.eye(size, dtype=theta.dtype, device=theta.device).expand(len(theta), -1, -1).clone()
        fresh = torch.ones(len(theta), dtype=torch.bool, device=theta.device)
        gradient = torch.full_like(theta, torch.nan)
        return {**super().begin(theta), "inverse": inverse, "fresh": fresh, "gradient": gradient}

    def step(self, memory: Mapping[str, Tensor], objective: Objective, k: int) -> Memory:
        """See `Minimiser.step`."""
        now = dict(memory)
        if k == 0:
            loss, now["gradient"] = objective(now["theta"])
            now = stopped(now, loss, now["gradient"])
        gradient = torch.where((now["state"] == GOING)[:, None], now["gradient"], 0.0)
        small = gradient.abs().amax(1) <= self.tolerance
        now["state"] = torch.where((now["state"] == GOING) & small, CONVERGED, now["state"])
        going = now["state"] == GOING
        if not bool(going.any()):
            return now
        direction = -_times(now["inverse"], gradient)
        # Where rounding has spoilt H, the gradient itself leads down.
        fresh = now["fresh"] | ~((direction * gradient).sum(1) < 0)
        direction = torch.where(fresh[:, None], -gradient, direction)
        slope = (direction * gradient).sum(1)
        length = torch.where(fresh, 1 / gradient.abs().sum(1).clamp(min=1.0), torch.ones_like(slope))
        found = _searched(objective, now["theta"], now["loss"], direction, slope, length, going, self.searches)
        step = torch.where(found.moved[:, None], found.theta - now["theta"], 0.0)
        change = torch.where(found.moved[:, None], found.gradient - gradient, 0.0)
        failed = going & ~found.moved
        now["state"] = torch.where(failed & fresh, STUCK, now["state"])
        kept = found.moved & ((step * change).sum(1) > _LEAST * change.square().sum(1))
        now["inverse"] = self._updated(now["inverse"], gradient, direction, step, change, fresh, kept)
        theta = torch.where(found.moved[:, None], found.theta, now["theta"])
        return {
            **now,
            "theta": theta,
            "good": theta,
            "fresh": (fresh & ~kept) | failed,
            "loss": torch.where(found.moved, found.loss, now["loss"]),
            "gradient": torch.where(found.moved[:, None], found.gradient, now["gradient"]),
        }

    def _updated(
        self, inverse: Tensor, gradient: Tensor, direction: Tensor, s: Tensor, y: Tensor, fresh: Tensor, kept: Tensor
    ) -> Tensor:
        """H after a step [arms, P, P], of arms whose step counts."""
        sy = torch.where(kept, (s * y).sum(1), 1.0)
        size = torch.where(kept & fresh, sy / torch.where(kept, y.square().sum(1), 1.0), 1.0)
        eye = torch.eye(s.shape[1], dtype=s.dtype, device=s.device)
        inverse = torch.where((kept & fresh)[:, None, None], size[:, None, None] * eye, inverse)
        hy = _times(inverse, y)
        yhy = torch.where(kept, (y * hy).sum(1), 1.0)
        # B s: of a step t along -H g it is -t g; of the first one, H being a number then, s over that.
        t = (s * direction).sum(1) / direction.square().sum(1).clamp(min=torch.finfo(s.dtype).tiny)
        sbs = torch.where(fresh, s.square().sum(1) / size, -t * (s * gradient).sum(1))
        b = torch.where(kept, sbs / sy, 1.0)
        tau, phi = UPDATES[self.update](b, torch.where(kept, yhy / sy, 1.0), s.shape[1])
        v = yhy.clamp(min=0).sqrt()[:, None] * (s / sy[:, None] - hy / yhy[:, None])
        new = inverse - _outer(hy) / yhy[:, None, None] + phi[:, None, None] * _outer(v)
        new = new / tau[:, None, None] + _outer(s) / sy[:, None, None]
        whole = kept & new.isfinite().flatten(1).all(1)
        return torch.where(whole[:, None, None], new, inverse)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1))[..., 0]


def _outer(vector: Tensor) -> Tensor:
    return vector.unsqueeze(-1) * vector.unsqueeze(-2)
