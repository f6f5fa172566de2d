"""Points scattered over a region of the plane, denser where it matters, and their Delaunay triangles."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay, KDTree

__all__ = ["delaunay_cells", "scatter"]

Array = NDArray[np.floating[Any]]
Distance = Callable[[Array], Array]
"""Points [N, 2] -> their distances from the walls [N], positive in the region and negative outside."""

_CLEAR = 0.7
"""Of its spacing, how far a point stays from those that are fixed."""

_CANDIDATES = 8
"""As many random places a point, as the densest spacing has them; fewer leave gaps."""


def scatter(
    distance: Distance,
    lower: tuple[float, float],
    upper: tuple[float, float],
    spacing: Callable[[Array], Array],
    seed: int | tuple[int, ...],
    fixed: Array | None = None,
) -> Array:
    """Random points of a region within a box, none nearer to another than its spacing: [N, 2], `fixed` ones first.

    - `distance`: the region. `spacing(distances [N]) -> [N]`: the least distance of a point from those before it, by
      its distance from the walls; a smooth function of it that does not grow faster than the distance does.
    - `fixed` [F, 2]: points that are there already, on the walls say.

    Places are drawn evenly and taken in turn unless too near to one that was taken (random sequential addition, which
    fills about 0.7 points a square of the spacing). Raises ValueError for spacings that are not positive.
    """
    rng = np.random.default_rng(seed)
    sides = np.subtract(upper, lower)
    finest = float(spacing(np.zeros(1))[0])
    if not finest > 0.0:
        raise ValueError(f"the spacing at the walls is {finest}; it must be positive")
    count = math.ceil(_CANDIDATES * float(sides.prod()) / finest**2)
    places = rng.random((count, 2)) * sides + lower
    away = distance(places)
    places, away = places[away > 0.0], away[away > 0.0]
    radii = spacing(away)
    # Sparse places would rarely be free once the dense ones stand: each has the chance that its spacing needs.
    chosen = rng.random(len(places)) < (finest / radii) ** 2
    places, radii = places[chosen], radii[chosen]
    free = np.ones(len(places), dtype=bool)
    if fixed is not None and len(fixed):
        free = KDTree(fixed).query(places)[0] > _CLEAR * radii
    tree = KDTree(places)
    taken = []
    for number in range(len(places)):
        if free[number]:
            taken.append(number)
            free[tree.query_ball_point(places[number], radii[number])] = False
    found = places[taken]
    return found if fixed is None else np.concatenate((fixed, found))


def delaunay_cells(points: Array, distance: Distance) -> NDArray[np.int64]:
    """Delaunay triangles [M, 3] of points [N, 2] whose middles lie in the region; without those of no area."""
    cells = Delaunay(points).simplices.astype(np.int64)
    corners = points[cells]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    areas = 0.5 * (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
    longest = np.square([first, second, second - first]).sum(-1).max(0)
    middles = corners.mean(1)
    kept = (distance(middles) > 0.0) & (np.abs(areas) > 1e-3 * longest)
    cells = cells[kept]
    # Counter-clockwise, as meshes here are.
    turned = areas[kept] < 0.0
    cells[turned] = cells[turned][:, [0, 2, 1]]
    return cells
