"""Gradient descent on losses that are drawn afresh: what brings a random network near, and recipes of papers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciode.solvers.suggest import choose
from sciode.training.blocks import Draw, drawn, enough, loss_of
from sciode.training.least_squares import Minimum, Status

__all__ = ["Descent", "descend"]

SCHEDULES = ("cosine", "plateau")


@dataclass(frozen=True)
class Descent:
    """How to descend: Adam at a rate lr that falls as a cosine, or tenfold on a plateau.

    iterations: at most. tolerance: a loss on fresh points that is good enough. schedule: "cosine" falls to 0 over the
    iterations; "plateau" multiplies lr by `factor` when the loss has not fallen for `patience` iterations (torch's
    ReduceLROnPlateau), and stops at `least` or below.

    Good values: `Descent()` as a warm-up for `LevenbergMarquardt`. `INSR` is the recipe of Chen et al. (ICML 2023).
    Raises ValueError for numbers that make no sense.
    """

    iterations: int = 1500
    lr: float = 2e-3
    tolerance: float = 0.0
    schedule: str = "cosine"
    factor: float = 0.1
    patience: int = 500
    least: float = 1.1e-8

    def __post_init__(self) -> None:
        choose("schedule", self.schedule, SCHEDULES)
        if self.iterations < 1 or self.patience < 1 or not (0 < self.lr < math.inf and 0 < self.factor < 1):
            raise ValueError("iterations and patience must be at least 1, lr positive and factor in (0, 1)")
        if not 0 <= self.tolerance < math.inf:
            raise ValueError(f"tolerance must be at least 0, got {self.tolerance}")


INSR = Descent(iterations=20_000, lr=1e-4, schedule="plateau")


def descend(draw: Draw, theta: Tensor, how: Descent | None = None) -> Minimum:
    """Move theta [P] down the loss of `draw(k)`, the blocks of iteration k, as `sciode.training.minimise` does.

    A loss is that of points which theta has not been moved by; the weights returned are the last ones, or the ones
    before the loss ceased to be finite.
    """
    how = how or Descent()
    weights = theta.detach().clone().requires_grad_()
    adam = torch.optim.Adam([weights], how.lr)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, how.iterations)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(adam, factor=how.factor, patience=how.patience)
    losses: list[float] = []
    falls = how.schedule == "plateau"
    before, status = weights.detach().clone(), "budget"
    for k in range(how.iterations + 1):
        blocks = drawn(draw, k, weights.detach())
        with torch.enable_grad():
            loss = loss_of(blocks, weights)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            return Minimum(before, losses[-2] if k else math.inf, losses, "non-finite")
        if enough(blocks, losses[-1], how.tolerance):
            status = "converged"
        if status == "converged" or k == how.iterations or (falls and adam.param_groups[0]["lr"] <= how.least):
            break
        before = weights.detach().clone()
        adam.zero_grad()
        loss.backward()
        adam.step()
        if falls:
            plateau.step(losses[-1])
        else:
            cosine.step()
    ended: Status = "converged" if status == "converged" else "budget"
    return Minimum(weights.detach(), losses[-1], losses, ended, _fall(losses))


def _fall(losses: Sequence[float]) -> float:
    """The share by which the mean loss of the last tenth is below that of the tenth before; 0 where it is above."""
    tenth = len(losses) // 10
    if tenth < 1:
        return math.inf
    last, before = (sum(part) / tenth for part in (losses[-tenth:], losses[-2 * tenth : -tenth]))
    return max(before - last, 0.0) / max(abs(before), 1e-300)
