"""Velocities that are curls: no divergence, nothing through walls, in the plane and in space; batches; misuse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap

from sciode.nn import HardBoundary, PeriodicEmbedding, Siren, Solenoidal
from sciode.pde import Box, curl, divergence, draw
from sciode.training import isolated_rng


def points(dimension: int, count: int = 50) -> Tensor:
    return draw(Box([-1.0] * dimension, [1.0] * dimension), count, "random", 0, dtype=torch.float64)


def nothing(x: Tensor) -> Tensor:
    return torch.zeros_like(x[..., :1])


class Vortex(nn.Module):
    """psi = sin X sin Y / pi^2, the stream function of Taylor's and Green's vortices."""

    def forward(self, x: Tensor) -> Tensor:
        return ((x + 1.0) * math.pi).sin().prod(-1, keepdim=True) / math.pi**2


@pytest.mark.parametrize(("dimension", "potentials"), [(2, 1), (2, 3), (3, 3), (3, 6)])
def test_the_divergence_is_zero_to_rounding_whatever_the_weights(dimension: int, potentials: int) -> None:
    with isolated_rng(dimension):
        field = Solenoidal(Siren(dimension, potentials, 8, 1).double(), drift=[0.5] * dimension)
    x = points(dimension)
    count = potentials if dimension == 2 else potentials // 3
    assert field(x).shape == (50, count * dimension)
    for k in range(count):

        def own(at: Tensor, first: int = k * dimension) -> Tensor:
            return field(at)[first : first + dimension]

        with torch.no_grad():
            sources, turns = (vmap(operator(own))(x).abs().max() for operator in (divergence, curl))
        assert float(sources) < 1e-12 * float(turns)


def test_the_curl_of_a_known_stream_function_is_its_velocity() -> None:
    x = points(2)
    angles = (x + 1.0) * math.pi
    sine, cosine = angles.sin(), angles.cos()
    exact = torch.stack((sine[:, 0] * cosine[:, 1], -cosine[:, 0] * sine[:, 1]), 1) / math.pi
    torch.testing.assert_close(Solenoidal(Vortex())(x), exact, rtol=0, atol=1e-14)


def test_the_curl_of_a_known_potential_in_space() -> None:
    class Potential(nn.Module):
        """A = (y z, x^2, x y)."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack((x[..., 1] * x[..., 2], x[..., 0] ** 2, x[..., 0] * x[..., 1]), -1)

    x = points(3)
    exact = torch.stack((x[:, 0], torch.zeros(50), 2.0 * x[:, 0] - x[:, 2]), 1)
    torch.testing.assert_close(Solenoidal(Potential(), (0.0, 0.0, 0.0))(x), exact)


def test_a_stream_function_that_vanishes_on_the_walls_lets_nothing_through() -> None:
    box = Box((-1.0, -1.0), (1.0, 1.0))
    with isolated_rng(0):
        field = Solenoidal(HardBoundary(Siren(2, 1, 8, 1), nothing, box.vanishing)).double()
    wall = box.boundary(40, 0, dtype=torch.float64)
    velocity = field(wall.points).detach()
    assert float((velocity * wall.normals).sum(1).abs().max()) < 1e-14 and float(velocity.abs().max()) > 1e-2


def test_on_a_periodic_box_the_mean_velocity_is_the_drift() -> None:
    with isolated_rng(0):
        psi = Siren(2, 1, 6, 1, omega=3.0, embedding=PeriodicEmbedding([2.0, 2.0]))
    field = Solenoidal(psi, (0.3, -0.2)).double()
    grid = draw(Box((-1.0, -1.0), (1.0, 1.0)), 64**2, "grid", 0, dtype=torch.float64)
    torch.testing.assert_close(field(grid).mean(0), torch.tensor([0.3, -0.2], dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_point_a_batch_and_vmap_agree() -> None:
    with isolated_rng(0):
        field = Solenoidal(Siren(2, 2, 6, 1).double(), (1.0, 0.0))
    x = points(2, 6)
    torch.testing.assert_close(field(x), vmap(field)(x))
    torch.testing.assert_close(field(x.reshape(2, 3, 2)), field(x).reshape(2, 3, 4))
    torch.testing.assert_close(field(x[0]), field(x)[0])


def test_misuse_says_the_mend() -> None:
    class Bad(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[..., :2]

    with pytest.raises(ValueError, match="one an axis"):
        Solenoidal(Vortex(), (1.0,))
    with pytest.raises(ValueError, match="as many axes"):
        Solenoidal(Vortex())(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="three components"):
        Solenoidal(Bad(), (0.0, 0.0, 0.0))(torch.zeros(4, 3))
