"""Layers of several models that are trained together: weights stacked along a first axis, one solve for all models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from sciode.training import isolated_rng

__all__ = ["StackedGRUCell", "StackedLinear"]


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


@final
class StackedGRUCell(nn.Module):
    """(x [models, batch, in], h [models, batch, size]) -> h [models, batch, size]: torch's GRU cell for each seed.

    r, z = sigmoid(W_rz x + U_rz h), n = tanh(W_n x + r U_n h), h <- (1 - z) n + z h, with biases.
    """

    def __init__(self, inputs: int, size: int, seeds: Sequence[int]) -> None:
        super().__init__()
        cells = []
        for seed in seeds:
            with isolated_rng(seed):
                cells.append(nn.GRUCell(inputs, size))
        self.of_input = nn.Parameter(torch.stack([cell.weight_ih.detach().T for cell in cells]))
        self.of_state = nn.Parameter(torch.stack([cell.weight_hh.detach().T for cell in cells]))
        self.input_bias = nn.Parameter(torch.stack([cell.bias_ih.detach()[None] for cell in cells]))
        self.state_bias = nn.Parameter(torch.stack([cell.bias_hh.detach()[None] for cell in cells]))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """All models' next states."""
        of_input = (torch.matmul(x, self.of_input) + self.input_bias).chunk(3, -1)
        of_state = (torch.matmul(h, self.of_state) + self.state_bias).chunk(3, -1)
        reset, keep = (torch.sigmoid(a + b) for a, b in zip(of_input[:2], of_state[:2], strict=True))
        new = torch.tanh(of_input[2] + reset * of_state[2])
        return new + keep * (h - new)
