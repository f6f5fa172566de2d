"""Interpolation on uniform grids by tensor products of Lagrange polynomials, as semi-Lagrangian advection needs it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciode.solvers.suggest import choose

__all__ = ["DEGREES", "degree_of", "interpolate", "periodic_stencil"]

Array = NDArray[np.floating[Any]]

DEGREES = {"linear": 1, "cubic": 3}
"""Names of interpolations: bilinear in 2-D, of second order; and bicubic on 4 points an axis, of fourth."""


def degree_of(interpolation: str) -> int:
    """The polynomial degree of a name; ValueError, with a suggestion, for an unknown one."""
    return DEGREES[choose("interpolation", interpolation, DEGREES)]


def interpolate(values: Array, places: tuple[Array, ...], degree: int) -> Array:
    """Values of a grid function between its nodes.

    values [n_1, ..., n_d], node i at coordinates i; places: d arrays of one shape, the coordinates in units of the
    spacing. Each axis has the degree + 1 nodes around the place, or those at the edge where that is near; beyond it,
    the polynomial there goes on. degree: 1 or 3. Error: of order degree + 1 in the spacing.
    """
    bases, weights = [], []
    for place, count in zip(places, values.shape, strict=True):
        if count < degree + 1:
            raise ValueError(f"{count} nodes on an axis are too few for degree {degree}: it needs {degree + 1}")
        base = np.clip(np.floor(place).astype(np.int64) - (degree - 1) // 2, 0, count - degree - 1)
        bases.append(base)
        weights.append(_weights(place - base, degree))
    total = np.zeros(places[0].shape)
    for corner in itertools.product(range(degree + 1), repeat=values.ndim):
        index = tuple(base + offset for base, offset in zip(bases, corner, strict=True))
        total += values[index] * math.prod(axis[offset] for axis, offset in zip(weights, corner, strict=True))
    return total


def periodic_stencil(
    points: Array, shape: tuple[int, ...], sides: tuple[float, ...], degree: int = 3
) -> tuple[NDArray[np.int64], Array]:
    """Which nodes of a periodic grid a value at each point is made of, and by which weights, [N, (degree + 1)^d] both.

    points [N, d]: anywhere; node i of axis k stands at sides[k] i / shape[k]; the numbers of nodes are those of the
    grid flattened. As `interpolate`, for many fields on one grid.
    """
    index, weights = np.zeros((len(points), 1), dtype=np.int64), np.ones((len(points), 1))
    for place, count, side in zip(points.T, shape, sides, strict=True):
        place = place * (count / side)
        base = np.floor(place).astype(np.int64) - (degree - 1) // 2
        nodes = (base[:, None] + np.arange(degree + 1)) % count
        shares = np.stack(_weights(place - base, degree), 1)
        index = (index[:, :, None] * count + nodes[:, None, :]).reshape(len(points), -1)
        weights = (weights[:, :, None] * shares[:, None, :]).reshape(len(points), -1)
    return index, weights


def _weights(place: Array, degree: int) -> list[Array]:
    """The polynomials that are 1 at node j and 0 at the others of 0 ... degree, at the place."""
    nodes = range(degree + 1)
    return [np.prod([(place - k) / (j - k) for k in nodes if k != j], axis=0) for j in nodes]
