"""Increments of a stretch of steps, drawn before a loop that cannot draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["BlockNoise", "block_size"]


@dataclass(frozen=True, eq=False)
class BlockNoise:
    """increments [count, B, channels] of the steps base, base + 1, ... of another noise; base [] int64."""

    increments: Tensor
    base: Tensor

    @staticmethod
    def of(noise: Any, first: int, count: int) -> BlockNoise:
        """The steps first, ..., first + count - 1 of a noise."""
        increments = noise.block(first, count)
        if increments.shape[0] < count:
            # Of one size, so that one graph serves all; nobody takes these steps.
            increments = torch.cat(
                (increments, increments.new_zeros(count - increments.shape[0], *increments.shape[1:]))
            )
        return BlockNoise(increments, torch.full((), first, dtype=torch.int64, device=increments.device))

    def at(self, n: Tensor) -> Tensor:
        """Increments [B, channels] of step n [L], by index alone; any row serves a sample that has ended."""
        row = (n - self.base).clamp(0, self.increments.shape[0] - 1)
        if row.shape[0] == 1:
            return self.increments.index_select(0, row).squeeze(0)
        return self.increments[row, torch.arange(self.increments.shape[1], device=row.device)]


def block_size(noise: Any) -> int:
    """How many increments a noise holds as a block, 0 if it is none: a number in every graph that takes from it."""
    return noise.increments.shape[0] if isinstance(noise, BlockNoise) else 0
