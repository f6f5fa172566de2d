"""Augmented and second-order fields are their definitions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from sciode import solve
from sciode.nn import Augmented, Autonomous, Joined, SecondOrder, augment, mlp, project

Seeded = Callable[[int], AbstractContextManager[None]]


def _states(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_joined_network_sees_its_parts_side_by_side_whatever_shape_the_time_has(seeded: Seeded) -> None:
    with seeded(0):
        joined = Joined(mlp([3, 4, 2], nn.Tanh)).double()
    y = _states(5, 2)
    wanted = joined.net(torch.cat((torch.full((5, 1), 0.3, dtype=y.dtype), y), -1))
    for t in (torch.tensor(0.3), torch.full((1,), 0.3), torch.full((5, 1), 0.3)):
        torch.testing.assert_close(joined(t.to(y), y), wanted)


def test_augmentation_appends_zeros_and_projection_takes_them_off() -> None:
    y = _states(4, 3)
    wide = augment(y, 2)
    assert torch.equal(wide[:, :3], y) and torch.equal(wide[:, 3:], torch.zeros(4, 2, dtype=y.dtype))
    assert torch.equal(project(wide, 2), y)
    assert torch.equal(augment(y, 0), y) and torch.equal(project(y, 0), y)


def test_a_field_that_leaves_its_added_components_at_zero_is_the_field_without_them() -> None:
    def turn(y: Tensor) -> Tensor:
        return torch.stack((-y[..., 1], y[..., 0]), -1)

    field = Augmented(Autonomous(lambda z: augment(turn(z), 3)), size=2, extra=3)
    y0, ts = _states(4, 2), [0.0, 0.5, 2.0]
    wide = solve(field, field.augment(y0), ts, method="dopri5", dt=0.1)
    narrow = solve(Autonomous(turn), y0, ts, method="dopri5", dt=0.1)
    torch.testing.assert_close(field.project(wide.ys), narrow.ys, rtol=1e-14, atol=1e-14)


def test_one_added_dimension_carries_x_to_minus_x_which_no_field_on_the_line_can() -> None:
    field = Augmented(Autonomous(lambda z: torch.stack((-z[..., 1], z[..., 0]), -1)), size=1, extra=1)
    x = torch.tensor([[-1.0], [0.5], [2.0]], dtype=torch.float64)
    end = solve(field, field.augment(x), [0.0, torch.pi], rtol=1e-10, atol=1e-12).ys[-1]
    torch.testing.assert_close(field.project(end), -x, rtol=0, atol=1e-8)


def test_a_state_that_was_not_augmented_is_refused() -> None:
    field = Augmented(Autonomous(torch.tanh), size=2, extra=1)
    with pytest.raises(ValueError, match=r"start from field\.augment"):
        field(torch.zeros(()), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="without its added zeros"):
        field.augment(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="extra < the last axis"):
        project(torch.zeros(4, 2), 2)


def test_a_second_order_field_is_the_first_order_system_written_out(seeded: Seeded) -> None:
    with seeded(1):
        net = mlp([5, 8, 2], nn.Tanh).double()

    def by_hand(t: Tensor, y: Tensor) -> Tensor:
        x, v = y[:, :2], y[:, 2:]
        return torch.cat((v, net(torch.cat((t.expand(len(y), 1), x, v), -1))), -1)

    y0, ts = _states(3, 4), [0.0, 1.0, 2.0]
    found = solve(SecondOrder(Joined(net)), y0, ts)
    torch.testing.assert_close(found.ys, solve(by_hand, y0, ts).ys, rtol=1e-12, atol=1e-12)


def test_halves_must_be_equal_and_an_acceleration_must_fit() -> None:
    field = SecondOrder(lambda t, x, v: -x[..., :1])
    with pytest.raises(ValueError, match="even last axis"):
        field(torch.zeros(()), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="the position's shape"):
        field(torch.zeros(()), torch.zeros(2, 4))
