"""Series through stacked networks against nested differentiation, and the batch against its members."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from sciode.pinn.networks import Network, Scaling
from sciode.pinn.taylor import Orders, closed, derivatives_of, factorial, multiplied

ORDERS = {1: [(4,)], 2: [(4, 0), (3, 1), (2, 2), (0, 3)], 3: [(2, 1, 0), (0, 1, 2)]}


def _plain(network: Network, theta: Tensor, scaling: Scaling, arm: int, piece: int, outputs: int) -> object:
    """One network of the stack as a plain function, written out."""
    pieces, axes = scaling.centre.shape
    layers = network.unpacked(theta, axes, outputs, pieces)
    act = {"tanh": torch.tanh, "sine": torch.sin}[network.activation]

    def function(x: Tensor) -> Tensor:
        y = (x - scaling.centre[piece]) / scaling.half[piece]
        for place, (weight, bias) in enumerate(layers):
            y = y @ weight[arm, piece] + bias[arm, piece, 0]
            y = y if place == len(layers) - 1 else act(y)
        return y

    return function


def _stack(axes: int, activation: str, arms: int = 2, pieces: int = 3) -> tuple[Network, Tensor, Scaling, Tensor]:
    network = Network(7, 3, activation)
    generator = torch.Generator().manual_seed(5)
    theta = network.initial(axes, 2, pieces, range(arms), torch.float64)
    theta = theta + 0.1 * torch.randn(theta.shape, generator=generator, dtype=torch.float64)
    scaling = Scaling(
        torch.randn(pieces, axes, generator=generator, dtype=torch.float64),
        0.5 + torch.rand(pieces, axes, generator=generator, dtype=torch.float64),
    )
    points = torch.randn(1, pieces, 5, axes, generator=generator, dtype=torch.float64)
    return network, theta, scaling, points


LOW = [
    (1, [(0,)]), (1, [(1,)]), (1, [(2,)]), (2, [(0, 1)]), (2, [(0, 2)]), (2, [(2, 0), (0, 1)]), (2, [(2, 0), (0, 2)]),
    (2, [(1, 1)]), (2, [(1, 1), (0, 2)]), (2, [(2, 0), (1, 1), (0, 2)]), (3, [(2, 0, 0), (0, 0, 2)]),
    (3, [(1, 0, 1), (0, 2, 0)]),
]  # fmt: skip


@pytest.mark.parametrize("activation", ["tanh", "sine"])
@pytest.mark.parametrize(("axes", "orders"), LOW)
def test_orders_of_at_most_two_are_what_nested_differentiation_gives(
    axes: int, orders: list[Orders], activation: str
) -> None:
    network, theta, scaling, points = _stack(axes, activation)
    found = network.series(theta, points, range(3), orders, scaling, 2)
    assert set(found) == set(closed(orders, axes))
    for arm, piece in product(range(2), range(3)):
        plain = _plain(network, theta, scaling, arm, piece, 2)
        exact = derivatives_of(plain, points[0, piece], orders)  # type: ignore[arg-type]
        for one, value in exact.items():
            torch.testing.assert_close(found[one][arm, piece] * factorial(one), value, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("activation", ["tanh", "sine"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_series_are_what_nested_differentiation_gives(axes: int, activation: str) -> None:
    network, theta, scaling, points = _stack(axes, activation)
    found = network.series(theta, points, range(3), ORDERS[axes], scaling, 2)
    assert set(found) == set(closed(ORDERS[axes], axes))
    for arm, piece in product(range(2), range(3)):
        plain = _plain(network, theta, scaling, arm, piece, 2)
        exact = derivatives_of(plain, points[0, piece], ORDERS[axes])  # type: ignore[arg-type]
        for orders, value in exact.items():
            torch.testing.assert_close(found[orders][arm, piece] * factorial(orders), value, rtol=1e-9, atol=1e-10)


def test_the_gradient_of_weights_is_that_of_nested_reverse_mode() -> None:
    network, theta, scaling, points = _stack(2, "tanh", arms=1, pieces=1)
    leaf = theta.clone().requires_grad_()
    third = network.series(leaf, points, [0], [(3, 0)], scaling, 2)[(3, 0)] * 6
    (mine,) = torch.autograd.grad(third.square().sum(), leaf)
    x = points[0, 0].clone().requires_grad_()
    other = theta.clone().requires_grad_()
    value = _plain(network, other, scaling, 0, 0, 2)(x)  # type: ignore[operator]
    total = torch.zeros((), dtype=torch.float64)
    for channel in range(2):
        slope = value[:, channel]
        for _ in range(3):
            slope = torch.autograd.grad(slope.sum(), x, create_graph=True)[0][:, 0]
        total = total + slope.square().sum()
    torch.testing.assert_close(mine, torch.autograd.grad(total, other)[0], rtol=1e-9, atol=1e-10)


def test_chosen_pieces_are_those_of_the_whole_stack() -> None:
    network, theta, scaling, points = _stack(2, "tanh")
    whole = network.series(theta, points, range(3), [(1, 1)], scaling, 2)
    some = network.series(theta, points[:, [2, 0]], [2, 0], [(1, 1)], scaling, 2)
    for orders in whole:
        torch.testing.assert_close(some[orders], whole[orders][:, [2, 0]], rtol=1e-13, atol=1e-13)


def test_a_product_of_series_is_the_series_of_the_product() -> None:
    def f(x: Tensor) -> Tensor:
        return torch.exp(x[..., :1] * x[..., 1:])

    def g(x: Tensor) -> Tensor:
        return torch.sin(x[..., :1] + 2 * x[..., 1:])

    asked: list[Orders] = [(2, 2)]
    x = torch.tensor([[0.3, -0.4], [1.0, 0.2]], dtype=torch.float64)
    series = [
        {one: value / factorial(one) for one, value in derivatives_of(h, x, asked).items()}
        for h in (f, g, lambda x: f(x) * g(x))
    ]
    found = multiplied(series[0], series[1], closed(asked, 2))
    for one, value in series[2].items():
        torch.testing.assert_close(found[one], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("changes", "says"), [({"width": 0}, "width"), ({"activation": "tan"}, "tanh")])
def test_misuse_of_networks_says_the_mend(changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Network(**changes)
