"""Many functions of one shape minimised at once: theta [arms, P], each arm as if it were alone.

A minimiser is two pure functions: what it remembers at first, and what it remembers after an iteration. Memories are
tensors, so that a checkpoint holds them and a run goes on to the same numbers. An arm whose loss or gradient ceases to
be finite stops with the weights before that; others are not touched by it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, final

import torch
from torch import Tensor

from sciode.solvers.suggest import choose

__all__ = ["CONVERGED", "GOING", "NONFINITE", "STUCK", "Adam", "Minimiser", "Objective"]

GOING, CONVERGED, STUCK, NONFINITE = 0, 1, 2, 3
"""What an arm does: memory["state"], int64 [arms]."""

Memory = dict[str, Tensor]


class Objective(Protocol):
    """What is minimised."""

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses [arms] and their gradients [arms, P] at theta [arms, P]."""
        ...

    def curvature(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        """Return v -> H v for the Hessian of each arm at theta, [arms, P] -> [arms, P]."""
        ...


class Minimiser(ABC):
    """How to minimise. iterations: at most. still: whether the function must stay the same from one to the next.

    whole: whether every iteration but the first and the last is one evaluation and the same operations on the memory,
    so that it can be recorded.
    """

    iterations: int
    still: bool = False
    whole: bool = False

    def begin(self, theta: Tensor) -> Memory:
        """Return what is remembered before the first iteration: theta, the last good one, losses, arms' states."""
        unknown = theta.new_full((len(theta),), math.inf)
        state = torch.zeros(len(theta), dtype=torch.int64, device=theta.device)
        return {"theta": theta.clone(), "good": theta.clone(), "loss": unknown, "state": state}

    @abstractmethod
    def step(self, memory: Mapping[str, Tensor], objective: Objective, k: int) -> Memory:
        """Return what is remembered after iteration k; loss is that before it."""


def stopped(memory: Memory, loss: Tensor, gradient: Tensor) -> Memory:
    """Return the memory with arms stopped whose loss or gradient is not finite, at the weights before."""
    fine = loss.isfinite() & gradient.isfinite().all(1)
    going = memory["state"] == GOING
    broke = going & ~fine
    theta = torch.where(broke[:, None], memory["good"], memory["theta"])
    state = torch.where(broke, NONFINITE, memory["state"])
    good = torch.where((going & fine)[:, None], memory["theta"], memory["good"])
    shown = torch.where(going & fine, loss, memory["loss"])
    return {**memory, "theta": theta, "good": good, "loss": shown, "state": state}


@final
@dataclass(frozen=True)
class Adam(Minimiser):
    """Adam on every arm: steps lr m / (sqrt(v) + 1e-8) with bias-corrected means m, v of the gradient and its square.

    schedule: "constant", or "cosine", which takes lr to 0 over the iterations. Raises ValueError for bad numbers.
    Source: Kingma & Ba (ICLR 2015).
    """

    iterations: int = 2000
    lr: float = 1e-3
    schedule: str = "constant"
    betas: tuple[float, float] = (0.9, 0.999)
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        # A list has no hash, by which recorded iterations are kept.
        object.__setattr__(self, "betas", tuple(self.betas))
        choose("schedule", self.schedule, ("constant", "cosine"))
        if self.iterations < 1 or not 0 < self.lr < math.inf or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"iterations must be >= 1, lr positive and betas in [0, 1), got {self}")

    def begin(self, theta: Tensor) -> Memory:
        """See `Minimiser.begin`."""
        done = torch.zeros((), dtype=torch.float64, device=theta.device)
        return {
            **super().begin(theta),
            "mean": torch.zeros_like(theta),
            "square": torch.zeros_like(theta),
            "done": done,
        }

    def step(self, memory: Mapping[str, Tensor], objective: Objective, k: int) -> Memory:
        """See `Minimiser.step`."""
        loss, gradient = objective(memory["theta"])
        now = stopped(dict(memory), loss, gradient)
        going = (now["state"] == GOING)[:, None]
        gradient = torch.where(going, gradient, 0.0)
        mean = self.betas[0] * now["mean"] + (1 - self.betas[0]) * gradient
        square = self.betas[1] * now["square"] + (1 - self.betas[1]) * gradient**2
        past, done = now["done"], now["done"] + 1
        lr = self.lr * (0.5 * (1 + torch.cos(math.pi * past / self.iterations)) if self.schedule == "cosine" else 1.0)
        root = (square / (1 - self.betas[1] ** done)).sqrt() + 1e-8
        moved = now["theta"] - lr * (mean / (1 - self.betas[0] ** done)) / root
        theta = torch.where(going, moved, now["theta"])
        return {**now, "theta": theta, "mean": mean, "square": square, "done": done}
