"""How well anyone could: surfaces through true readings, and the true equation from the first ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciode.data.flow import FlowSet, Space
from sciode.data.flow_recipes import VorticityRecipe
from sciode.observers.law import grid_of
from sciode.observers.surface import chosen_order, surface_inverse, surface_rows
from sciode.pde.vorticity import diagonal_forcing, simulate_vorticity

__all__ = ["Surface", "fitted_surface", "solved"]


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


def fitted_surface(readings: FlowSet, orders: tuple[int, ...]) -> Surface:
    """What suits the readings of the first flow's sensors best, as an observer chooses it."""
    points = readings[0].points
    own = [flow for flow in readings if torch.equal(flow.points, points)]
    mean, deviation = readings.moments()
    values = torch.cat([(flow.values.double() - mean) / deviation for flow in own])
    return Surface(*chosen_order(points.double(), values, readings.space, orders), readings.space)


def solved(
    surface: Surface, recipe: VorticityRecipe, sensors: NDArray[Any], first: NDArray[Any], places: NDArray[Any],
    times: NDArray[Any],
) -> NDArray[np.float64]:  # fmt: skip
    """First readings [N, 1] of vorticity, as a field by the surface, moved on by the equation that made the set, at
    places [Q, 2]: [T, Q, 1]. What is missed is what the sensors do not tell."""
    grid = grid_of(surface.space, recipe.n, 1, torch.device("cpu"))
    start = surface.through(sensors, first[None], grid.points(surface.space).numpy())[0, :, 0]
    fields = simulate_vorticity(
        torch.from_numpy(start).reshape(1, recipe.n, recipe.n), times.tolist(), viscosity=recipe.viscosity,
        dt=recipe.dt, forcing=diagonal_forcing(recipe.n, recipe.forcing),
    )  # fmt: skip
    reading = grid.reading(torch.from_numpy(places), surface.space)
    return (fields.flatten(1) @ reading.T).unsqueeze(-1).numpy()
