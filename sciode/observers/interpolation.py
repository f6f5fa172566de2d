"""Opponents that learn nothing: cubic interpolation of the sensors' true values, and persistence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CloughTocher2DInterpolator, CubicSpline, RBFInterpolator
from scipy.spatial import KDTree

from sciode.data.flow import Space

__all__ = ["between_frames", "interpolated", "persistence"]

_NEIGHBOURS = 50
_FLAT = 1e-5
"""Thickness beside width below which points of single precision lie in one plane."""


def interpolated(
    sensors: NDArray[Any], values: NDArray[Any], places: NDArray[Any], space: Space
) -> NDArray[np.float64]:
    """Values [T, N, c] of sensors [N, d] at places [Q, d], frame by frame: [T, Q, c].

    In a plane and a periodic box of two dimensions piecewise cubic on Delaunay triangles, smooth across their sides
    (Clough and Tocher), in the box across its seams; outside the hull the nearest sensor. On a sphere, and in other
    dimensions, cubic radial functions of the 50 nearest sensors by the chord (of more, where those lie in one plane).
    Exact at the sensors.

    A sensor without a reading of a channel (NaN) is left out of that frame and channel. Where sensors span no volume
    (fewer than d + 1, or all on one line or plane), the nearest tells all. Raises ValueError where no sensor has read.
    """
    t, _, c = values.shape
    table = np.moveaxis(np.asarray(values, dtype=np.float64), 1, 0).reshape(len(sensors), t * c)
    points, asked = np.asarray(sensors, dtype=np.float64), np.asarray(places, dtype=np.float64)
    there = np.isfinite(table)
    silent = np.flatnonzero(~there.any(0))
    if len(silent):
        frame, channel = divmod(int(silent[0]), c)
        raise ValueError(f"frame {frame}: no sensor has a reading of channel {channel}: leave the frame out")
    found = np.empty((len(asked), t * c))
    # Columns that the same sensors have read are one system.
    patterns, which = np.unique(there, axis=1, return_inverse=True)
    for number, kept in enumerate(patterns.T):
        columns = which.reshape(-1) == number
        found[:, columns] = _through(points[kept], table[np.ix_(kept, columns)], asked, space)
    return np.moveaxis(found.reshape(len(asked), t, c), 0, 1)


def between_frames(times: NDArray[Any], values: NDArray[Any], asked: NDArray[Any]) -> NDArray[np.float64]:
    """Values [K, Q, c] at times [K] by cubic splines at times `asked` [T]: [T, Q, c]; a line where K is two."""
    if len(times) == 1:
        return np.broadcast_to(np.asarray(values, dtype=np.float64), (len(asked), *values.shape[1:])).copy()
    return CubicSpline(times, values, axis=0)(asked)


def persistence(
    sensors: NDArray[Any], first: NDArray[Any], places: NDArray[Any], frames: int, space: Space
) -> NDArray[np.float64]:
    """The first readings [N, c], interpolated, at all frames: [T, Q, c]."""
    return np.repeat(interpolated(sensors, first[None], places, space), frames, axis=0)


def _through(points: NDArray[Any], table: NDArray[Any], asked: NDArray[Any], space: Space) -> NDArray[np.float64]:
    """Columns [N, k] of points [N, d] at places [Q, d], nothing missing: [Q, k]; see `interpolated`."""
    points, first = np.unique(points, axis=0, return_index=True)
    table = table[first]
    if space.kind == "periodic":
        points, table, asked = _tiled(points, table, asked, space)
    if not _spans(points):
        return table[KDTree(points).query(asked)[1]]
    if points.shape[1] == 2:
        found = CloughTocher2DInterpolator(points, table, tol=1e-10, maxiter=2000)(asked)
        lost = np.isnan(found).any(1)
        if lost.any():
            found[lost] = table[KDTree(points).query(asked[lost])[1]]
        return found
    neighbours, tree = _NEIGHBOURS, KDTree(points)
    # The nearest may lie in one plane, as all of a grid's last latitude do around a pole.
    while neighbours < len(points) and _flattest(points[tree.query(asked, neighbours)[1]]) < _FLAT:
        neighbours *= 2
    return RBFInterpolator(points, table, neighbors=min(neighbours, len(points)), kernel="cubic")(asked)


def _flattest(near: NDArray[Any]) -> float:
    """Of groups of points [Q, k, d], the least thickness beside the width."""
    apart = near - near.mean(1, keepdims=True)
    sizes = np.linalg.eigvalsh(np.swapaxes(apart, 1, 2) @ apart)
    return float(np.sqrt(np.maximum(sizes[:, 0], 0.0) / sizes[:, -1]).min())


def _spans(points: NDArray[Any]) -> bool:
    """Whether points span a volume, but for the rounding of float32, in which a line's are a hair off it."""
    side = float(np.ptp(points, axis=0).max())
    return bool(np.linalg.matrix_rank(points - points.mean(0), tol=1e-7 * side * len(points) ** 0.5) == points.shape[1])


def _tiled(
    points: NDArray[Any], table: NDArray[Any], asked: NDArray[Any], space: Space
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Points of a periodic box with their images around it, and places brought into it."""
    lower, sides = np.asarray(space.lower), np.subtract(space.upper, space.lower)
    points, asked = (lower + np.mod(x - lower, sides) for x in (points, asked))
    d = points.shape[1]
    shifts = np.stack(np.meshgrid(*[[0.0, -1.0, 1.0]] * d, indexing="ij"), -1).reshape(-1, d)
    # Slopes are estimated from all points at once, so what lies half a side away still counts in the fourth digit.
    images = np.concatenate([points + shift * sides for shift in shifts])
    return images, np.tile(table, (len(shifts), 1)), asked
