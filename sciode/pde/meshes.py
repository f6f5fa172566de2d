"""Meshes of simplices for regions given by an implicit surface: a lattice, snapped and cut where the sign changes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from math import factorial
from typing import final

import torch
from torch import Tensor

from sciode.pde.domains import Box, Implicit

__all__ = ["Mesh", "Shape", "lattice_mesh"]

SNAP = 0.2
"""Lattice points nearer to the surface than this share of an edge move onto it; more could turn a cell over."""

BISECTIONS = 48


@final
@dataclass(frozen=True)
class Mesh:
    """Simplices of d + 1 points in d = 2 or 3 dimensions, all of positive volume.

    points: [N, d] float64; cells: [M, d + 1] int64. Raises ValueError for wrong shapes or a cell without positive
    volume (swap two of its points).
    """

    points: Tensor
    cells: Tensor

    def __post_init__(self) -> None:
        d = self.points.shape[-1]
        if self.points.ndim != 2 or d not in (2, 3) or self.cells.ndim != 2 or self.cells.shape[1] != d + 1:
            raise ValueError(
                f"expected points [N, d] and cells [M, d + 1] with d 2 or 3, got {list(self.points.shape)} and "
                f"{list(self.cells.shape)}"
            )
        if not len(self.cells) or not bool((self.volumes() > 0).all()):
            raise ValueError("every cell needs a positive volume, and a mesh at least one cell")

    @property
    def dimension(self) -> int:
        """d."""
        return self.points.shape[1]

    def volumes(self) -> Tensor:
        """Return the volume (area) of each cell, [M]."""
        return _signed_volumes(self.points[self.cells])

    def volume(self) -> float:
        """Return the volume (area) of the whole."""
        return float(self.volumes().sum())

    def quality(self) -> Tensor:
        """Return d r / R of each cell, [M]: inscribed radius over circumscribed; 1 if regular, near 0 for slivers."""
        corners = self.points[self.cells]
        d = self.dimension
        opposite = [corners[:, [j for j in range(d + 1) if j != i]] for i in range(d + 1)]
        surface = torch.stack([_areas(face) for face in opposite]).sum(0)
        edges = corners[:, 1:] - corners[:, :1]
        centre = torch.linalg.solve(2 * edges, edges.square().sum(-1))
        return d * (d * self.volumes() / surface) / centre.norm(dim=-1)

    def faces(self) -> tuple[Tensor, Tensor]:
        """Return (faces [K, d] by their sorted points, how many cells each belongs to [K])."""
        faces = _outward(self.cells).flatten(0, 1).sort(-1).values
        return torch.unique(faces, dim=0, return_counts=True)

    def boundary(self) -> Tensor:
        """Return the faces that belong to one cell, [K, d], their points ordered so that `normals` point outwards."""
        faces = _outward(self.cells).flatten(0, 1)
        _, which, counts = torch.unique(faces.sort(-1).values, dim=0, return_inverse=True, return_counts=True)
        return faces[counts[which] == 1]

    def normals(self) -> Tensor:
        """Return the outward unit normal of each face of `boundary`, [K, d]."""
        normals = _normals(self.points[self.boundary()])
        return normals / normals.norm(dim=-1, keepdim=True)

    def sample(self, n: int, seed: int) -> Tensor:
        """Return n independent points, uniform in the region of the cells, [n, d] float64."""
        generator = torch.Generator(device="cpu").manual_seed(seed)
        ends = self.volumes().cpu().cumsum(0)
        heights = torch.rand(n, generator=generator, dtype=torch.float64) * ends[-1]
        chosen = torch.searchsorted(ends, heights, right=True).clamp(max=len(ends) - 1)
        # Exponential variables over their sum are uniform in a simplex.
        weights = -torch.log1p(-torch.rand(n, self.dimension + 1, generator=generator, dtype=torch.float64))
        weights = (weights / weights.sum(-1, keepdim=True)).to(self.points.device)
        return (weights.unsqueeze(-1) * self.points[self.cells[chosen.to(self.cells.device)]]).sum(1)


@final
@dataclass(frozen=True)
class Shape:
    """A region as data: all x in the box from `lower` to `upper` with level(x) < 0.

    level: maps points [N, d] to [N], continuous, negative inside. volume: the exact one where it is known.
    """

    level: Callable[[Tensor], Tensor]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    volume: float | None = None

    def mesh(self, resolution: int) -> Mesh:
        """Return `lattice_mesh` of the region."""
        return lattice_mesh(self.level, self.lower, self.upper, resolution)

    def domain(self) -> Implicit:
        """Return the region as a domain to draw points of; a `Box` or `Ball` has exact ones of its own."""
        return Implicit(lambda x: self.level(x.unsqueeze(0)), Box(self.lower, self.upper))


def lattice_mesh(
    level: Callable[[Tensor], Tensor], lower: tuple[float, ...], upper: tuple[float, ...], resolution: int
) -> Mesh:
    """Return a mesh of the region level(x) < 0 inside a box.

    The box is cut into cubes, `resolution` along its first axis and as near to cubes as fits along the others, each
    cube into d! simplices (Kuhn; Freudenthal). A lattice point near to the surface is moved onto it (`SNAP`), and every
    edge that still crosses it is cut there, one edge after another in one order for all cells, the longest first: a
    split of an edge splits all cells around it alike, so that the mesh fits together. Surface points lie on the
    surface to rounding; features thinner than an edge are missed; edges of the region that the lattice does not meet
    (corners of a rotated square) are cut off by about an edge's length.

    level: [N, d] -> [N]. Good resolutions: 8 to 64 in the plane, 6 to 24 in space.
    Raises ValueError if the region leaves the box, or no cell lies in it (a finer lattice or another box mends it).
    Sources: Labelle, Shewchuk: Isosurface stuffing (2007) for the snapping; Kuhn (1960) for the lattice.
    """
    points, cells = _kuhn_lattice(lower, upper, resolution)
    values = _levels(level, points)
    at_box = ((points == points.new_tensor(lower)) | (points == points.new_tensor(upper))).any(-1)
    if bool((values[at_box] < 0).any()):
        raise ValueError("the region leaves the box: widen lower and upper")
    # Cells away from the region play no part; those with all points on the surface are judged at the end.
    at_cells = values[cells]
    cells = cells[(at_cells < 0).any(-1) | (at_cells == 0).all(-1)]
    if not len(cells):
        raise ValueError("no point of the lattice lies in the region: raise resolution, or turn the sign of level")
    points, values = _snap(level, points, values, cells)
    points, cells, values = _cut(level, points, values, cells)
    flat = (values[cells] == 0).all(-1)
    # All points on the surface: inside if the middle is.
    kept = (values[cells] <= 0).all(-1) & (~flat | (_levels(level, points[cells].mean(1)) < 0))
    return _compact(points, cells[kept])


def _levels(level: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """The level of each point, exactly 0 where it is rounding."""
    values = level(points)
    if values.shape != points.shape[:1]:
        raise ValueError(f"level: expected [N] for points [N, d], got {list(values.shape)}")
    return torch.where(values.abs() < 1e-12, 0, values)


def _kuhn_lattice(lower: tuple[float, ...], upper: tuple[float, ...], resolution: int) -> tuple[Tensor, Tensor]:
    if (
        len(lower) not in (2, 3)
        or len(lower) != len(upper)
        or not all(a < b for a, b in zip(lower, upper, strict=True))
    ):
        raise ValueError(f"a box in 2 or 3 dimensions has lower < upper, got {lower} and {upper}")
    if resolution < 1:
        raise ValueError(f"resolution must be at least 1, got {resolution}")
    width = (upper[0] - lower[0]) / resolution
    counts = [max(1, round((b - a) / width)) for a, b in zip(lower, upper, strict=True)]
    axes = [torch.linspace(a, b, n + 1, dtype=torch.float64) for a, b, n in zip(lower, upper, counts, strict=True)]
    points = torch.cartesian_prod(*axes)
    strides = [1]
    for n in reversed(counts[1:]):
        strides.insert(0, strides[0] * (n + 1))
    firsts = torch.cartesian_prod(*(torch.arange(n) for n in counts)) @ torch.tensor(strides)
    simplices = []
    for order in itertools.permutations(range(len(counts))):
        walk = list(itertools.accumulate((strides[axis] for axis in order), initial=0))
        even = sum(a > b for a, b in itertools.combinations(order, 2)) % 2 == 0
        simplices.append(walk if even else [*walk[:-2], walk[-1], walk[-2]])
    return points, (firsts[:, None, None] + torch.tensor(simplices)).flatten(0, 1)


def _edges(cells: Tensor) -> Tensor:
    """All edges [E, 2], each once, the smaller point first."""
    pairs = torch.combinations(torch.arange(cells.shape[1]))
    return torch.unique(cells[:, pairs].flatten(0, 1).sort(-1).values, dim=0)


def _crossing(edges: Tensor, values: Tensor) -> Tensor:
    """The edges whose ends lie on different sides, the inner end first."""
    edges = edges[values[edges].prod(-1) < 0]
    return torch.where(values[edges[:, :1]] < 0, edges, edges.flip(-1))


def _roots(level: Callable[[Tensor], Tensor], inner: Tensor, outer: Tensor) -> Tensor:
    """The share of the way from `inner` to `outer` where the level is 0, by bisection."""
    low, high = inner.new_zeros(len(inner)), inner.new_ones(len(inner))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        inside = level(inner + middle.unsqueeze(-1) * (outer - inner)) < 0
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return (low + high) / 2


def _snap(level: Callable[[Tensor], Tensor], points: Tensor, values: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Move each point whose nearest crossing is within SNAP of an edge onto it."""
    edges = _crossing(_edges(cells), values)
    start, end = points[edges[:, 0]], points[edges[:, 1]]
    share = _roots(level, start, end)
    crossing = start + share.unsqueeze(-1) * (end - start)
    ends = torch.cat((edges[:, 0], edges[:, 1]))
    shares = torch.cat((share, 1 - share))
    near = shares < SNAP
    ends, places = ends[near], torch.cat((crossing, crossing))[near]
    # The nearest crossing is written last.
    order = (places - points[ends]).square().sum(-1).argsort(descending=True, stable=True).tolist()
    last = {int(ends[k]): k for k in order}
    points, values = points.clone(), values.clone()
    moved = torch.tensor(list(last.keys()), dtype=torch.int64)
    points[moved] = places[list(last.values())]
    values[moved] = 0
    return points, values


