"""Hybrid fields: the known part at first, the residual where it is allowed, constants learned or fixed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from sciode import solve
from sciode.nn import Autonomous, Hybrid, Mechanistic, mlp, starts_at_zero

Seeded = Callable[[int], AbstractContextManager[None]]


def swing(t: Tensor, y: Tensor, gravity: Tensor, length: Tensor) -> Tensor:
    return torch.stack((y[..., 1], -gravity / length * y[..., 0].sin()), -1)


def _states(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _pendulum() -> Mechanistic:
    return Mechanistic(swing, fixed={"gravity": 9.81}, learned={"length": 1.2})


def test_before_training_a_hybrid_field_is_the_known_field_exactly(seeded: Seeded) -> None:
    with seeded(0):
        hybrid = Hybrid(_pendulum(), Autonomous(mlp([2, 16, 2], nn.Tanh)))
    y0, ts = _states(4, 2), [0.0, 1.0, 2.0]
    assert torch.equal(hybrid(torch.zeros(()), y0), _pendulum()(torch.zeros(()), y0))
    assert torch.equal(solve(hybrid, y0, ts).ys, solve(_pendulum(), y0, ts).ys)


def test_a_residual_at_zero_still_learns(seeded: Seeded) -> None:
    with seeded(0):
        hybrid = Hybrid(_pendulum(), Autonomous(mlp([2, 16, 2], nn.Tanh)))
    hybrid(torch.zeros(()), _states(4, 2)).square().sum().backward()
    last = [part for part in hybrid.residual.modules() if isinstance(part, nn.Linear)][-1]  # type: ignore[union-attr]
    assert last.weight.grad is not None and float(last.weight.grad.abs().max()) > 0


def test_a_residual_reads_and_corrects_the_named_components_only(seeded: Seeded) -> None:
    with seeded(0):
        net = mlp([1, 8, 1], nn.Tanh)
        hybrid = Hybrid(
            Autonomous(torch.zeros_like),
            Autonomous(net),
            names=("x", "y", "z"),
            reads=("z",),
            corrects=("x",),
            zero_start=False,
        )
    y = _states(5, 3)
    wanted = torch.cat((net(y[:, 2:]), torch.zeros(5, 2)), -1)
    assert torch.equal(hybrid(torch.zeros(()), y), wanted)
    assert torch.equal(hybrid.correction(torch.zeros(()), y), wanted)


def test_named_components_keep_the_order_in_which_they_are_named() -> None:
    hybrid = Hybrid(
        Autonomous(torch.zeros_like),
        Autonomous(lambda z: z),
        names=("x", "y", "z"),
        reads=("z", "x"),
        corrects=("y", "z"),
        zero_start=False,
    )
    found = hybrid(torch.zeros(()), torch.tensor([[1.0, 2.0, 3.0]]))
    assert found.tolist() == [[0.0, 3.0, 1.0]]


def test_learned_constants_get_gradients_and_fixed_ones_do_not() -> None:
    field = _pendulum()
    solve(field, _states(4, 2), [0.0, 1.0]).ys[-1].sum().backward()
    assert {name for name, _ in field.named_parameters()} == {"length"}
    assert {name for name, _ in field.named_buffers()} == {"gravity"}
    assert (length := field.get_parameter("length").grad) is not None and float(length.abs()) > 0
    assert set(field.state_dict()) == {"gravity", "length"}


def test_a_learned_constant_is_found_again_from_a_trajectory() -> None:
    y0, ts = torch.tensor([[1.0, 0.0], [0.3, 0.0]]), torch.linspace(0, 1, 6)
    truth = solve(Mechanistic(swing, fixed={"gravity": 9.81, "length": 0.8}), y0, ts).ys
    field = _pendulum()
    optimizer = torch.optim.Adam(field.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        (solve(field, y0, ts).ys - truth).square().mean().backward()
        optimizer.step()
    assert abs(float(field.get_parameter("length").detach()) - 0.8) < 0.01


def test_misuse_says_the_mend(seeded: Seeded) -> None:
    with seeded(0):
        net = Autonomous(mlp([1, 4, 1], nn.Tanh))
        unready = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    known = _pendulum()
    with pytest.raises(ValueError, match="pass names="):
        Hybrid(known, net, reads=("rate",))
    with pytest.raises(ValueError, match="among"):
        Hybrid(known, net, names=("angle", "rate"), corrects=("speed",))
    with pytest.raises(ValueError, match="zero_start=False"):
        Hybrid(known, lambda t, y: y)
    with pytest.raises(ValueError, match=r"end in nn\.Linear"):
        starts_at_zero(unready)
    with pytest.raises(ValueError, match="residual must return"):
        Hybrid(known, net, names=("angle", "rate"), reads=("rate",))(torch.zeros(()), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="either fixed or learned"):
        Mechanistic(swing, fixed={"gravity": 1.0}, learned={"gravity": 1.0})
    with pytest.raises(ValueError, match="cannot name a constant"):
        Mechanistic(swing, fixed={"forward": 1.0})
