"""Polygons, and regions of space over a span of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor

from sciode.pde.domains import Ball, Boundary, Box, Domain, Implicit

__all__ = ["Polygon", "Slab", "boxed"]

_EDGE = 1e-12
"""A point so near to an edge, as a share of the polygon's diameter, counts as inside."""


@final
@dataclass(frozen=True)
class Polygon(Domain):
    """The inside of a closed line through vertices, `Polygon(((0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)))`: an L.

    vertices: at least three points of the plane, one after the other either way around, the last joined to the first.

    It is filled through a triangulation by ear clipping, so volumes are exact. Raises ValueError for fewer vertices, no
    area, or a line that crosses or touches itself.
    """

    vertices: tuple[tuple[float, float], ...]

    def __init__(self, vertices: Sequence[Sequence[float]]) -> None:
        corners = tuple((float(x), float(y)) for x, y in vertices)
        if len(corners) < 3 or not all(math.isfinite(v) for corner in corners for v in corner):
            raise ValueError(f"vertices must be at least three finite points of the plane, got {corners}")
        if _signed_area(corners) < 0:
            corners = corners[::-1]
        object.__setattr__(self, "vertices", corners)
        if _crosses(corners):
            raise ValueError("the polygon's line crosses or touches itself: give its corners one after the other")
        if _signed_area(corners) == 0:
            raise ValueError("the polygon has no area: its corners lie on one line")

    @property
    def dimension(self) -> int:
        """2."""
        return 2

    @property
    def volume(self) -> float:
        """The area."""
        return _signed_area(self.vertices)

    @property
    def perimeter(self) -> float:
        """The length of the boundary."""
        return float(self._lengths.sum())

    @property
    def hull(self) -> Box:
        """The box around the vertices."""
        xs, ys = zip(*self.vertices, strict=True)
        return Box((min(xs), min(ys)), (max(xs), max(ys)))

    @cached_property
    def triangles(self) -> np.ndarray:
        """Triangles that make up the polygon, float64 [vertices - 2, 3, 2]."""
        return _clipped(self.vertices)

    def from_unit(self, unit: Tensor) -> Tensor:
        """Map the unit square, [N, 2] -> [N, 2]: its first axis chooses the triangle, and goes on inside it."""
        triangles = torch.from_numpy(self.triangles).to(unit)
        first, second = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
        areas = 0.5 * (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
        ends = areas.cumsum(0) / areas.sum()
        which = torch.searchsorted(ends, unit[:, 0].contiguous(), right=True).clamp(max=len(areas) - 1)
        begin = torch.where(which > 0, ends[(which - 1).clamp(min=0)], 0.0)
        inner = ((unit[:, 0] - begin) / (ends[which] - begin)).clamp(0, 1)
        # Area grows as the square of the distance from a corner.
        root = inner.sqrt().unsqueeze(1)
        across = unit[:, 1:]
        return triangles[which, 0] + root * ((1 - across) * first[which] + across * second[which])

    def contains(self, x: Tensor) -> Tensor:
        """Return which points are inside or, to rounding, on the boundary, [..., 2] -> bool [...]."""
        return self.level(x)[..., 0] <= _EDGE * math.hypot(*self.hull.lengths)

    def level(self, x: Tensor) -> Tensor:
        """Return the signed distance, [..., 2] -> [..., 1]."""
        begin, along = self._edges(x)
        off = x.unsqueeze(-2) - begin
        share = ((off * along).sum(-1) / along.square().sum(-1)).clamp(0, 1)
        squared = (off - share.unsqueeze(-1) * along).square().sum(-1).amin(-1, keepdim=True)
        # The root's infinite slope at zero is kept away from gradients.
        distance = torch.where(squared > 0, torch.where(squared > 0, squared, 1.0).sqrt(), 0.0)
        end = begin + along
        between = (begin[..., 1] > x[..., None, 1]) != (end[..., 1] > x[..., None, 1])
        height = torch.where(along[..., 1] != 0, along[..., 1], 1.0)
        left = x[..., None, 0] < begin[..., 0] + along[..., 0] * (x[..., None, 1] - begin[..., 1]) / height
        inside = (between & left).sum(-1, keepdim=True) % 2 == 1
        return torch.where(inside, -distance, distance)

    def _edges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        begin = x.new_tensor(self.vertices)
        return begin, begin.roll(-1, 0) - begin

    @property
    def _lengths(self) -> np.ndarray:
        corners = np.array(self.vertices)
        return np.linalg.norm(np.roll(corners, -1, 0) - corners, axis=1)

    def _boundary(self, n: int, generator: np.random.Generator) -> Boundary:
        corners, lengths = np.array(self.vertices), self._lengths
        along = np.roll(corners, -1, 0) - corners
        places = (np.arange(n) + generator.random()) / n * lengths.sum()
        edges = np.searchsorted(lengths.cumsum()[:-1], places, side="right")
        share = (places - np.concatenate(([0.0], lengths.cumsum()[:-1]))[edges]) / lengths[edges]
        points = corners[edges] + share[:, None] * along[edges]
        normals = np.stack((along[:, 1], -along[:, 0]), 1)[edges] / lengths[edges, None]
        return Boundary(torch.from_numpy(points), torch.from_numpy(normals))


@final
@dataclass(frozen=True)
class Slab(Domain):
    """Points (x, t) with x in a region of space and begin <= t <= end: the last axis is time.

    space: a domain of one or two axes. Raises ValueError for another, or an end before the beginning.
    """

    space: Domain
    begin: float
    end: float

    def __post_init__(self) -> None:
        if self.space.dimension > 2:
            raise ValueError(f"space may have one or two axes beside time, got {self.space.dimension}")
        if not -math.inf < self.begin < self.end < math.inf:
            raise ValueError(f"begin must be before end, got {self.begin} and {self.end}")

    @property
    def dimension(self) -> int:
        """Those of space and one."""
        return self.space.dimension + 1

    @property
    def volume(self) -> float:
        """That of space times the duration."""
        return self.space.volume * (self.end - self.begin)

    @property
    def hull(self) -> Box:
        """The box around it."""
        return Box((*self.space.hull.low, self.begin), (*self.space.hull.high, self.end))

    @property
    def share(self) -> float:
        """That of space."""
        return self.space.share

    def from_unit(self, unit: Tensor) -> Tensor:
        """Map the unit cube, [N, d] -> [N, d], its last axis to time."""
        times = self.begin + (self.end - self.begin) * unit[:, -1:]
        return torch.cat((self.space.from_unit(unit[:, :-1]), times), -1)

    def contains(self, x: Tensor) -> Tensor:
        """Return which points are inside or on the boundary, [..., d] -> bool [...]."""
        return self.space.contains(x[..., :-1]) & (x[..., -1] >= self.begin) & (x[..., -1] <= self.end)

    def level(self, x: Tensor) -> Tensor:
        """Return the larger of space's level and of time's, [..., d] -> [..., 1]."""
        time = x[..., -1:]
        return torch.maximum(self.space.level(x[..., :-1]), torch.maximum(self.begin - time, time - self.end))

    def at(self, side: int, n: int, seed: int) -> Boundary:
        """Return n points at the first time (side -1) or the last (1), float64, and normals along time."""
        if side not in (-1, 1):
            raise ValueError(f"side must be -1 or 1, got {side}")
        places = self.space.sample(n, seed, dtype=torch.float64)
        time = torch.full((n, 1), self.begin if side < 0 else self.end, dtype=torch.float64)
        normals = torch.cat((torch.zeros_like(places), torch.full_like(time, side)), 1)
        return Boundary(torch.cat((places, time), 1), normals)

    def walls(self, n: int, seed: int) -> Boundary:
        """Return n points on space's boundary at independent times, float64, and space's normals."""
        edge = self.space.boundary(n, seed, dtype=torch.float64)
        drawn = np.random.default_rng([seed, 1]).permutation((np.arange(n) + 0.5) / n)
        time = self.begin + (self.end - self.begin) * torch.from_numpy(drawn)[:, None]
        return Boundary(torch.cat((edge.points, time), 1), torch.cat((edge.normals, torch.zeros_like(time)), 1))

    def _boundary(self, n: int, generator: np.random.Generator) -> Boundary:
        sides = _surface(self.space) * (self.end - self.begin)
        areas = np.array([self.space.volume, self.space.volume, sides])
        ends = np.round(np.cumsum(areas) / areas.sum() * n).astype(int)
        counts = np.diff(np.concatenate(([0], ends)))
        seeds = generator.integers(0, 2**31, 3)
        makers = (lambda m, s: self.at(-1, m, s), lambda m, s: self.at(1, m, s), self.walls)
        parts = [make(int(m), int(s)) for make, m, s in zip(makers, counts, seeds, strict=True) if m]
        return Boundary(*(torch.cat(part) for part in zip(*parts, strict=True)))


def boxed(domain: Domain) -> Domain:
    """Return a slab over a box as the box that it is, and any other domain as it is."""
    return domain.hull if isinstance(domain, Slab) and isinstance(domain.space, Box) else domain


def _surface(space: Domain) -> float:
    """The measure of a region's boundary: 2 for an interval's ends."""
    if space.dimension == 1:
        return 2.0
    if isinstance(space, Polygon | Implicit):
        return space.perimeter
    if isinstance(space, Box):
        return 2 * sum(space.lengths)
    if isinstance(space, Ball):
        return 2 * math.pi * space.radius
    raise ValueError(f"{type(space).__name__} does not know its perimeter: draw from walls() and at() one by one")


def _signed_area(corners: Sequence[tuple[float, float]]) -> float:
    """Positive for corners against the clock."""
    pairs = zip(corners, (*corners[1:], corners[0]), strict=True)
    return 0.5 * sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs)


