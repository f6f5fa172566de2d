"""Who is a neighbour of whom: edges between sensors in a box, in a periodic box and on a sphere."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, Delaunay, KDTree, QhullError
from torch import Tensor

from sciode.data.flow import Space
from sciode.solvers.suggest import choose

from .message_passing import geometric

__all__ = ["GRAPHS", "check_kind", "duplicates", "edges_between", "flattened", "graph", "outside_hull", "spacing"]

GRAPHS = ("delaunay", "knn", "radius", "map")
Graph = Literal["delaunay", "knn", "radius", "map"]

_MARGIN = 6.0
"""Of the mean spacing: how wide a seam of images a periodic triangulation has."""
_FAN = 7
"""Corners from which on a polygon of points on one circle is cut evenly, where Qhull makes a fan of it."""
_ASKEW = np.array([0.3819660113, 0.5257311121, 0.7598356857])
"""A way that no grid has, from which angles count: neither rounding nor the machine says who is the first."""


def edges_between(
    points: Tensor, space: Space, kind: Graph = "delaunay", k: int = 6, radius: float | None = None
) -> Tensor:
    """Edges [2, E] (sender, receiver; both directions, each once, no loops) between points [N, d] of a space.

    - "delaunay": sides of Delaunay triangles: across the seams of a periodic box; on a sphere, of the convex hull,
      whose triangles are the geodesic ones. Many points exactly on one circle around none, as of a grid's last latitude
      around a pole, have no triangles of their own: they are joined to and fro, so that no point has all others as
      neighbours. "Exactly" is but for the rounding of float64: in float32 it may be parts of a circle alone.
    - "knn": each point and its k nearest. "radius": all nearer than `radius`, in chords on a sphere.
    - "map": of a sphere, Delaunay triangles of longitude and latitude, which end at the date line: an ablation.

    A point that so gets no edge (a duplicate, a lonely one), and points that span no triangle (three are too few,
    collinear ones have none), get edges to their k nearest. Raises ValueError for an unknown kind, a radius that is
    missing, or points that are not finite.
    """
    check_kind(kind, k, radius)
    if kind == "map":
        return edges_between(*flattened(points, space), "delaunay", k)
    places = points.detach().cpu().double().numpy()
    if not np.isfinite(places).all():
        raise ValueError("positions of sensors must be finite numbers")
    count = len(places)
    if count < 2:
        return torch.zeros(2, 0, dtype=torch.int64, device=points.device)
    if kind == "delaunay":
        pairs = _triangulated(places, space)
    elif kind == "knn":
        pairs = _nearest(places, space, k)
    else:
        assert radius is not None
        tree, wrapped = _tree(places, space)
        pairs = tree.query_pairs(radius, output_type="ndarray").astype(np.int64)
        del wrapped
    lonely = np.setdiff1d(np.arange(count), pairs)
    if len(lonely):
        near = _nearest(places, space, k)
        pairs = np.concatenate((pairs, near[np.isin(near[:, 0], lonely)]))
    both = np.concatenate((pairs, pairs[:, ::-1]))
    both = np.unique(both[both[:, 0] != both[:, 1]], axis=0)
    return torch.from_numpy(np.ascontiguousarray(both.T)).to(points.device)


def check_kind(kind: str, k: int, radius: float | None) -> None:
    """Raise ValueError for what `edges_between` refuses of any points."""
    choose("graph", kind, GRAPHS)
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    if kind == "radius" and not (radius is not None and radius > 0.0):
        raise ValueError(f"a graph by radius needs radius > 0, got {radius}")


def graph(points: Tensor, space: Space, kind: Graph = "delaunay", k: int = 6, radius: float | None = None) -> Any:
    """The same as `torch_geometric.data.Data`: pos [N, d], edge_index [2, E], edge_attr [E, d + 1], way and length.

    Data of several layouts batch as torch-geometric has it, `Batch.from_data_list`. Raises ImportError without the
    extra `graph`.
    """
    edges = edges_between(points, space, kind, k, radius)
    way = space.difference(points[edges[0]], points[edges[1]])
    data = geometric().data.Data
    return data(pos=points, edge_index=edges, edge_attr=torch.cat((way, way.norm(dim=-1, keepdim=True)), -1))


def spacing(points: Tensor, space: Space) -> float:
    """The mean distance of N evenly spread points from one another: (volume / N)^(1/d); on a sphere by its area."""
    count = max(len(points), 1)
    if space.kind == "sphere":
        return float((4.0 * np.pi * space.radius**2 / count) ** 0.5)
    sides = np.subtract(space.upper, space.lower)
    return float((sides.prod() / count) ** (1.0 / len(sides)))


def duplicates(points: Tensor, space: Space) -> Tensor:
    """Which points [N] lie where one before them lies (bool), the opposite sides of a periodic box being one."""
    places = points.detach().cpu().double().numpy()
    tree, _ = _tree(places, space)
    found = torch.zeros(len(points), dtype=torch.bool)
    for first, second in tree.query_pairs(1e-9 * max(spacing(points, space), 1e-300)):
        found[max(first, second)] = True
    return found


def outside_hull(queries: Tensor, sensors: Tensor, space: Space) -> Tensor:
    """Which queries [Q, d] lie outside the convex hull of the sensors [N, d], bool: in a plane only.

    A periodic box and a sphere have no outside. Where the sensors span no volume, all queries but they are outside.
    """
    if space.kind != "plane":
        return torch.zeros(len(queries), dtype=torch.bool)
    places, wanted = (x.detach().cpu().double().numpy() for x in (sensors, queries))
    try:
        if places.shape[1] == 1:
            return torch.from_numpy(((wanted < places.min()) | (wanted > places.max()))[:, 0])
        hull = ConvexHull(places)
    except (QhullError, ValueError):
        return torch.from_numpy(KDTree(places).query(wanted)[0] > 0.0)
    room = 1e-9 * float(np.ptp(places, axis=0).max())
    return torch.from_numpy((wanted @ hull.equations[:, :-1].T + hull.equations[:, -1] > room).any(1))


def flattened(points: Tensor, space: Space) -> tuple[Tensor, Space]:
    """A sphere's points as (longitude, latitude) in a plane, with its seam and its poles: what an ablation needs."""
    if space.kind != "sphere":
        raise ValueError(f"only a sphere can be flattened, got {space.kind!r}")
    east = torch.atan2(points[..., 1], points[..., 0])
    north = torch.asin((points[..., 2] / space.radius).clamp(-1.0, 1.0))
    return torch.stack((east, north), -1), Space("plane", (-np.pi, -np.pi / 2), (np.pi, np.pi / 2))


