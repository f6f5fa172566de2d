"""Shallow water on a rotating sphere, many flows at once: vorticity, divergence and geopotential in harmonics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from sciode.pde.semilinear import march
from sciode.pde.spherical import SphereGrid

__all__ = [
    "EARTH",
    "Jet",
    "Planet",
    "Weather",
    "balanced",
    "jets",
    "random_jets",
    "simulate_shallow_water",
    "still",
    "weather",
]


@final
@dataclass(frozen=True)
class Planet:
    """Radius (m), rate of rotation (1/s), gravity (m/s^2), and the mean depth of its water (m)."""

    radius: float = 6.37122e6
    rotation: float = 7.292e-5
    gravity: float = 9.80616
    depth: float = 1.0e4

    def __post_init__(self) -> None:
        if not (self.radius > 0.0 and self.gravity > 0.0 and self.depth > 0.0):
            raise ValueError(f"radius, gravity and depth must be positive, got {self}")


EARTH = Planet()


class Weather(NamedTuple):
    """Fields on the grid, [..., latitudes, longitudes]: depth of the water `height` (m), `vorticity` and `divergence`
    of the wind (1/s), and its components `east` and `north` (m/s)."""

    height: Tensor
    vorticity: Tensor
    divergence: Tensor
    east: Tensor
    north: Tensor


@final
@dataclass(frozen=True)
class Jet:
    """A zonal jet of the test of Galewsky, Scott & Polvani, with the bump of height that unsettles it.

    speed: of the wind in its core (m/s). edges: latitudes between which it blows (rad). bump: its height (m); it lies
    at `bump_at` (latitude, longitude; rad) with widths `bump_width`.
    """

    speed: float = 80.0
    edges: tuple[float, float] = (math.pi / 7.0, math.pi / 2.0 - math.pi / 7.0)
    bump: float = 120.0
    bump_at: tuple[float, float] = (math.pi / 4.0, 0.0)
    bump_width: tuple[float, float] = (1.0 / 15.0, 1.0 / 3.0)

    def wind(self, latitudes: Tensor) -> Tensor:
        """The wind to the east at latitudes: speed exp(4 / (b - a)^2 - 1 / ((x - a)(b - x))) between a and b."""
        low, high = self.edges
        inside = (latitudes - low) * (latitudes - high)
        exponent = 4.0 / (high - low) ** 2 + 1.0 / inside.clamp(max=-1e-12)
        return torch.where(inside < 0.0, self.speed * exponent.exp(), 0.0)

    def lift(self, latitudes: Tensor, longitudes: Tensor) -> Tensor:
        """The bump on the grid, [latitudes, longitudes]."""
        north, east = latitudes[:, None] - self.bump_at[0], longitudes[None, :] - self.bump_at[1]
        east = torch.remainder(east + math.pi, 2.0 * math.pi) - math.pi
        shape = -((north / self.bump_width[0]) ** 2) - (east / self.bump_width[1]) ** 2
        return self.bump * latitudes.cos()[:, None] * shape.exp()


def simulate_shallow_water(
    grid: SphereGrid,
    start: Tensor,
    ts: Sequence[float],
    *,
    dt: float,
    planet: Planet = EARTH,
    hyperdiffusion: float = 0.0,
    capture: int = 0,
) -> Weather:
    """Solve u_t = -(curl u + f) k x u - grad(g h + |u|^2 / 2), h_t = -div(h u), with f = 2 rotation sin(latitude).

    In the form of vorticity and divergence, products on the grid, steps of the integrating-factor Runge-Kutta method
    (order 4). Mass is kept to rounding; without diffusion energy is kept to the error of the steps.

    - `start` [B, 3, m, l]: coefficients of vorticity, divergence and g h, by `still` or `jets`.
    - `ts` [T]: seconds, increasing, the initial time first. `dt`: below about 2.8 radius / (degree (sqrt(g depth) +
      wind)), for the waves of gravity: 900 s at degree 42, 450 s at 85.
    - `hyperdiffusion`: nu in u_t = ... - nu Lap^2 u (m^4/s), for all three; 4e15 is what Dedalus' example takes.
    - `capture`: steps of a CUDA graph, see `sciode.pde.semilinear.march`.

    Returns the weather at ts, [T, B, latitudes, longitudes]. Where dt is too large its values are not finite.
    Raises ValueError for shapes and numbers out of range.
    Source: Galewsky, Scott & Polvani (2004), Tellus 56A; Hack & Jakob (1992), NCAR/TN-343.
    """
    side = grid.degree + 1
    if start.ndim != 4 or start.shape[1:] != (3, side, side) or not start.is_complex():
        raise ValueError(f"start is complex [B, 3, {side}, {side}], by still or jets, got {tuple(start.shape)}")
    if not 0.0 <= hyperdiffusion < math.inf:
        raise ValueError(f"hyperdiffusion is {hyperdiffusion}; below 0 the problem is not well posed")
    spin = 2.0 * planet.rotation * grid.sines[:, None]
    decay = -hyperdiffusion * (grid.eigenvalues / planet.radius**2) ** 2

    def rate(t: Tensor, state: Tensor) -> Tensor:
        vorticity, divergence, geopotential = state.unbind(1)
        whirl, level = grid.field(state[:, ::2]).unbind(1)
        east, north = grid.wind(vorticity, divergence)
        curl, spread = grid.curl_and_divergence(
            *(torch.stack(((whirl + spin) * part, level * part)) for part in (east, north))
        )
        head = geopotential + planet.radius**2 * grid.coefficients(_square(grid, east, north) / 2.0)
        push = curl[0] - grid.laplacian(head) / planet.radius**2
        return torch.stack((-spread[0], push, -spread[1]), 1)

    states = march(decay, rate, start, ts, dt, capture=capture)
    return Weather(*map(torch.stack, zip(*(weather(grid, state, planet) for state in states), strict=True)))


def weather(grid: SphereGrid, state: Tensor, planet: Planet = EARTH) -> Weather:
    """The fields of coefficients [B, 3, m, l] as `simulate_shallow_water` takes them."""
    whirl, spread, level = grid.field(state).unbind(1)
    cosines = (1.0 - grid.sines**2).sqrt()[:, None]
    east, north = (planet.radius * part / cosines for part in grid.wind(state[:, 0], state[:, 1]))
    return Weather(level / planet.gravity, whirl, spread, east, north)


def still(grid: SphereGrid, height: Tensor, planet: Planet = EARTH) -> Tensor:
    """Coefficients [B, 3, m, l] of water at rest with depths [B, latitudes, longitudes]."""
    level = planet.gravity * grid.coefficients(height)
    return torch.stack((torch.zeros_like(level), torch.zeros_like(level), level), 1)


def balanced(grid: SphereGrid, vorticity: Tensor, planet: Planet = EARTH) -> Tensor:
    """Coefficients [B, 3, m, l] of a wind without divergence, of vorticity [B, m, l], over water whose depth, of the
    planet's mean, lets none arise at first: Lap(g h + |u|^2 / 2) = curl((f + vorticity) u)."""
    east, north = grid.wind(vorticity, torch.zeros_like(vorticity))
    whirl = grid.field(vorticity) + 2.0 * planet.rotation * grid.sines[:, None]
    curl, _ = grid.curl_and_divergence(whirl * east, whirl * north)
    level = planet.radius**2 * (grid.inverse_laplacian(curl) - grid.coefficients(_square(grid, east, north) / 2.0))
    level[..., 0, 0] = planet.gravity * planet.depth * math.sqrt(4.0 * math.pi)
    return torch.stack((vorticity, torch.zeros_like(vorticity), level), 1)


