"""The running average of a network's weights."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

__all__ = ["Average", "power_of"]


class Average:
    """A copy of a network whose weights are an average of those that the network has had; `network` is that copy.

    width: the average weighs step n of N like (n / N)^power, the power such that the standard deviation of that law is
    `width` N: the same share of the training whenever it is stopped (0.05 to 0.15 are good). decay: instead, the usual
    exponential average, which keeps this much a step (0.95 to 0.9999). Buffers are copied as they are.

    Raises ValueError for values without sense. Source: Karras et al. (2024), EDM2, for the power.
    """

    def __init__(self, network: nn.Module, *, width: float = 0.1, decay: float | None = None) -> None:
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(f"decay: expected 0 <= decay < 1, got {decay}")
        self.power, self.decay = power_of(width), decay
        self.network = copy.deepcopy(network).requires_grad_(False)

    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after step number `step`, counted from 1."""
        keep = (1 - 1 / step) ** (self.power + 1) if self.decay is None else self.decay
        with torch.no_grad():
            own, new = list(self.network.parameters()), list(network.parameters())
            # One launch for all weights.
            torch._foreach_lerp_(own, new, 1 - keep)  # type: ignore[attr-defined]
            for kept, fresh in zip(self.network.buffers(), network.buffers(), strict=True):
                kept.copy_(fresh)


def power_of(width: float) -> float:
    """The power p of the density (p + 1) u^p on [0, 1] whose standard deviation is `width`, of at most 0.28."""
    if not 0 < width <= 0.28:
        raise ValueError(f"width: expected 0 < width <= 0.28, the share of the training that is averaged, got {width}")
    # Its variance is (p + 1) / ((p + 2)^2 (p + 3)); the largest of three roots falls with the width.
    square = width**2
    return float(np.roots([square, 7 * square, 16 * square - 1, 12 * square - 1]).real.max())