def _tree(places: NDArray[Any], space: Space) -> tuple[KDTree, NDArray[Any]]:
    if space.kind != "periodic":
        return KDTree(places), places
    sides = np.subtract(space.upper, space.lower)
    wrapped = np.mod(places - np.asarray(space.lower), sides)
    wrapped = np.where(wrapped >= sides, 0.0, wrapped)  # rounding
    return KDTree(wrapped, boxsize=sides), wrapped


def _nearest(places: NDArray[Any], space: Space, k: int) -> NDArray[np.int64]:
    """Pairs (point, one of its k nearest), [N k, 2]."""
    tree, wrapped = _tree(places, space)
    count = len(places)
    # One more than k, for a point is near itself; which of two duplicates comes first is not said.
    near = np.asarray(tree.query(wrapped, min(k + 1, count))[1]).reshape(count, -1)
    rows = np.repeat(np.arange(count), near.shape[1])
    pairs = np.stack((rows, near.ravel()), 1).astype(np.int64)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _triangulated(places: NDArray[Any], space: Space) -> NDArray[np.int64]:
    """Pairs along the sides of triangles; none where there is no triangle."""
    count = len(places)
    try:
        if places.shape[1] == 1:
            order = np.argsort(places[:, 0], kind="stable")
            ring = [order[[-1, 0]]] if space.kind == "periodic" else []
            return np.stack((*np.stack((order[:-1], order[1:]), 1), *ring)).astype(np.int64)
        if space.kind == "sphere":
            return _sides(ConvexHull(places), places)
        if space.kind == "plane":
            return _sides(Delaunay(places), places)
        images, origin = _images(places, space)
        pairs = _sides(Delaunay(images), images)
    except (QhullError, ValueError):
        return np.zeros((0, 2), dtype=np.int64)
    inner = (pairs < count).any(1)
    return np.unique(np.sort(origin[pairs[inner]], axis=1), axis=0)