def jets(grid: SphereGrid, flows: Sequence[Sequence[Jet]], planet: Planet = EARTH) -> Tensor:
    """Coefficients [B, 3, m, l] of flows of balanced jets, each a sum of jets, with the bumps on top of their depths.

    A bump adds to the mean depth, as in the test of Galewsky et al. Where jets overlap the sum is balanced too.
    """
    latitudes, longitudes = grid.latitudes, grid.longitudes
    cosines = latitudes.cos()
    winds = torch.stack([torch.stack([jet.wind(latitudes) for jet in flow]).sum(0) for flow in flows])
    lifts = torch.stack([torch.stack([jet.lift(latitudes, longitudes) for jet in flow]).sum(0) for flow in flows])
    east = (winds * cosines)[..., None].expand(-1, *grid.shape) / planet.radius
    vorticity, _ = grid.curl_and_divergence(east, torch.zeros_like(east))
    state = balanced(grid, vorticity, planet)
    return state + still(grid, lifts, planet)


def random_jets(seed: int | Sequence[int]) -> tuple[Jet, Jet]:
    """A jet in each hemisphere, one mirrored, with bumps of their own: a function of the seed.

    Speeds of 70 to 90 m/s, bumps of 200 to 500 m at any longitude and within 6 degrees of the jet's middle.
    """
    rng = np.random.default_rng(seed)

    def jet(side: int) -> Jet:
        low, high = math.pi / 7.0, math.pi / 2.0 - math.pi / 7.0
        edges = (low, high) if side > 0 else (-high, -low)
        at = side * math.pi / 4.0 + rng.uniform(-0.1, 0.1), rng.uniform(0.0, 2.0 * math.pi)
        return Jet(rng.uniform(70.0, 90.0), edges, rng.uniform(200.0, 500.0), at)

    return jet(1), jet(-1)


def _square(grid: SphereGrid, east: Tensor, north: Tensor) -> Tensor:
    """|u|^2 of a wind as `SphereGrid.wind` gives it."""
    return (east.square() + north.square()) / (1.0 - grid.sines[:, None].square())
