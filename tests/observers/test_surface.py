"""Surfaces of higher order, and how one is chosen by sensors that are left out in turn."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.data.flow import Space
from sciode.observers import chosen_order, surface_inverse, surface_rows
from sciode.observers.surface import ORDERS
from tests.observers.made import BOX, SPHERE, places

PLANE = Space("plane", (0.0, -1.0), (2.0, 1.0))


def laid(points: Tensor, values: Tensor, asked: Tensor, space: Space, order: int) -> Tensor:
    there = torch.ones(len(points), dtype=torch.bool)
    return surface_rows(asked, points, there, space, None, order) @ (
        surface_inverse(points, space, None, order) @ values
    )


def polynomial(x: Tensor, space: Space) -> Tensor:
    """Of degree 2 in what the surface reads; on a sphere and in a box that is smooth everywhere."""
    if space.kind == "periodic":
        angle = 2.0 * math.pi * x / torch.tensor([1.0, 2.0])
        return (1.0 + angle[:, 0].cos() - 2.0 * angle[:, 0].sin() * angle[:, 1].cos() + (2.0 * angle[:, 1]).sin())[
            :, None
        ]
    return (1.0 + x[:, 0] - x[:, 1] * x[:, -1] + 0.5 * x[:, 1].square())[:, None]


@pytest.mark.parametrize("space", [BOX, SPHERE, PLANE], ids=["box", "sphere", "plane"])
@pytest.mark.parametrize("order", [5, 7])
def test_surfaces_of_higher_order_are_exact_for_polynomials_of_degree_two(space: Space, order: int) -> None:
    points, asked = places(space, 60), places(space, 20, 1)
    found = laid(points, polynomial(points, space), asked, space, order)
    torch.testing.assert_close(found, polynomial(asked, space), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_sensors_are_met_and_two_in_one_place_share(order: int) -> None:
    points = places(BOX, 50)
    points[7] = points[3]
    values = torch.randn(50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = laid(points, values, points, BOX, order)
    shared = values.clone()
    shared[[3, 7]] = values[[3, 7]].mean()
    torch.testing.assert_close(found, shared, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("order", ORDERS)
def test_errors_fall_with_the_order_of_the_surface_as_sensors_grow_dense(order: int) -> None:
    """On a periodic box, where there is no edge: at least as fast as h^order in the root of the mean square."""
    errors = []
    for side in (12, 24):
        x = torch.arange(side, dtype=torch.float64) / side
        points = torch.stack(torch.meshgrid(x, 2.0 * x, indexing="ij"), -1).reshape(-1, 2)
        asked = places(BOX, 200, 5)
        wave = [(2.0 * math.pi * (p[:, 0] + p[:, 1] / 2.0)).sin().exp()[:, None] for p in (points, asked)]
        errors.append(float((laid(points, wave[0], asked, BOX, order) - wave[1]).square().mean().sqrt()))
    assert math.log2(errors[0] / errors[1]) > order


def test_what_is_smooth_gets_a_high_order_and_noise_does_not() -> None:
    points = places(BOX, 300)
    wave = (2.0 * math.pi * (points[:, 0] + points[:, 1] / 2.0)).sin().exp()[None, :, None]
    noise = torch.randn(3, 300, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert chosen_order(points, wave, BOX)[0] == 7
    assert chosen_order(points, noise, BOX)[0] == 3
    assert chosen_order(points, wave, BOX, (3, 5))[0] == 5


def test_a_dead_sensor_and_a_gap_do_not_choose_the_order() -> None:
    points = places(BOX, 60)
    phases = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)[:, None]
    wave = (2.0 * math.pi * points[:, 0] + phases).sin().exp()[..., None]
    gaps = wave.clone()
    gaps[:, 7] = torch.nan  # dead
    gaps[1, 30] = torch.nan  # silent once
    known = torch.arange(60) != 7
    order, stretch = chosen_order(points, gaps, BOX)
    expected = chosen_order(points[known], wave[[0, 2]][:, known], BOX)
    assert order == expected[0] == 7 and torch.equal(stretch, expected[1])
    scattered = wave.masked_fill(torch.rand(wave.shape, generator=torch.Generator().manual_seed(0)) < 0.2, torch.nan)
    assert chosen_order(points, scattered, BOX)[0] == 7
    kinds = torch.cat((wave, wave), 2)  # of two channels, no sensor reads both
    kinds[:, :46, 1] = kinds[:, 46:, 0] = torch.nan  # 14 sensors are too few to choose
    order, stretch = chosen_order(points, kinds, BOX)
    expected = chosen_order(points[:46], wave[:, :46], BOX)
    assert order == expected[0] == 7 and torch.equal(stretch, expected[1])


def test_leaving_out_by_one_inverse_is_leaving_out(monkeypatch: Any) -> None:
    from sciode.observers import surface

    monkeypatch.setattr(surface, "_NUGGET", 0.0)
    points = places(SPHERE, 40)
    values = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    one = torch.ones(3, dtype=torch.float64)
    errors = []
    for k in range(40):
        kept = torch.arange(40) != k
        errors.append(laid(points[kept], values[kept], points[k : k + 1], SPHERE, 3)[0] - values[k])
    expected = float(torch.stack(errors).square().mean())
    assert surface._untold(points, values, SPHERE, one, 3) == pytest.approx(expected, rel=1e-4)


def test_orders_that_make_no_surface_are_refused() -> None:
    with pytest.raises(ValueError, match="of order 4 is none"):
        surface_inverse(places(BOX, 20), BOX, None, 4)


def test_an_order_whose_surface_rounding_spoils_is_not_chosen() -> None:
    """Sensors of a grid of longitudes and latitudes crowd at the poles: distances of very unequal size."""
    east = torch.arange(64, dtype=torch.float64) * (2.0 * math.pi / 64)
    down = (torch.arange(24, dtype=torch.float64) + 0.02) * (math.pi / 24)
    a, b = (x.flatten() for x in torch.meshgrid(east, down, indexing="ij"))
    points = 2.0 * torch.stack((b.sin() * a.cos(), b.sin() * a.sin(), b.cos()), -1)
    points = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:600]]
    values = (2.0 * points[:, 2] + points[:, 0]).sin()[:, None]
    order, stretch = chosen_order(points, values[None], SPHERE)
    there = torch.ones(len(points), dtype=torch.bool)
    inverse = surface_inverse(points, SPHERE, stretch, order)
    met = surface_rows(points, points, there, SPHERE, stretch, order) @ inverse @ values
    assert float((met - values).square().mean()) < 1e-6
