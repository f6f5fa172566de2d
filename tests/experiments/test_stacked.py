"""Models trained together are the models trained alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sciode.experiments.stacked import StackedGRUCell, StackedLinear
from sciode.training import isolated_rng


def test_each_model_is_the_layer_that_torch_draws_for_its_seed() -> None:
    stacked = StackedLinear(4, 3, [5, 9])
    x = torch.linspace(-1, 1, 2 * 6 * 4).reshape(2, 6, 4)
    for i, seed in enumerate((5, 9)):
        with isolated_rng(seed):
            alone = nn.Linear(4, 3)
        torch.testing.assert_close(stacked(x)[i], alone(x[i]))


def trained(seeds: list[int]) -> Tensor:
    layer = StackedLinear(4, 3, seeds)
    optimizer = torch.optim.Adam(layer.parameters(), 0.1)
    x = torch.linspace(-1, 1, 24).reshape(1, 6, 4)
    for _ in range(5):
        optimizer.zero_grad()
        layer(x).sin().square().mean((1, 2)).sum().backward()
        optimizer.step()
    return layer.weight.detach()


def test_training_together_is_training_alone() -> None:
    together = trained([1, 2, 3])
    for i, seed in enumerate((1, 2, 3)):
        torch.testing.assert_close(together[i], trained([seed])[0], rtol=1e-5, atol=1e-6)


def test_each_recurrent_cell_is_the_one_that_torch_draws_for_its_seed() -> None:
    stacked = StackedGRUCell(4, 3, [5, 9])
    x = torch.linspace(-1, 1, 2 * 6 * 4).reshape(2, 6, 4)
    h = torch.linspace(1, -1, 2 * 6 * 3).reshape(2, 6, 3)
    for i, seed in enumerate((5, 9)):
        with isolated_rng(seed):
            alone = nn.GRUCell(4, 3)
        torch.testing.assert_close(stacked(x, h)[i], alone(x[i], h[i]))
