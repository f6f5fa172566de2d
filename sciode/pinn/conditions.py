"""What is known of a solution, as data: on faces, on boundaries, at points; of the first, second and third kind."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from sciode.pde import Boundary, Box, Domain, Slab
from sciode.pde.regions import boxed
from sciode.pinn.derivatives import Derivatives, Names, asked_of, probed
from sciode.pinn.taylor import Orders
from sciode.training import derive_seed

__all__ = [
    "Condition",
    "Edge",
    "Face",
    "Given",
    "Periodic",
    "Walls",
    "Where",
    "dirichlet",
    "neumann",
    "observed",
    "robin",
]

Function = Callable[[Tensor], Tensor]
_ORDER, _HIGH = 11, 12
_ROUNDS, _MOST = 12, 2**16


class Where(ABC):
    """A set on which something is known, from which points and outward normals are drawn."""

    @abstractmethod
    def draw(self, names: Names, domain: Domain, n: int, seed: int) -> Boundary:
        """n points in float64 and normals, each [n, d]."""


@final
@dataclass(frozen=True)
class Face(Where):
    """The face of a box on which a coordinate is least (side -1), greatest (1), or both (0): `Face("t", -1)`."""

    coordinate: str
    side: int = 0

    def draw(self, names: Names, domain: Domain, n: int, seed: int) -> Boundary:
        """See `Where`; of both faces, half the points each, independent of one another."""
        if self.coordinate not in names.coordinates:
            raise ValueError(f"there is no face {self.coordinate!r}: name one of {', '.join(names.coordinates)}")
        axis = names.coordinates.index(self.coordinate)
        if isinstance(domain, Slab) and axis == domain.dimension - 1 and self.side:
            return domain.at(self.side, n, seed)
        domain = boxed(domain)
        if not isinstance(domain, Box):
            raise ValueError(f"{type(domain).__name__} has no such face: take Walls() or Edge(part=...)")
        if self.side:
            return domain.face(axis, self.side, n, seed, dtype=torch.float64)
        low, high = (
            domain.face(axis, side, (n + 1) // 2, own, dtype=torch.float64)
            for side, own in ((-1, seed), (1, derive_seed(seed, _HIGH) % 2**31))
        )
        # Alternately, so that any first part of them lies on both.
        return Boundary(*(torch.stack(pair, 1).flatten(0, 1)[:n] for pair in zip(low, high, strict=True)))


@final
@dataclass(frozen=True)
class Walls(Where):
    """The boundary of space at all times of a `Slab`; of any other domain, its whole boundary."""

    def draw(self, names: Names, domain: Domain, n: int, seed: int) -> Boundary:
        """See `Where`."""
        if isinstance(domain, Slab):
            return domain.walls(n, seed)
        return domain.boundary(n, seed, dtype=torch.float64)


@final
@dataclass(frozen=True)
class Edge(Where):
    """The boundary of any domain, or the part of it where `part`, x [..., d] -> bool [...], is true."""

    part: Callable[[Tensor], Tensor] | None = None

    def draw(self, names: Names, domain: Domain, n: int, seed: int) -> Boundary:
        """See `Where`. ValueError where the part seems to be empty."""
        points: list[Boundary] = []
        many, tried, count = 2 * n + 16, 0, 0
        for attempt in range(_ROUNDS):
            found = domain.boundary(many, seed + 7919 * attempt, dtype=torch.float64)
            kept = slice(None) if self.part is None else self.part(found.points)
            points.append(Boundary(found.points[kept], found.normals[kept]))
            tried, count = tried + many, count + len(points[-1].points)
            if count >= n:
                return shuffled(Boundary(*(torch.cat(parts) for parts in zip(*points, strict=True))), n, seed)
            # As many more as the share of the boundary that is in the part asks for.
            many = min(math.ceil(1.3 * (n - count) * tried / max(count, 1)) + 16, _MOST)
        raise ValueError(
            f"Edge: {count} of {tried} points of the boundary lie in this part, and {n} are asked for: is it empty? "
            "(It is asked of points on the boundary to rounding: compare with a little slack, as in x[..., 0] < 1e-6)"
        )


@final
@dataclass(frozen=True, eq=False)
class Given(Where):
    """Points [n, d] that are all used, whatever number is asked for."""

    points: Tensor

    def draw(self, names: Names, domain: Domain, n: int, seed: int) -> Boundary:
        """See `Where`; normals are 0."""
        points = self.points.to("cpu", torch.float64)
        if points.ndim != 2 or points.shape[1] != names.axes or not len(points):
            raise ValueError(f"given points must be [n, {names.axes}], got {tuple(points.shape)}")
        if not bool(domain.contains(points).all()):
            raise ValueError("some of the given points are outside the domain")
        return Boundary(points, torch.zeros_like(points))


@final
@dataclass(frozen=True, eq=False)
class Condition:
    """residual(d, p, g) = 0 on a set; g are the known numbers there, value(x) [..., v], with which points are drawn.

    Made by `dirichlet`, `neumann`, `robin` or `observed`, or written out for anything else. fixes: the field whose
    value alone is told, if that is what the condition does.
    """

    name: str
    where: Where
    residual: Callable[[Derivatives, Any, Tensor], Any]
    value: Function
    fixes: str | None = None

    def orders(self, names: Names, probe: Tensor, parameters: SimpleNamespace) -> frozenset[Orders]:
        """What it reads."""
        return asked_of(names, probe, parameters, lambda d, p: self.residual(d, p, self.value(d.points)))

    def check(self, names: Names, domain: Domain, probe: Tensor, parameters: SimpleNamespace) -> None:
        """Raise ValueError for a set or values that do not fit."""
        if not isinstance(self.where, Where):
            raise ValueError(f'{self.name}: {self.where!r} is no set: give Face("x", -1), Edge(...), Walls(), ...')
        points = self.where.draw(names, domain, len(probe[0, 0]), 0).points
        values = self.value(points)
        if not isinstance(values, Tensor) or values.ndim != 2 or len(values) != len(points):
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"{self.name}: value must map points [n, {names.axes}] to [n, v], as lambda x: x[..., :1] does, or be "
                f"a number; got {got}"
            )
        if not bool(values.isfinite().all()):
            raise ValueError(f"{self.name}: value is not finite on its set")
        if isinstance(self.where, Given):
            probe = probed(points)
        self.orders(names, probe, parameters)


@final
@dataclass(frozen=True)
class Periodic:
    """u and its derivatives across, up to an order, are equal on the two faces of a box where a coordinate ends."""

    coordinate: str
    order: int = 1
    name: str = "periodic"

    def draw(self, names: Names, domain: Domain, n: int, seed: int) -> tuple[Boundary, Boundary]:
        """Points that belong to one another, low and high."""
        domain = boxed(domain)
        if not isinstance(domain, Box):
            raise ValueError(f"{self.name}: periodic conditions need a Box, which {type(domain).__name__} is not")
        low = Face(self.coordinate, -1).draw(names, domain, n, seed)
        axis = names.coordinates.index(self.coordinate)
        high = low.points.clone()
        high[:, axis] = domain.high[axis]
        return low, Boundary(high, -low.normals)

    def orders(self, names: Names, probe: Tensor, parameters: SimpleNamespace) -> frozenset[Orders]:
        """What it reads."""
        axis = names.coordinates.index(self.coordinate)
        return frozenset(tuple(k * (i == axis) for i in range(names.axes)) for k in range(self.order + 1))

    def check(self, names: Names, domain: Domain, probe: Tensor, parameters: SimpleNamespace) -> None:
        """Raise ValueError for a face that does not exist or a negative order."""
        if self.order < 0:
            raise ValueError(f"{self.name}: order must be >= 0, got {self.order}")
        self.draw(names, domain, 4, 0)


def shuffled(found: Boundary, n: int, seed: int) -> Boundary:
    """Return n of these points at random: domains give theirs face after face, and the first n would be one face's."""
    order = torch.from_numpy(np.random.default_rng([seed, _ORDER]).permutation(len(found.points)))[:n]
    return Boundary(found.points[order], found.normals[order])