def _images(places: NDArray[Any], space: Space) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Points wrapped into the box, then their images in a seam around it; and whose image each is."""
    _, wrapped = _tree(places, space)
    sides = np.subtract(space.upper, space.lower)
    count, d = wrapped.shape
    room = np.minimum(sides, _MARGIN * (sides.prod() / count) ** (1.0 / d))
    shifts = np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * d, indexing="ij"), -1).reshape(-1, d)
    shifts = shifts[np.abs(shifts).sum(1) > 0]
    images, origin = [wrapped], [np.arange(count)]
    for shift in shifts:
        moved = wrapped + shift * sides
        near = ((moved > -room) & (moved < sides + room)).all(1)
        images.append(moved[near])
        origin.append(np.flatnonzero(near))
    return np.concatenate(images), np.concatenate(origin)


def _sides(hull: Any, places: NDArray[Any]) -> NDArray[np.int64]:
    """Sides of the simplices of a `ConvexHull` or a `Delaunay`, each once."""
    simplices = hull.simplices
    corners = simplices.shape[1]
    pairs = [simplices[:, [a, b]] for a in range(corners) for b in range(a + 1, corners)]
    every = np.unique(np.sort(np.concatenate(pairs).astype(np.int64), axis=1), axis=0)
    if corners != 3:
        return every
    # Triangles of which Qhull made one facet share its equation to the bit.
    _, facet, sizes = np.unique(hull.equations, axis=0, return_inverse=True, return_counts=True)
    for number in np.flatnonzero(sizes >= _FAN - 2):
        ring = np.unique(simplices[facet.ravel() == number])
        inner = np.isin(every, ring).all(1)
        every = np.concatenate((every[~inner], _zigzag(ring, places)))
    return np.unique(every, axis=0)


def _zigzag(ring: NDArray[Any], places: NDArray[Any]) -> NDArray[np.int64]:
    """Sides of a convex polygon, and diagonals to and fro between its halves: none of its points has more than two."""
    middle = places[ring].mean(0)
    around = places[ring] - middle
    if around.shape[1] == 3:
        normal = np.linalg.svd(around, full_matrices=False)[2][2]
        outward = normal @ middle
        # Around the sphere's own centre there is no outward: rounding must not choose the side.
        outward = outward if abs(outward) >= 1e-9 * np.abs(around).max() else normal @ _ASKEW
        normal = normal if outward >= 0.0 else -normal
        first = _ASKEW - (_ASKEW @ normal) * normal
        around = np.stack((around @ first, around @ np.cross(normal, first)), 1)
    angle = (np.arctan2(around[:, 1], around[:, 0]) - _ASKEW[0]) % (2.0 * np.pi)
    order = ring[np.argsort(angle)]
    count = len(order)
    path = np.stack((np.arange(count), count - 1 - np.arange(count)), 1).ravel()[:count]
    pairs = np.concatenate((np.stack((order, np.roll(order, 1)), 1), np.stack((order[path][:-1], order[path][1:]), 1)))
    return np.unique(np.sort(pairs.astype(np.int64), axis=1), axis=0)
