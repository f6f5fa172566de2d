"""Where two regions touch, without probing for it: patches of boxes and polygons, of these over spans of time, and a
region at the time when one span ends and another begins.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import final

import numpy as np
import torch

from sciode.pde import Boundary, Box, Domain, Polygon, Slab
from sciode.pde.regions import boxed

__all__ = ["Contact", "Moment", "Patch", "contacts", "drawn"]

_LOOKED = 4096


class Contact(ABC):
    """A part of two boundaries."""

    @property
    @abstractmethod
    def measure(self) -> float:
        """Length or area; 1 of a point."""

    @abstractmethod
    def draw(self, n: int, generator: np.random.Generator) -> Boundary:
        """n points, uniform, in float64, and normals."""


@final
@dataclass(frozen=True)
class Patch(Contact):
    """The flat piece {origin + sum_i s_i edge_i, 0 <= s_i <= 1} with edges [d - 1, d] and a unit normal."""

    origin: np.ndarray
    edges: np.ndarray
    normal: np.ndarray

    @property
    def measure(self) -> float:
        """See `Contact.measure`."""
        return math.sqrt(float(np.linalg.det(self.edges @ self.edges.T))) if len(self.edges) else 1.0

    def draw(self, n: int, generator: np.random.Generator) -> Boundary:
        """See `Contact.draw`."""
        points = self.origin + generator.random((n, len(self.edges))) @ self.edges
        return Boundary(torch.from_numpy(points), torch.from_numpy(np.tile(self.normal, (n, 1))))


@final
@dataclass(frozen=True)
class Moment(Contact):
    """What two regions of space have in common, at a time; side: of the first region's end (1) or beginning (-1)."""

    space: Domain
    other: Domain
    time: float
    side: int

    @cached_property
    def share(self) -> float:
        """How much of the space is in the other one, an estimate."""
        if self.space == self.other:
            return 1.0
        return float(self.other.contains(self.space.sample(_LOOKED, 0, dtype=torch.float64)).double().mean())

    @property
    def measure(self) -> float:
        """See `Contact.measure`."""
        return self.space.volume * self.share

    def draw(self, n: int, generator: np.random.Generator) -> Boundary:
        """See `Contact.draw`."""
        found = torch.empty(0, self.space.dimension, dtype=torch.float64)
        while len(found) < n:
            many = math.ceil(1.2 * (n - len(found)) / self.share) + 4
            points = self.space.sample(many, int(generator.integers(2**31)), dtype=torch.float64)
            kept = slice(None) if self.space == self.other else self.other.contains(points)
            found = torch.cat((found, points[kept]))
        time = torch.full((n, 1), self.time, dtype=torch.float64)
        normals = torch.cat((torch.zeros_like(found[:n]), torch.full_like(time, self.side)), 1)
        return Boundary(torch.cat((found[:n], time), 1), normals)


def drawn(found: Sequence[Contact], n: int, seed: int) -> Boundary:
    """Return n points, uniform on all contacts together, and normals."""
    generator = np.random.default_rng(seed)
    ends = np.cumsum([one.measure for one in found])
    # One draw shifts a regular comb over the contacts laid end to end.
    comb = (np.arange(n) + generator.random()) / n * ends[-1]
    counts = np.bincount(np.searchsorted(ends[:-1], comb, side="right"), minlength=len(found))
    parts = [one.draw(int(count), generator) for one, count in zip(found, counts, strict=True) if count]
    return Boundary(*(torch.cat(part) for part in zip(*parts, strict=True)))


def contacts(a: Domain, b: Domain, slack: float) -> list[Contact] | None:
    """Return where the boundaries of two regions lie on one another, normals from a to b; None where that is not known.

    slack: a distance that is none, and a length below which a contact is a corner.
    """
    a, b = boxed(a), boxed(b)
    if isinstance(a, Box) and isinstance(b, Box):
        return _of_boxes(a, b, slack)
    if isinstance(a, Box | Polygon) and isinstance(b, Box | Polygon):
        return _of_outlines(_outline(a), _outline(b), slack)
    if isinstance(a, Box | Slab) and isinstance(b, Box | Slab):
        return _of_slabs(_slab(a), _slab(b), slack)
    return None


def _slab(domain: Box | Slab) -> Slab:
    """A box as a slab."""
    if isinstance(domain, Slab):
        return domain
    return Slab(Box(domain.low[:-1], domain.high[:-1]), domain.low[-1], domain.high[-1])


def _of_boxes(a: Box, b: Box, slack: float) -> list[Contact]:
    """Faces of boxes: on one axis the end of one is the beginning of the other, on all others they overlap."""
    low = [max(one, other) for one, other in zip(a.low, b.low, strict=True)]
    high = [min(one, other) for one, other in zip(a.high, b.high, strict=True)]
    found: list[Contact] = []
    for axis, side in product(range(a.dimension), (-1, 1)):
        mine, other = (a.high, b.low) if side > 0 else (a.low, b.high)
        across = [k for k in range(a.dimension) if k != axis]
        if abs(mine[axis] - other[axis]) > slack or any(high[k] - low[k] <= slack for k in across):
            continue
        origin, normal = np.array(low), np.zeros(a.dimension)
        origin[axis], normal[axis] = mine[axis], side
        edges = np.zeros((len(across), a.dimension))
        for row, k in enumerate(across):
            edges[row, k] = high[k] - low[k]
        found.append(Patch(origin, edges, normal))
    return found


def _outline(domain: Box | Polygon) -> np.ndarray:
    """Corners against the clock [n, 2]."""
    if isinstance(domain, Polygon):
        return np.array(domain.vertices)
    (x0, y0), (x1, y1) = domain.low, domain.high
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _of_outlines(a: np.ndarray, b: np.ndarray, slack: float) -> list[Contact]:
    """Parts of edges that lie on one another, run through in opposite directions."""
    found: list[Contact] = []
    for (begin, end), (first, last) in product(_edges(a), _edges(b)):
        length = float(np.linalg.norm(end - begin))
        along = (end - begin) / length
        normal = np.array([along[1], -along[0]])
        if (last - first) @ along >= 0 or max(abs((first - begin) @ normal), abs((last - begin) @ normal)) > slack:
            continue
        low, high = max(0.0, (last - begin) @ along), min(length, (first - begin) @ along)
        if high - low > slack:
            found.append(Patch(begin + low * along, (high - low) * along[None], normal))
    return found


def _edges(corners: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(corners, np.roll(corners, -1, 0), strict=True))


def _of_slabs(a: Slab, b: Slab, slack: float) -> list[Contact] | None:
    """What walls have in common while both last, or spaces when one span ends and the other begins."""
    low, high = max(a.begin, b.begin), min(a.end, b.end)
    if abs(high - low) <= slack:
        first, second = sorted((a.space, b.space), key=lambda space: space.volume)
        moment = Moment(first, second, low, 1 if a.begin < b.begin else -1)
        return [moment] if moment.share > 0 else []
    space = contacts(a.space, b.space, slack) if low < high else []
    if space is None:
        return None
    time = np.eye(a.dimension)[-1]
    found: list[Contact] = []
    for one in space:
        assert isinstance(one, Patch)
        edges = np.vstack((np.pad(one.edges, ((0, 0), (0, 1))), (high - low) * time))
        found.append(Patch(np.append(one.origin, low), edges, np.append(one.normal, 0.0)))
    return found
