"""How well anyone could: surfaces, or the climate, through true readings, and the true equation from the first ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciode.data.flow import FlowSet, Space
from sciode.data.flow_recipes import ShallowWaterRecipe, VorticityRecipe
from sciode.observers import climate
from sciode.observers.law import grid_of
from sciode.observers.surface import chosen_order, surface_inverse, surface_rows
from sciode.pde.shallow_water import simulate_shallow_water, still
from sciode.pde.spherical import SphereGrid
from sciode.pde.vorticity import diagonal_forcing, simulate_vorticity

__all__ = ["Estimate", "Surface", "fitted_surface", "learned_climate", "solved"]

_RECIPES: Mapping[str, type[VorticityRecipe] | type[ShallowWaterRecipe]] = {
    "vorticity": VorticityRecipe,
    "shallow_water": ShallowWaterRecipe,
}


class Surface(NamedTuple):
    """The order and the stretch of surfaces, and where they lie; see `chosen_order`."""

    order: int
    stretch: Tensor
    space: Space

    def through(self, sensors: NDArray[Any], values: NDArray[Any], places: NDArray[Any]) -> NDArray[np.float64]:
        """Values [T, N, c] of sensors [N, d] at places [Q, d]: [T, Q, c]."""
        points, asked = torch.from_numpy(sensors).double(), torch.from_numpy(places).double()
        there = torch.ones(len(points), dtype=torch.bool)
        rows = surface_rows(asked, points, there, self.space, self.stretch, self.order)
        inverse = surface_inverse(points, self.space, self.stretch, self.order)
        # About their mean, as networks read them: of a large constant, rounding would leave more than what varies.
        mean = values.mean((0, 1))
        return (rows @ (inverse @ torch.from_numpy(values - mean))).numpy() + mean


@final
class Estimate:
    """The best linear estimate by a climate, as a `Surface` is asked; what a layout of sensors costs is kept."""

    def __init__(self, found: climate.Climate) -> None:
        self.climate, self.space = found, found.space
        self._roots: dict[bytes, Tensor] = {}

    def through(self, sensors: NDArray[Any], values: NDArray[Any], places: NDArray[Any]) -> NDArray[np.float64]:
        """Values [T, N, c] of sensors [N, d] at places [Q, d]: [T, Q, c]."""
        points, key = torch.from_numpy(sensors), sensors.tobytes()
        if key not in self._roots:
            self._roots = {key: self.climate.root(points)}
        found = self.climate.through(points, torch.from_numpy(values), torch.from_numpy(places), self._roots[key])
        return found.numpy()


def _own(readings: FlowSet) -> tuple[Tensor, Tensor]:
    """Points of the first flow's sensors and all their readings [F, N, c]."""
    points = readings[0].points
    return points, torch.cat([flow.values for flow in readings if torch.equal(flow.points, points)])


def learned_climate(readings: FlowSet, others: FlowSet) -> Estimate:
    """By the readings of the first flow's sensors alone, frames of all flows in even steps; how much of what they say
    is noise, by those of other flows."""
    return Estimate(climate.learned_climate(*_own(readings), *_own(others), readings.space))


def fitted_surface(readings: FlowSet, orders: tuple[int, ...]) -> Surface:
    """What suits the readings of the first flow's sensors best, as an observer chooses it."""
    points, values = _own(readings)
    mean, deviation = readings.moments()
    values = (values.double() - mean) / deviation
    return Surface(*chosen_order(points.double(), values, readings.space, orders), readings.space)


def solved(
    surface: Surface | Estimate, made_by: Mapping[str, Any], sensors: NDArray[Any], first: NDArray[Any],
    places: NDArray[Any], times: NDArray[Any],
) -> NDArray[np.float64]:  # fmt: skip
    """First readings [N, c], as fields by the surface, moved on by the equation that made the set, at places [Q, d]:
    [T, Q, c]. What is missed is what the surface does not make of them. made_by: the recipe of the set's manifest, of
    vorticity in a box or shallow water."""
    recipe, asked = _RECIPES[made_by["solver"]](**made_by["settings"]), torch.from_numpy(places)
    if isinstance(recipe, VorticityRecipe):
        grid = grid_of(surface.space, recipe.n, 1, torch.device("cpu"))
        start = surface.through(sensors, first[None], grid.points(surface.space).numpy())
        fields = _vorticity(recipe, torch.from_numpy(start).reshape(1, recipe.n, recipe.n), times)
        return (fields.flatten(1) @ grid.reading(asked, surface.space).T).unsqueeze(-1).numpy()
    sphere = SphereGrid(recipe.degree, recipe.latitudes, 2 * recipe.latitudes)
    start = surface.through(sensors, first[None], sphere.points.numpy())[0]
    return sphere.at(_weather(recipe, sphere, torch.from_numpy(start), times), asked).mT.numpy()


def _vorticity(recipe: VorticityRecipe, start: Tensor, times: NDArray[Any]) -> Tensor:
    """[T, 1, n, n] of what begins with a field [1, n, n]."""
    return simulate_vorticity(
        start, times.tolist(), viscosity=recipe.viscosity, dt=recipe.dt,
        forcing=diagonal_forcing(recipe.n, recipe.forcing),
    )  # fmt: skip


def _weather(recipe: ShallowWaterRecipe, grid: SphereGrid, start: Tensor, times: NDArray[Any]) -> Tensor:
    """Coefficients [T, 2, m, l] of height and vorticity that begin as start [points of the grid, 2], times in hours.

    Divergence is not read and begins at 0: with all points read, that costs some 2e-4 of a variance in 19 hours.
    """
    height, vorticity = start.T.reshape(2, 1, *grid.shape)
    state = still(grid, height)
    state[:, 0] = grid.coefficients(vorticity)
    found = simulate_shallow_water(
        grid, state, (3600.0 * times).tolist(), dt=recipe.dt, hyperdiffusion=recipe.hyperdiffusion
    )
    return grid.coefficients(torch.cat((found.height, found.vorticity), 1))
