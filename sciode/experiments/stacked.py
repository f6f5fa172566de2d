"""Layers of several models that are trained together: weights stacked along a first axis, one solve for all models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from sciode.training import isolated_rng

__all__ = ["StackedLinear"]


@final
class StackedLinear(nn.Module):
    """x [models, ..., in] -> x W_m^T + b_m [models, ..., out]: a linear layer for each seed, drawn as torch draws one.

    An elementwise optimiser (Adam) trains every model as if it were alone, for a loss that is a sum over models.
    """

    def __init__(self, inputs: int, outputs: int, seeds: Sequence[int]) -> None:
        super().__init__()
        layers = []
        for seed in seeds:
            with isolated_rng(seed):
                layers.append(nn.Linear(inputs, outputs))
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach()[None] for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        """All models' outputs."""
        return torch.matmul(x, self.weight) + self.bias
