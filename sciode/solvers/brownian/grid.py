"""Brownian increments that the caller has drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["GridNoise"]


@dataclass(frozen=True, eq=False)
class GridNoise:
    """Given increments [steps, B, channels], one row a step: step n uses row n, in either direction of time.

    For common random numbers across libraries and for oracles: the row is W(t_n + dt) - W(t_n) as the solver walks.
    """

    increments: Tensor

    @property
    def channels(self) -> int:
        """Brownian motions a sample."""
        return self.increments.shape[-1]

    @property
    def width(self) -> int:
        """Normals a step."""
        return self.increments[0].numel()

    @property
    def steps(self) -> int:
        """How many steps it serves."""
        return self.increments.shape[0]

    def block(self, first: int | Tensor, count: int) -> Tensor:
        """Increments of steps first, ..., first + count - 1: [count, B, channels]; `first` may be [B]."""
        if isinstance(first, int):
            return self.increments[first : first + count]
        samples = torch.arange(self.increments.shape[1], device=self.increments.device)
        n = (first + torch.arange(count, device=samples.device)[:, None]).clamp(max=self.increments.shape[0] - 1)
        return self.increments[n, samples]
