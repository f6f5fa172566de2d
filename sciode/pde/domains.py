"""Where an equation holds: intervals, boxes, balls, and whatever a function is negative on.

A domain is the image of the unit cube under a map that keeps volumes in proportion (`from_unit`), or the part of such
an image on which a function is negative. So every way of filling the unit cube (`sciode.pde.sampling`) fills every
domain. Points are [N, d]. Seeds are integers >= 0, and what is drawn is a function of them alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from typing import NamedTuple, cast, final

import numpy as np
import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

__all__ = ["Ball", "Boundary", "Box", "Domain", "Implicit", "difference", "intersection", "union"]

_VOLUME_POINTS, _VOLUME_SEED = 2**16, 0
# Of an implicit boundary: half the thickness of the shell it is found in, as a share of the bounds' diagonal; how many
# Newton steps lead onto it, and how near, as a share of the diagonal, they have to end.
_SHELL, _NEWTON, _NEAR = 0.02, 20, 1e-9
_ROUNDS = 12


class Boundary(NamedTuple):
    """Points on a boundary [N, d] and the outward unit normals there [N, d]."""

    points: Tensor
    normals: Tensor


class Domain(ABC):
    """A bounded set of R^d with d = 1, 2 or 3.

    `dimension` is d; `volume` its length, area or volume; `hull` a box around it; `share` how much of the unit cube
    `from_unit` sends inside. `level` is a scalar field function, negative inside and zero on the boundary.
    """

    @property
    @abstractmethod
    def dimension(self) -> int:
        """d."""

    @property
    @abstractmethod
    def volume(self) -> float:
        """Length, area or volume."""

    @property
    @abstractmethod
    def hull(self) -> Box:
        """A box that contains the domain."""

    @property
    def share(self) -> float:
        """The share of the unit cube that `from_unit` sends into the domain."""
        return 1.0

    @abstractmethod
    def from_unit(self, unit: Tensor) -> Tensor:
        """Map points of the unit cube, [N, d] -> [N, d], volumes in proportion."""

    @abstractmethod
    def level(self, x: Tensor) -> Tensor:
        """Return a scalar field, [d] -> [1] (or [..., d] -> [..., 1]): negative inside, zero on the boundary."""

    @abstractmethod
    def contains(self, x: Tensor) -> Tensor:
        """Return which points are inside, [..., d] -> bool [...]."""

    @abstractmethod
    def _boundary(self, n: int, generator: np.random.Generator) -> Boundary:
        """n points of the boundary in float64."""

    def sample(
        self, n: int, seed: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return n independent points, uniform in the domain, [n, d]; `sciode.pde.draw` knows other ways.

        dtype: None is torch's default. Points are drawn in float64 on the host, so they are the same on every device.
        """
        points = self.fill(n, partial(_independent, self.dimension, seed))
        return points.to(device=device, dtype=dtype or torch.get_default_dtype())

    def boundary(
        self, n: int, seed: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Boundary:
        """Return n points, uniform on the boundary, and outward unit normals: `Boundary(points, normals)`, each [n, d].

        A box's faces get numbers of points in proportion to their areas, to within one (an interval's ends, half
        each). The boundary of an `Implicit` is found: see there.
        """
        _check_count(n, seed)
        found = self._boundary(n, np.random.default_rng(seed))
        return Boundary(*(part.to(device=device, dtype=dtype or torch.get_default_dtype()) for part in found))

    def fill(self, n: int, cube: Callable[[int], Tensor], choose: Callable[[int], Tensor] | None = None) -> Tensor:
        """Return n points of the domain, float64 [n, d], made from those of the unit cube.

        cube(m) -> [m, d]: m points of the unit cube, or a few more. choose(m) -> int64 [n]: which n of m points to keep
        where there are more; None keeps the first.

        Raises ValueError where the domain seems to be empty.
        """
        wanted = n
        for _ in range(_ROUNDS):
            points = self.from_unit(cube(math.ceil(wanted / max(self.share, 1e-4))))
            inside = points if self.share == 1 else points[self.contains(points)]
            if len(inside) == n:
                return inside
            if len(inside) > n:
                return inside[:n] if choose is None else inside[choose(len(inside))]
            wanted = math.ceil(1.3 * wanted) + 8
        raise ValueError(f"found fewer than {n} points of {self}: is it empty? Give bounds close around it")


@final
@dataclass(frozen=True)
class Box(Domain):
    """The box low_i <= x_i <= high_i, 1-D to 3-D; an interval is `Box(-2.0, 2.0)`.

    Parameters
    ----------
    low, high: a number an axis (a single number in 1-D), low < high.

    Raises ValueError for sides that are not positive, or another number of axes than one to three.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __init__(self, low: float | Sequence[float], high: float | Sequence[float]) -> None:
        object.__setattr__(self, "low", _numbers(low))
        object.__setattr__(self, "high", _numbers(high))
        if len(self.low) != len(self.high) or not 1 <= len(self.low) <= 3:
            raise ValueError(f"low and high need one number an axis, one to three axes, got {self.low} and {self.high}")
        if not all(-math.inf < a < b < math.inf for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low must be below high on every axis, got {self.low} and {self.high}")

    @property
    def dimension(self) -> int:
        """d."""
        return len(self.low)

    @property
    def lengths(self) -> tuple[float, ...]:
        """The sides."""
        return tuple(b - a for a, b in zip(self.low, self.high, strict=True))

    @property
    def volume(self) -> float:
        """The product of the sides."""
        return math.prod(self.lengths)

    @property
    def hull(self) -> Box:
        """The box itself."""
        return self

    def from_unit(self, unit: Tensor) -> Tensor:
        """Stretch the unit cube, [N, d] -> [N, d]."""
        low, sides = unit.new_tensor(self.low), unit.new_tensor(self.lengths)
        # Rounding must not carry a point over the far side.
        return torch.minimum(low + sides * unit, unit.new_tensor(self.high))

    def contains(self, x: Tensor) -> Tensor:
        """Return which points are inside or on the boundary, [..., d] -> bool [...]."""
        return (self._past(x) <= 0).all(-1)

    def level(self, x: Tensor) -> Tensor:
        """Return the signed distance."""
        return self.signed_distance(x)

    def signed_distance(self, x: Tensor) -> Tensor:
        """Return the distance to the boundary, negative inside, [..., d] -> [..., 1].

        Its slope jumps inside, where two faces are equally near; `vanishing` is smooth.
        """
        past = self._past(x)
        squared = past.clamp(min=0).square().sum(-1, keepdim=True)
        # The root's infinite slope at zero is kept away from gradients.
        outside = torch.where(squared > 0, squared, 1.0).sqrt()
        return torch.where(squared > 0, outside, past.amax(-1, keepdim=True))

    def vanishing(self, x: Tensor) -> Tensor:
        """Return prod_i 4 (x_i - low_i)(high_i - x_i) / (high_i - low_i)^2, [..., d] -> [..., 1].

        Smooth, one at the centre, positive inside, exactly zero on the faces: the `distance` of a `HardBoundary`.
        """
        factors = [
            4 * (x[..., i : i + 1] - a) * (b - x[..., i : i + 1]) / (b - a) ** 2
            for i, (a, b) in enumerate(zip(self.low, self.high, strict=True))
        ]
        return reduce(torch.mul, factors)

    def face(
        self,
        axis: int,
        side: int,
        n: int,
        seed: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Boundary:
        """Return n independent points, uniform on the face x_axis = low (side -1) or high (side 1), and its normals.

        Raises ValueError for an axis that the box has not, or another side.
        """
        _check_count(n, seed)
        if not 0 <= axis < self.dimension or side not in (-1, 1):
            raise ValueError(f"face needs an axis of 0 to {self.dimension - 1} and side -1 or 1, got {axis} and {side}")
        faces = np.full(n, 2 * axis + (side > 0))
        found = self._on_faces(faces, np.random.default_rng(seed))
        return Boundary(*(part.to(device=device, dtype=dtype or torch.get_default_dtype()) for part in found))

    def _past(self, x: Tensor) -> Tensor:
        """How far beyond the nearer of its two faces a point lies on each axis, negative between them; [..., d]."""
        _check_points(x, self.dimension)
        # Plain numbers, axis by axis: no tensor is made on a device, so that a CUDA graph can hold this.
        past = [
            torch.maximum(a - x[..., i], x[..., i] - b)
            for i, (a, b) in enumerate(zip(self.low, self.high, strict=True))
        ]
        return torch.stack(past, -1)

    def _boundary(self, n: int, generator: np.random.Generator) -> Boundary:
        areas = np.repeat(self.volume / np.array(self.lengths), 2)
        # Systematic: one draw shifts a regular comb over the faces laid end to end.
        comb = (np.arange(n) + generator.random()) / n
        faces = np.searchsorted(np.cumsum(areas / areas.sum())[:-1], comb, side="right")
        return self._on_faces(faces, generator)

    def _on_faces(self, faces: np.ndarray, generator: np.random.Generator) -> Boundary:
        """A point on each of the faces [N], of which 2 i is low on axis i and 2 i + 1 high."""
        rows, axes, above = np.arange(len(faces)), faces // 2, faces % 2
        ends = np.array([self.low, self.high])
        points = ends[0] + generator.random((len(faces), self.dimension)) * (ends[1] - ends[0])
        points[rows, axes] = ends[above, axes]
        normals = np.zeros_like(points)
        normals[rows, axes] = 2.0 * above - 1
        return Boundary(torch.from_numpy(points), torch.from_numpy(normals))


@final
@dataclass(frozen=True)
class Ball(Domain):
    """The ball |x - centre| <= radius, 1-D to 3-D.

    Parameters
    ----------
    centre: a number an axis (a single number in 1-D). radius: > 0.

    Raises ValueError for a radius that is not positive, or another number of axes than one to three.
    """

    centre: tuple[float, ...]
    radius: float

    def __init__(self, centre: float | Sequence[float], radius: float) -> None:
        object.__setattr__(self, "centre", _numbers(centre))
        object.__setattr__(self, "radius", float(radius))
        if not 1 <= len(self.centre) <= 3 or not all(map(math.isfinite, self.centre)):
            raise ValueError(f"centre needs a finite number for each of one to three axes, got {self.centre}")
        if not 0 < self.radius < math.inf:
            raise ValueError(f"radius must be a positive number, got {radius}")

    @property
    def dimension(self) -> int:
        """d."""
        return len(self.centre)

    @property
    def volume(self) -> float:
        """2 R, pi R^2 or 4/3 pi R^3."""
        return (2.0, math.pi, 4 / 3 * math.pi)[self.dimension - 1] * self.radius**self.dimension

    @property
    def hull(self) -> Box:
        """The cube around it."""
        return Box([c - self.radius for c in self.centre], [c + self.radius for c in self.centre])

    def from_unit(self, unit: Tensor) -> Tensor:
        """Map the unit cube, [N, d] -> [N, d]: its first axis becomes the radius, the others the direction."""
        centre = unit.new_tensor(self.centre)
        if self.dimension == 1:
            return centre + self.radius * (2 * unit - 1)
        return centre + self.radius * unit[:, :1] ** (1 / self.dimension) * _direction(unit[:, 1:])

    def contains(self, x: Tensor) -> Tensor:
        """Return which points are inside or, to rounding, on the boundary, [..., d] -> bool [...]."""
        slack = 4 * torch.finfo(x.dtype).eps * (self.radius + max(map(abs, self.centre)))
        return self._off(x).square().sum(-1) <= (self.radius + slack) ** 2

    def level(self, x: Tensor) -> Tensor:
        """Return the signed distance."""
        return self.signed_distance(x)

    def signed_distance(self, x: Tensor) -> Tensor:
        """Return |x - centre| - radius, [..., d] -> [..., 1]; at the centre, its kink, the slope is taken as zero."""
        squared = self._off(x).square().sum(-1, keepdim=True)
        away = torch.where(squared > 0, squared, 1.0).sqrt()
        return torch.where(squared > 0, away, 0.0) - self.radius

    def vanishing(self, x: Tensor) -> Tensor:
        """Return 1 - |x - centre|^2 / radius^2, [..., d] -> [..., 1]: smooth, positive inside, zero on the boundary."""
        return 1 - (self._off(x) / self.radius).square().sum(-1, keepdim=True)

    def _off(self, x: Tensor) -> Tensor:
        _check_points(x, self.dimension)
        return torch.stack([x[..., i] - c for i, c in enumerate(self.centre)], -1)

    def _boundary(self, n: int, generator: np.random.Generator) -> Boundary:
        if self.dimension == 1:
            sides = np.searchsorted([0.5], (np.arange(n) + generator.random()) / n, side="right")
            normals = torch.from_numpy(2.0 * sides[:, None] - 1)
        else:
            normals = _direction(torch.from_numpy(generator.random((n, self.dimension - 1))))
        return Boundary(normals.new_tensor(self.centre) + self.radius * normals, normals)


@final
@dataclass(frozen=True)
class Implicit(Domain):
    """The set where a function is negative: f(x) < 0.

        lens = Implicit(lambda x: x.square().sum(-1, keepdim=True) - 1 + 0.3 * x[..., :1], Box((-1, -1), (1, 1)))
        plate = difference(Box((0, 0), (2, 1)), Ball((1, 0.5), 0.2))

    Parameters
    ----------
    function: a scalar field function, x [d] -> [1], differentiable near its zeros (almost everywhere will do). Points
        are drawn in float64 on the host, so it is called on such.
    bounds: a box that contains the whole set; a part beyond it is cut off, and has no boundary at the cut.

    `volume` is an ESTIMATE from 65,536 independent points of the bounds, drawn with the fixed seed 0, hence the same at
    every call; `estimate_volume` takes others and says its standard error. Points are drawn by rejection. The boundary
    is found: points in a shell of half thickness e = 2 % of the bounds' diagonal are led onto it by Newton's steps
    along f's gradient. Where f is a distance they are uniform up to a relative (e/R)^2 for radii of curvature R, and
    nearly so for other smooth f. Sharp edges, onto which points around them fall, and features thinner than e fare
    worse.
    """

    function: Callable[[Tensor], Tensor]
    bounds: Box

    @property
    def dimension(self) -> int:
        """d."""
        return self.bounds.dimension

    @property
    def volume(self) -> float:
        """The estimate."""
        return self.share * self.bounds.volume

    @property
    def hull(self) -> Box:
        """The bounds."""
        return self.bounds

    @cached_property
    def share(self) -> float:  # type: ignore[override]
        """The estimated share of the bounds that is inside."""
        return self.estimate_volume(_VOLUME_POINTS, _VOLUME_SEED)[0] / self.bounds.volume

    def estimate_volume(self, n: int, seed: int) -> tuple[float, float]:
        """Return (volume, its standard error) from n independent points of the bounds."""
        share = float(self.contains(self.bounds.sample(n, seed, dtype=torch.float64)).double().mean())
        return share * self.bounds.volume, math.sqrt(share * (1 - share) / n) * self.bounds.volume

    @cached_property
    def perimeter(self) -> float:
        """The boundary's estimated measure, a length in the plane: the shell's volume over its thickness."""
        wide, shell = self._around
        start = wide.sample(_VOLUME_POINTS, _VOLUME_SEED, dtype=torch.float64)
        return len(self._onto(start, shell).points) / _VOLUME_POINTS * wide.volume / (2 * shell)

    def from_unit(self, unit: Tensor) -> Tensor:
        """Map the unit cube onto the bounds, [N, d] -> [N, d]."""
        return self.bounds.from_unit(unit)

    def level(self, x: Tensor) -> Tensor:
        """Return f(x)."""
        return self.function(x)

    def contains(self, x: Tensor) -> Tensor:
        """Return where f(x) < 0 inside the bounds, [..., d] -> bool [...]."""
        _check_points(x, self.dimension)
        values = vmap(self.function)(x.reshape(-1, self.dimension))
        if values.ndim != 2 or values.shape[1] != 1:
            raise ValueError(f"function must return a scalar field [1] at a point, got {list(values.shape[1:])}")
        return (values[:, 0] < 0).reshape(x.shape[:-1]) & self.bounds.contains(x)

    @property
    def _around(self) -> tuple[Box, float]:
        """The bounds wider by the shell on all sides, for the domain may touch them, and half the shell's thickness."""
        shell = _SHELL * math.hypot(*self.bounds.lengths)
        return Box([a - shell for a in self.bounds.low], [b + shell for b in self.bounds.high]), shell

    def _boundary(self, n: int, generator: np.random.Generator) -> Boundary:
        wide, shell = self._around
        parts: list[Boundary] = []
        tried = 4 * n + 64
        for _ in range(_ROUNDS):
            start = wide.from_unit(torch.from_numpy(generator.random((tried, self.dimension))))
            parts.append(self._onto(start, shell))
            count = sum(len(part.points) for part in parts)
            if count >= n:
                return Boundary(*(torch.cat(part)[:n] for part in zip(*parts, strict=True)))
            tried = min(2 * tried, 10**6)
        raise ValueError(
            f"found {count} of {n} points on the boundary of {self}: f must be smooth, with zeros in the bounds"
        )

    def _onto(self, start: Tensor, shell: float) -> Boundary:
        """Newton's steps along the gradient; kept is what ends on the boundary, less than `shell` from its start."""
        slope_and_value = vmap(grad_and_value(lambda x: self.function(x)[0]))
        near = _NEAR * math.hypot(*self.bounds.lengths)

        def step(x: Tensor) -> tuple[Tensor, Tensor]:
            slope, value = cast(tuple[Tensor, Tensor], slope_and_value(x))
            steep = slope.square().sum(-1, keepdim=True)
            return slope, value[:, None] * slope / torch.where(steep > 0, steep, math.inf)

        with torch.no_grad():
            _, move = step(start)
            # A first look that spares the rest the work; generous, since f need not be a distance.
            points = origin = start[move.norm(dim=-1) < 2 * shell]
            for _ in range(_NEWTON):
                move = step(points)[1]
                points = points - move
                if bool((move.norm(dim=-1) <= near).all()):
                    break
            slope, move = step(points)
            there = (move.norm(dim=-1) <= near) & (slope.norm(dim=-1) > 0) & ((points - origin).norm(dim=-1) <= shell)
            return Boundary(points[there], torch.nn.functional.normalize(slope[there], dim=-1))


def union(a: Domain, b: Domain) -> Implicit:
    """Return the points of either domain; the level is min(a, b), no distance inside where both overlap."""
    low, high = map(min, a.hull.low, b.hull.low), map(max, a.hull.high, b.hull.high)
    return Implicit(lambda x: torch.minimum(a.level(x), b.level(x)), _around(a, b, low, high))


def intersection(a: Domain, b: Domain) -> Implicit:
    """Return the points of both domains; the level is max(a, b). ValueError where their hulls do not overlap."""
    low, high = map(max, a.hull.low, b.hull.low), map(min, a.hull.high, b.hull.high)
    return Implicit(lambda x: torch.maximum(a.level(x), b.level(x)), _around(a, b, low, high))


def difference(a: Domain, b: Domain) -> Implicit:
    """Return the points of a that are not in b; the level is max(a, -b)."""
    return Implicit(lambda x: torch.maximum(a.level(x), -b.level(x)), _around(a, b, a.hull.low, a.hull.high))


def _around(a: Domain, b: Domain, low: Iterable[float], high: Iterable[float]) -> Box:
    if a.dimension != b.dimension:
        raise ValueError(f"the domains have {a.dimension} and {b.dimension} axes: combine domains of one dimension")
    return Box(list(low), list(high))


def _direction(unit: Tensor) -> Tensor:
    """Uniform directions: [N, 1] -> the circle [N, 2], [N, 2] -> the sphere [N, 3]."""
    angle = 2 * math.pi * unit[:, -1]
    circle = torch.stack((angle.cos(), angle.sin()), -1)
    if unit.shape[1] == 1:
        return circle
    height = 2 * unit[:, :1] - 1
    return torch.cat(((1 - height.square()).clamp(min=0).sqrt() * circle, height), -1)


def _independent(dimension: int, seed: int, n: int) -> Tensor:
    _check_count(n, seed)
    return torch.from_numpy(np.random.default_rng(seed).random((n, dimension)))


def _numbers(given: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, np.atleast_1d(given).tolist()))


def _check_count(n: int, seed: int) -> None:
    if n < 1 or seed < 0:
        raise ValueError(f"n must be >= 1 and the seed an integer >= 0, got n={n} and seed={seed}")


def _check_points(x: Tensor, dimension: int) -> None:
    if x.ndim < 1 or x.shape[-1] != dimension:
        raise ValueError(f"points must be [..., {dimension}], got {tuple(x.shape)}")