def _turn(a: Sequence[float], b: Sequence[float], c: Sequence[float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _crosses(corners: Sequence[tuple[float, float]]) -> bool:
    """Whether two edges that are no neighbours have a point in common."""
    count = len(corners)
    edges = [(corners[i], corners[(i + 1) % count]) for i in range(count)]
    for i in range(count):
        for j in range(i + 2, count - (i == 0)):
            (a, b), (c, d) = edges[i], edges[j]
            if _turn(a, b, c) * _turn(a, b, d) <= 0 and _turn(c, d, a) * _turn(c, d, b) <= 0 and _overlap(a, b, c, d):
                return True
    return False


def _overlap(a: Sequence[float], b: Sequence[float], c: Sequence[float], d: Sequence[float]) -> bool:
    """Whether the boxes around two edges meet."""
    return all(max(min(a[i], b[i]), min(c[i], d[i])) <= min(max(a[i], b[i]), max(c[i], d[i])) for i in (0, 1))


def _clipped(corners: Sequence[tuple[float, float]]) -> np.ndarray:
    """Cut off corners that stick out and hold no other, one after the other."""
    left, found = list(corners), []
    while len(left) > 3:
        for i in range(len(left)):
            a, b, c = left[i - 1], left[i], left[(i + 1) % len(left)]
            others = [p for p in left if p not in (a, b, c)]
            holds = any(min(_turn(a, b, p), _turn(b, c, p), _turn(c, a, p)) >= 0 for p in others)
            if _turn(a, b, c) > 0 and not holds:
                found.append((a, b, c))
                del left[i]
                break
        else:
            # Corners on a straight line are left over: they hold no area.
            straight = min(range(len(left)), key=lambda i: abs(_turn(left[i - 1], left[i], left[(i + 1) % len(left)])))
            del left[straight]
    found.append(tuple(left))
    return np.array(found, dtype=float)
