"""Advection in 1-D on a grid, semi-Lagrangian: what a neural field of as many numbers is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import vmap

from sciode.pde.evolution import Evolution
from sciode.pde.lagrange import degree_of, interpolate

__all__ = ["GridAdvection", "advect"]

Array = NDArray[np.floating[Any]]

# Nodes beyond the walls, where u = 0 too: as many as a cubic at the wall looks at.
_BEYOND = 2


@dataclass(frozen=True, eq=False)
class GridAdvection:
    """A run of `advect`: `values` [T, n] at times `ts` [T] and nodes `x` [n], interpolated between them by `at`."""

    ts: Array
    x: Array
    values: Array
    interpolation: str

    def at(self, points: Array, step: int = -1) -> Array:
        """u at points [N] after a step, [N], by the interpolation of the run."""
        places = (np.asarray(points, dtype=float) - self.x[0]) / (self.x[1] - self.x[0])
        return _between(self.values[step], places, degree_of(self.interpolation))

    @property
    def memory(self) -> int:
        """Bytes of one state in float32, as networks are counted: 4 n. The run itself is in float64."""
        return 4 * len(self.x)


def advect(problem: Evolution, n: int, dt: float, steps: int, *, interpolation: str = "cubic") -> GridAdvection:
    """Solve u_t = -speed u_x by u(x, t + dt) = u(x - speed dt, t) on n nodes, both walls included, where u = 0.

    - `problem`: `advection(...)`, or one like it with a parameter "speed". `n`: 901 equals the network of the paper.
    - `interpolation`: "linear" or "cubic" (four nodes). Each step interpolates once, so that the error at a fixed time
      is of the interpolation's order in the spacing h over dt: h^2/dt or h^4/dt, less where speed dt is near a multiple
      of h. Stable for any dt.

    Raises ValueError for other problems, for n below 5, or steps that are not positive.
    Source: Staniforth & Cote (1991), Monthly Weather Review 119.
    """
    if problem.dimension != 1 or problem.walls != "zero" or "speed" not in problem.parameters:
        raise ValueError(f"{problem.name!r} is not 1-D advection at a constant speed between walls")
    if n < 5 or steps < 1 or not 0.0 < dt < np.inf:
        raise ValueError(f"advect needs n >= 5, steps >= 1 and dt > 0, got n={n}, steps={steps}, dt={dt}")
    degree = degree_of(interpolation)
    x = np.linspace(problem.lower[0], problem.upper[0], n)
    places = np.arange(n) - problem.parameters["speed"] * dt / (x[1] - x[0])
    values = np.empty((steps + 1, n))
    values[0] = vmap(problem.initial)(torch.from_numpy(x)[:, None])[:, 0].numpy()
    values[0, [0, -1]] = 0.0
    for step in range(steps):
        values[step + 1] = _between(values[step], places, degree)
        values[step + 1, [0, -1]] = 0.0
    return GridAdvection(np.arange(steps + 1) * dt, x, values, interpolation)


def _between(values: Array, places: Array, degree: int) -> Array:
    """Beyond the walls u is 0."""
    padded = np.pad(values, _BEYOND)
    return interpolate(padded, (np.clip(places + _BEYOND, 0.0, len(padded) - 1.0),), degree)
