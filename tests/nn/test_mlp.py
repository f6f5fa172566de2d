"""The multilayer perceptron is its formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sciode.nn import mlp
from sciode.training import isolated_rng


def test_an_mlp_is_affine_maps_with_the_activation_between() -> None:
    with isolated_rng(0):
        net, x = mlp([3, 5, 2], nn.Tanh), torch.randn(7, 3)
    first, _, last = net
    wanted = (x @ first.weight.T + first.bias).tanh() @ last.weight.T + last.bias  # type: ignore[operator, union-attr]
    torch.testing.assert_close(net(x), wanted)


@pytest.mark.parametrize("sizes", [[], [3], [3, 0, 1]])
def test_sizes_must_be_two_or_more_positive_widths(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="at least two positive widths"):
        mlp(sizes)
