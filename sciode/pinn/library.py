"""Optimisers of torch and of kept libraries as a stage: Muon, SOAP, or any other, one matrix of weights at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciode.pinn.representation import Representation

__all__ = ["Library", "muon", "soap"]

Make = Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[torch.optim.Optimizer]]
"""(matrices between hidden layers [in, out], all other weights) -> the optimisers that move them."""


@final
@dataclass(frozen=True)
class Library:
    """A stage of optimisers that look at a weight's shape, and must not see the weights of several networks as one.

    So each matrix of each arm and piece is a tensor of its own, which costs launches: few arms, please. It is not
    resumed half way. name: what a kept run knows it by, rates included. Raises ValueError for no iterations.
    """

    make: Make
    iterations: int = 1000
    name: str = ""

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")


def muon(iterations: int = 1000, lr: float = 1e-3, rest: float = 1e-3) -> Library:
    """Return torch's Muon for the matrices between hidden layers, and Adam at the rate `rest` for all else."""

    def make(matrices: Sequence[Tensor], others: Sequence[Tensor]) -> Sequence[torch.optim.Optimizer]:
        found: list[torch.optim.Optimizer] = [torch.optim.Adam(others, rest)]
        if matrices:
            found.append(torch.optim.Muon(matrices, lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
        return found

    return Library(make, iterations, f"muon, lr={lr}, rest={rest}")


def soap(iterations: int = 1000, lr: float = 3e-3) -> Library:
    """Return SOAP of pytorch-optimizer (the extra "optimizers") for all weights.

    Source: Wang, Bhartari, Li, Perdikaris: Gradient alignment in physics-informed neural networks (NeurIPS 2025).
    """

    def make(matrices: Sequence[Tensor], others: Sequence[Tensor]) -> Sequence[torch.optim.Optimizer]:
        try:
            from pytorch_optimizer import SOAP
        except ImportError as error:
            raise ImportError('SOAP needs pytorch-optimizer: pip install "sciode[optimizers]"') from error
        return [SOAP([*matrices, *others], lr=lr, weight_decay=0.0, precondition_frequency=10)]

    return Library(make, iterations, f"soap, lr={lr}")


@dataclass(frozen=True)
class Apart:
    """theta [arms, P] in parts that are leaves of their own, in order: matrices of hidden layers among them."""

    parts: list[Tensor]
    hidden: list[bool]
    arms: int

    @classmethod
    def of(cls, representation: Representation, theta: Tensor) -> Apart:
        """Take theta apart: a matrix or a bias of each piece, arm after arm; unknowns last."""
        names, pieces = representation.names, representation.decomposition.size
        layers = representation.network.layers(names.axes, names.channels)
        parts, hidden = [], []
        for row in theta.detach():
            place = 0
            for number, (a, b) in enumerate(layers):
                for size, shape, inner in ((a * b, (a, b), 0 < number < len(layers) - 1), (b, (1, b), False)):
                    for _ in range(pieces):
                        parts.append(row[place : place + size].reshape(shape).clone().requires_grad_())
                        hidden.append(inner)
                        place += size
            if place < len(row):
                parts.append(row[place:].clone().reshape(1, -1).requires_grad_())
                hidden.append(False)
        return cls(parts, hidden, len(theta))

    def theta(self) -> Tensor:
        """Put the parts together again, [arms, P]."""
        return torch.cat([part.detach().reshape(-1) for part in self.parts]).reshape(self.arms, -1)

    def give(self, gradient: Tensor) -> None:
        """Hand each part its gradient."""
        place, flat = 0, gradient.reshape(-1)
        for part in self.parts:
            part.grad = flat[place : place + part.numel()].reshape(part.shape).clone()
            place += part.numel()
