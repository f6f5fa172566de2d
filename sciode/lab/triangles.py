"""Triangles between the points of a flow, as a picture in the plane has them: to the seams of a box, over the poles."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from scipy.spatial import ConvexHull, Delaunay

from sciode.data.flow import Space

__all__ = ["Picture", "picture_of"]

_MARGIN = 8.0
"""Of the mean spacing: how far points of a periodic box are repeated beyond its sides, at first."""
_SIDE = 0.2
"""The longest side of a map's triangles, in radii; near a pole half the way to the axis."""
_POLE = 1e-6
"""Nearer to the axis is a pole, in radii."""
_TRIANGLES = 4000
"""Fewer are cut into smaller ones: between corners colours are mixed, not values, and red and blue make violet."""


class Picture(NamedTuple):
    """Corners at [M, 2], triangles of them cells [K, 3], what each corner shows, `weights @ values`, [M, N], and the
    triangles before they were cut into smaller ones, mesh [L, 3]."""

    at: NDArray[np.float64]
    cells: NDArray[np.int64]
    weights: csr_array
    mesh: NDArray[np.int64]


def picture_of(
    points: NDArray[Any],
    there: NDArray[np.bool_],
    space: Space,
    cells: NDArray[Any] | None = None,
    walls: NDArray[np.bool_] | None = None,
) -> Picture:
    """The triangles of points [N, d], those left out that are not there [N].

    - A mesh with cells [M, 3]: its own, less those with a corner that is not there.
    - A plane: Delaunay's, less those all of whose corners are on walls [N], for they lie in an obstacle (small ones
      also in a corner of the flow).
    - A periodic box: Delaunay's over the seams, those that reach into the box.
    - A sphere: the geodesic ones, on the map of longitude and latitude in degrees, from seam to seam and pole to pole.
      Where all points are on one side, the other stays empty.

    Raises ValueError for other dimensions, or points that span no triangle.
    """
    if space.kind == "sphere":
        return _on_map(points / np.linalg.norm(points, axis=1, keepdims=True), there)
    if points.shape[1] != 2:
        raise ValueError(f"points with {points.shape[1]} coordinates in {space.kind!r} have no picture: give two")
    if cells is not None:
        return _chosen(points, cells[there[cells].all(1)])
    kept = np.flatnonzero(there)
    if space.kind == "periodic":
        return _over_seams(points, kept, space)
    _check_spans(points[kept])
    found = kept[Delaunay(points[kept]).simplices]
    return _chosen(points, found if walls is None else found[~walls[found].all(1)])


def _check_spans(points: NDArray[Any]) -> None:
    count, d = points.shape
    side = float(np.ptp(points, axis=0).max()) if count else 0.0
    if not count or np.linalg.matrix_rank(points - points.mean(0), tol=1e-7 * side * count**0.5) < d:
        what = "triangle: they are fewer than three, or on one line" if d == 2 else "globe: they are on one circle"
        raise ValueError(
            f"{count} points that have values span no {what}; draw their values over time instead, or as dots by "
            "`ax.scatter`"
        )


def _chosen(points: NDArray[Any], cells: NDArray[Any]) -> Picture:
    """Cells, and of points only their corners."""
    used, numbers = np.unique(cells, return_inverse=True)
    return _finer(points[used], numbers.reshape(-1, 3), _rows(used, len(points)))


def _finer(at: NDArray[Any], mesh: NDArray[Any], weights: csr_array) -> Picture:
    """With each triangle cut into four, until they are many."""
    cells = mesh
    while 0 < len(cells) < _TRIANGLES:
        sides = np.sort(np.stack((cells, np.roll(cells, -1, 1)), -1), -1)  # from a corner to the next
        pairs, number = np.unique(sides.reshape(-1, 2), axis=0, return_inverse=True)
        middle = len(at) + number.reshape(-1, 3)
        at = np.vstack((at, at[pairs].mean(1)))
        weights = _with_middles(weights, pairs)
        corners = np.stack((cells, middle, np.roll(middle, 1, 1)), -1)
        cells = np.concatenate((corners.reshape(-1, 3), middle))
    return Picture(at, cells, weights, mesh)


def _with_middles(weights: csr_array, pairs: NDArray[Any]) -> csr_array:
    """With rows of the middles between pairs [P, 2] of rows."""
    return csr_array(vstack((weights, 0.5 * (weights[pairs[:, 0]] + weights[pairs[:, 1]]))))


def _rows(which: NDArray[Any], count: int) -> csr_array:
    """Rows of which each shows one point."""
    return csr_array((np.ones(len(which)), (np.arange(len(which)), which)), shape=(len(which), count))


def _over_seams(points: NDArray[Any], kept: NDArray[Any], space: Space) -> Picture:
    lower, upper = np.asarray(space.lower), np.asarray(space.upper)
    sides, inside = upper - lower, lower + np.mod(points[kept] - lower, upper - lower)
    if not len(kept):
        raise ValueError("none of the points has a value: there is nothing to draw")
    shifts = np.stack(np.meshgrid(*[[0.0, -1.0, 1.0]] * 2, indexing="ij"), -1).reshape(-1, 2)
    corners = np.stack(np.meshgrid(*zip(lower, upper, strict=True), indexing="ij"), -1).reshape(-1, 2)
    images = (inside + (shifts * sides)[:, None]).reshape(-1, 2)
    numbers = np.tile(kept, len(shifts))
    margin = _MARGIN * float(sides.prod() / len(kept)) ** 0.5
    while True:
        near = ((images >= lower - margin) & (images <= upper + margin)).all(1)
        found = Delaunay(images[near])
        if margin >= sides.max() or (found.find_simplex(corners) >= 0).all():
            break
        margin *= 2.0
    at = images[near]
    ends = at[found.simplices]
    reach = ((ends.max(1) > lower) & (ends.min(1) < upper)).all(1)
    return _finer(at, found.simplices[reach].astype(np.int64), _rows(numbers[near], len(points)))


