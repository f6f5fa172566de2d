"""A stack of networks is its members side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciode.nn import Autonomous, members_of, mlp, rowwise, stack, unstack

MEMBERS, ROWS = 3, 5


class Scaled(nn.Module):
    """A module with a parameter of its own, read through `rowwise`."""

    reads_rowwise = ("scale",)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(4))
        self.net = mlp([4, 6, 4], nn.Tanh)

    def forward(self, x: Tensor) -> Tensor:
        return rowwise(self.scale, x, 1) * self.net(x)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 3),
    "no bias": lambda: nn.Linear(4, 3, bias=False),
    "mlp": lambda: mlp([4, 7, 3], nn.SiLU),
    "batch norm": lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU()),
    "own parameter": Scaled,
}


def made(seeded: Any, make: Callable[[], nn.Module]) -> list[nn.Module]:
    networks = []
    for seed in range(MEMBERS):
        with seeded(seed):
            networks.append(make().double())
    return networks


def batches(*shape: int) -> Tensor:
    return torch.randn(MEMBERS, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_values_gradients_and_statistics_are_those_of_the_members(seeded: Any, name: str, training: bool) -> None:
    networks = made(seeded, NETWORKS[name])
    stacked = stack(networks).train(training)
    x = batches(ROWS, 4)
    whole = stacked(x.flatten(0, 1))
    whole.square().sum().backward()
    for k, (network, own) in enumerate(zip(networks, x, strict=True)):
        alone = network.train(training)(own)
        torch.testing.assert_close(whole.unflatten(0, (MEMBERS, ROWS))[k], alone)
        alone.square().sum().backward()
        for mine, theirs in zip(network.parameters(), stacked.parameters(), strict=True):
            assert mine.grad is not None and theirs.grad is not None
            torch.testing.assert_close(theirs.grad[k], mine.grad)
        for own_name, value in network.state_dict().items():
            torch.testing.assert_close(stacked.state_dict()[own_name][k], value)


def test_rows_may_have_further_axes(seeded: Any) -> None:
    networks = made(seeded, Scaled)
    x = batches(ROWS, 2, 4)
    expected = torch.cat([network(own) for network, own in zip(networks, x, strict=True)])
    torch.testing.assert_close(stack(networks)(x.flatten(0, 1)), expected)


def test_a_gru_cell_is_stacked(seeded: Any) -> None:
    networks = made(seeded, lambda: nn.GRUCell(4, 6))
    x, h = batches(ROWS, 4), batches(ROWS, 6)
    expected = torch.cat([cell(*own) for cell, *own in zip(networks, x, h, strict=True)])
    torch.testing.assert_close(stack(networks)(x.flatten(0, 1), h.flatten(0, 1)), expected)


def test_dropout_draws_each_members_masks_from_its_own_stream(seeded: Any) -> None:
    networks = made(seeded, lambda: nn.Sequential(nn.Linear(4, 40), nn.Dropout(0.3)))
    stacked, x = stack(networks).train(), batches(ROWS, 4)
    with pytest.raises(ValueError, match="streams"):
        stacked(x.flatten(0, 1))
    stacked[1].streams = [torch.Generator().manual_seed(50 + k) for k in range(MEMBERS)]
    whole = stacked(x.flatten(0, 1)).unflatten(0, (MEMBERS, ROWS))
    for k, (network, own) in enumerate(zip(networks, x, strict=True)):
        with seeded(50 + k):
            torch.testing.assert_close(whole[k], network.train()(own))
    torch.testing.assert_close(stacked.eval()(x.flatten(0, 1)), stacked[0](x.flatten(0, 1)))


def test_unstack_gives_the_weights_back(seeded: Any) -> None:
    networks, others = (made(seeded, NETWORKS["batch norm"]) for _ in range(2))
    stacked = stack(networks)
    assert members_of(stacked) == MEMBERS
    for other in others:
        nn.init.zeros_(other.get_parameter("0.weight"))
    unstack(stacked, others)
    for network, other in zip(networks, others, strict=True):
        torch.testing.assert_close(dict(network.state_dict()), dict(other.state_dict()))


def test_the_members_are_left_alone(seeded: Any) -> None:
    networks = made(seeded, NETWORKS["mlp"])
    before = [x.clone() for network in networks for x in network.parameters()]
    stacked = stack(networks)
    with torch.no_grad():
        for parameter in stacked.parameters():
            parameter.zero_()
    assert all(map(torch.equal, before, (x for network in networks for x in network.parameters())))


class Bare(nn.Module):
    """A parameter that nobody says how to spread."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))


def test_what_cannot_be_stacked_says_why(seeded: Any) -> None:
    with pytest.raises(ValueError, match="at least one"):
        stack([])
    with seeded(0):
        with pytest.raises(ValueError, match="one architecture"):
            stack([nn.Linear(2, 3), nn.Linear(2, 4)])
        with pytest.raises(ValueError, match="Bare owns scale"):
            stack([Bare(), Bare()])
        with pytest.raises(ValueError, match="GRU owns"):
            stack([Autonomous(nn.GRU(2, 3)), Autonomous(nn.GRU(2, 3))])
        with pytest.raises(ValueError, match="running statistics"):
            stack([nn.BatchNorm1d(2, affine=False)])
        with pytest.raises(ValueError, match="without biases"):
            stack([nn.GRUCell(2, 3, bias=False)])