def _cut(
    level: Callable[[Tensor], Tensor], points: Tensor, values: Tensor, cells: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Split cells at their crossing edges until none is left; returns points, cells, values."""
    edges = _crossing(_edges(cells), values)
    if not len(edges):
        return points, cells, values
    start, end = points[edges[:, 0]], points[edges[:, 1]]
    lengths = (end - start).norm(dim=-1)
    # Rounded, so that equal lengths are equal: among them the order is that of the points' numbers.
    order = (lengths / lengths.max()).mul(1e6).round().argsort(descending=True, stable=True)
    edges, start, end = edges[order], start[order], end[order]
    new = start + _roots(level, start, end).unsqueeze(-1) * (end - start)
    number = len(points)
    points = torch.cat((points, new))
    values = torch.cat((values, values.new_zeros(len(new))))
    keys, rank = (edges.min(-1).values * number + edges.max(-1).values).sort()
    pairs = torch.combinations(torch.arange(cells.shape[1]))
    done: list[Tensor] = []
    while len(cells):
        first, second = cells[:, pairs[:, 0]], cells[:, pairs[:, 1]]
        mixed = values[first] * values[second] < 0
        whole = ~mixed.any(-1)
        done.append(cells[whole])
        cells, mixed, first, second = cells[~whole], mixed[~whole], first[~whole], second[~whole]
        wanted = torch.minimum(first, second) * number + torch.maximum(first, second)
        at = torch.searchsorted(keys, torch.where(mixed, wanted, 0)).clamp(max=len(keys) - 1)
        ranks = torch.where(mixed, rank[at], len(rank))
        chosen = ranks.argmin(-1, keepdim=True)
        middle = number + ranks.gather(-1, chosen)
        halves = [cells.scatter(1, pairs[:, side][chosen], middle) for side in (0, 1)]
        cells = torch.cat(halves)
    return points, torch.cat(done), values


def _compact(points: Tensor, cells: Tensor) -> Mesh:
    used, numbers = torch.unique(cells, return_inverse=True)
    return Mesh(points[used], numbers.reshape(cells.shape))


def _signed_volumes(corners: Tensor) -> Tensor:
    edges = corners[:, 1:] - corners[:, :1]
    return torch.linalg.det(edges) / factorial(edges.shape[-1])


def _outward(cells: Tensor) -> Tensor:
    """The faces of each cell, [M, d + 1, d]: face i leaves out point i, ordered so that its normal points outwards."""
    faces = []
    for i in range(cells.shape[1]):
        others = [j for j in range(cells.shape[1]) if j != i]
        if i % 2:
            others[-1], others[-2] = others[-2], others[-1]
        faces.append(cells[:, others])
    return torch.stack(faces, 1)


def _normals(corners: Tensor) -> Tensor:
    """Normals of faces [K, d, d] that are as long as the face is large (d = 2) or twice that (d = 3)."""
    edges = corners[:, 1:] - corners[:, :1]
    if corners.shape[-1] == 2:
        x, y = edges[:, 0].unbind(-1)
        return torch.stack((y, -x), -1)
    return torch.linalg.cross(edges[:, 0], edges[:, 1])


def _areas(corners: Tensor) -> Tensor:
    return _normals(corners).norm(dim=-1) / factorial(corners.shape[-1] - 1)