def _on_map(points: NDArray[Any], there: NDArray[np.bool_]) -> Picture:
    kept = np.flatnonzero(there)
    _check_spans(points[kept])
    hull = ConvexHull(points[kept])
    # Where all points are on one side, the hull is closed by triangles that turn their back to the outside.
    cells = hull.simplices[hull.equations[:, 3] < -1e-12].astype(np.int64)
    found = _Globe(points[kept], cells, _rows(kept, len(points)))
    for pole in (1.0, -1.0):
        found = _with_pole(found, pole)
    return _unrolled(_refined(found))


class _Globe(NamedTuple):
    """Points [M, 3] of length 1, triangles of them cells [K, 3], and what they show; see `Picture`."""

    points: NDArray[np.float64]
    cells: NDArray[np.int64]
    weights: csr_array


def _axis(points: NDArray[Any]) -> NDArray[np.float64]:
    """How far from the poles' axis."""
    return np.hypot(points[..., 0], points[..., 1])


def _with_pole(globe: _Globe, north: float) -> _Globe:
    """With a pole as a corner of the triangles in which it lies, two of them if it is on a side."""
    points, cells, weights = globe
    if (_axis(points[points[:, 2] * north > 0.0]) < _POLE).any():
        return globe
    pole, corners = np.array([0.0, 0.0, north]), points[cells]
    good = np.abs(np.linalg.det(corners)) > 1e-12
    share = np.full(cells.shape, -1.0)
    share[good] = np.linalg.solve(corners[good].transpose(0, 2, 1), pole[:, None])[..., 0]
    inside = (share > -1e-9).all(1)
    if not inside.any():
        return globe
    first = int(np.flatnonzero(inside)[0])
    part = np.maximum(share[first], 0.0) / np.maximum(share[first], 0.0).sum()
    new = [
        [len(points), cell[k], cell[k - 2]]
        for cell, shares in zip(cells[inside], share[inside], strict=True)
        for k in range(3)
        if shares[k - 1] > 1e-9
    ]
    row = csr_array(part[None] @ weights[cells[first]])
    return _Globe(np.vstack((points, pole)), np.vstack((cells[~inside], new)), csr_array(vstack((weights, row))))


def _refined(globe: _Globe) -> _Globe:
    """Triangles halved until the map shows their sides as they are; a side is halved alike from both its triangles."""
    points, cells, weights = globe
    while True:
        away = _axis(points[cells])
        to = np.roll(points[cells], -1, 1) - points[cells]  # of the side from a corner to the next
        reach = np.minimum(_SIDE, 0.5 * np.maximum(away, np.roll(away, -1, 1)))
        # Sides that end in a pole are meridians, and straight.
        reach = np.where(np.minimum(away, np.roll(away, -1, 1)) < _POLE, _SIDE, reach)
        excess = np.linalg.norm(to, axis=2) / reach
        long = excess.max(1) > 1.0
        if not long.any():
            return _Globe(points, cells, weights)
        turn = excess[long].argmax(1)[:, None]
        a, b, c = np.take_along_axis(cells[long], (turn + np.arange(3)) % 3, 1).T
        pairs, number = np.unique(np.sort(np.stack((a, b), 1), 1), axis=0, return_inverse=True)
        new = len(points) + number.reshape(-1)
        middle = points[pairs].sum(1)
        points = np.vstack((points, middle / np.linalg.norm(middle, axis=1, keepdims=True)))
        weights = _with_middles(weights, pairs)
        cells = np.vstack((cells[~long], np.stack((a, new, c), 1), np.stack((new, b, c), 1)))


def _unrolled(globe: _Globe) -> Picture:
    """On the map, each triangle with corners of its own; a pole is a side of it; once more beyond both ends."""
    points, cells, weights = globe
    east = np.degrees(np.arctan2(points[:, 1], points[:, 0])) % 360.0
    north = np.degrees(np.arcsin(points[:, 2].clip(-1.0, 1.0)))
    polar = _axis(points[cells]) < _POLE
    turn = np.where(polar.any(1), polar.argmax(1), 0)[:, None]
    cells = np.take_along_axis(cells, (turn + np.arange(3)) % 3, 1)  # a pole comes first
    x, y = east[cells], north[cells]
    last = x[:, 2:]
    x = last + (x - last + 180.0) % 360.0 - 180.0
    polar = polar.any(1)
    x[polar, 0] = x[polar, 1]
    # The rest of the quadrangle under the pole.
    x = np.concatenate((x, np.stack((x[polar, 2], x[polar, 1], x[polar, 2]), 1)))
    y = np.concatenate((y, np.stack((y[polar, 0], y[polar, 0], y[polar, 2]), 1)))
    cells = np.concatenate((cells, cells[polar][:, [0, 0, 2]]))
    parts = [(x, y, cells)]
    for shift, beyond in ((-360.0, x.max(1) > 360.0), (360.0, x.min(1) < 0.0)):
        parts.append((x[beyond] + shift, y[beyond], cells[beyond]))
    x, y, cells = (np.concatenate(part) for part in zip(*parts, strict=True))
    at = np.stack((x.ravel(), y.ravel()), 1)
    return _finer(at, np.arange(len(at)).reshape(-1, 3), weights[cells.ravel()])