def dirichlet(where: Where, value: Function | float, field: str = "u", name: str = "") -> Condition:
    """Return u = value on a set: the first kind; at the first time, initial values.

    value, here and in other kinds: points [..., d] -> [..., 1], or a number.
    """
    return Condition(
        name or f"{field} on {where}", where, lambda d, p, g: getattr(d, field) - g[..., 0], _function(value), field
    )


def neumann(where: Where, value: Function | float, field: str = "u", name: str = "") -> Condition:
    """Return du/dn = value with the outward normal n: the second kind."""
    return Condition(
        name or f"slope of {field} on {where}", where, lambda d, p, g: d.normal(field) - g[..., 0], _function(value)
    )


def robin(where: Where, a: float, b: float, value: Function | float, field: str = "u", name: str = "") -> Condition:
    """Return a u + b du/dn = value: the third kind."""

    def residual(d: Derivatives, p: Any, g: Tensor) -> Tensor:
        return a * getattr(d, field) + b * d.normal(field) - g[..., 0]

    return Condition(name or f"mixed of {field} on {where}", where, residual, _function(value))


def _function(value: Function | float) -> Function:
    """A number as the function that is that everywhere."""
    return value if callable(value) else lambda x: torch.full_like(x[..., :1], float(value))


def observed(points: Tensor, values: Tensor, field: str = "u", name: str = "") -> Condition:
    """Return u = values [n] at points [n, d]: measurements, for inverse problems, tensors or arrays.

    Places may be measured more than once. ValueError for other shapes.
    """
    points, values = torch.as_tensor(points), torch.as_tensor(values)
    if values.shape != points.shape[:1]:
        raise ValueError(f"values must be [{len(points)}], one a point, got {tuple(values.shape)}")
    # Of a place that was measured more than once the mean is told, as often: least squares ask for no more.
    places, row, count = points.double().cpu().unique(dim=0, return_inverse=True, return_counts=True)
    known = torch.zeros(len(places), dtype=torch.float64).index_add(0, row, values.double().cpu()) / count

    def value(x: Tensor) -> Tensor:
        # Points come as they were given, in any order and part: each finds its own.
        own = x.reshape(-1, x.shape[-1]).double().cpu()
        nearest = torch.cdist(own, places, compute_mode="donot_use_mm_for_euclid_dist").argmin(-1)
        return known[nearest].reshape(*x.shape[:-1], 1).to(x)

    said = name or f"{field} observed"
    return Condition(said, Given(points), lambda d, p, g: getattr(d, field) - g[..., 0], value)
