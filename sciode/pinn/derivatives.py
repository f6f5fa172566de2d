"""What an equation reads: fields, their derivatives and coordinates by name, at points that it need not know of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, final

import torch
from torch import Tensor
from torch.func import jvp

from sciode.pinn.taylor import Orders, unit

__all__ = ["ARMS", "Derivatives", "Equation", "Names", "asked_of", "probed", "residual_of", "total_gradient", "tried"]

ARMS = 2
"""Of how many arms functions are tried: an unknown, a number of each, then passes for no number of Python's, of which
there would be no derivative.
"""
_PLAIN = torch.contiguous_format

Equation = Callable[["Derivatives", Any], Any]
"""(derivatives, parameters) -> a residual at each point, or a sequence of them."""


@dataclass(frozen=True)
class Names:
    """Coordinates, one letter each, and fields, without an underscore: ("x", "t"), ("u",), or "xt", "u" for short.

    Raises ValueError for others, or fields of a name that `Derivatives` has for something else.
    """

    coordinates: tuple[str, ...]
    fields: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "coordinates", tuple(self.coordinates))
        object.__setattr__(self, "fields", (self.fields,) if isinstance(self.fields, str) else tuple(self.fields))
        if not self.coordinates or any(len(name) != 1 for name in self.coordinates):
            raise ValueError(f"coordinates need names of one letter, got {self.coordinates}")
        names = (*self.coordinates, *self.fields)
        if not self.fields or len(set(names)) != len(names) or any("_" in name for name in self.fields):
            raise ValueError(f"fields need names of their own without an underscore, got {self.fields}")
        if taken := [name for name in self.fields if hasattr(Derivatives, name) or name in _OWN]:
            raise ValueError(f"a field cannot be called {', '.join(taken)}: in equations that is something else")

    @property
    def axes(self) -> int:
        """d."""
        return len(self.coordinates)

    @property
    def channels(self) -> int:
        """How many fields there are."""
        return len(self.fields)

    def read(self, name: str) -> tuple[str, int, Orders]:
        """Return ("coordinate", axis, ()) or ("field", channel, orders); AttributeError for another name."""
        if name in self.coordinates:
            return "coordinate", self.coordinates.index(name), ()
        base, _, letters = name.partition("_")
        if base not in self.fields or any(letter not in self.coordinates for letter in letters):
            raise AttributeError(
                f"{name!r} is no field or derivative: there are {', '.join(self.fields)}, derivatives such as "
                f"{self.fields[0]}_{self.coordinates[0] * 2}, and the coordinates {', '.join(self.coordinates)}"
            )
        return "field", self.fields.index(base), tuple(letters.count(letter) for letter in self.coordinates)


@final
@dataclass(frozen=True)
class Derivatives:
    """Fields, derivatives and coordinates at points: d.u, d.u_x, d.u_xxt, d.x, each [...]; of one shape.

    values: orders -> derivatives of all fields [..., c]. points, normals: [..., d]. asked: what was read so far.
    """

    names: Names
    values: Mapping[Orders, Tensor]
    points: Tensor
    normals: Tensor | None = None
    asked: set[Orders] = field(default_factory=set)

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("__"):
            raise AttributeError(name)
        kind, place, orders = self.names.read(name)
        return self.points[..., place] if kind == "coordinate" else self.of(orders)[..., place]

    def of(self, orders: Orders) -> Tensor:
        """A derivative of all fields, [..., c]."""
        self.asked.add(orders)
        return self.values[orders]

    def directed(self, *directions: Tensor) -> Tensor:
        """The derivative of all fields along these directions [..., d], one after the other: [..., c]."""
        total: Any = 0.0
        axes = self.names.axes
        for place in range(axes ** len(directions)):
            indices = [place // axes**k % axes for k in range(len(directions))]
            orders = tuple(indices.count(axis) for axis in range(axes))
            factor: Any = 1.0
            for direction, axis in zip(directions, indices, strict=True):
                factor = factor * direction[..., axis, None]
            total = total + factor * self.of(orders)
        return total

    def normal(self, name: str) -> Tensor:
        """The outward normal derivative of a field on a boundary, [...]."""
        if self.normals is None:
            raise ValueError("normal derivatives are those of boundary and interface points: these are inner points")
        return self.directed(self.normals)[..., self.names.fields.index(name)]


_OWN = frozenset(Derivatives.__dataclass_fields__)


class _Any(dict[Orders, Tensor]):
    """Values for whatever is asked, smooth numbers that differ from one another."""

    def __init__(self, points: Tensor, channels: int) -> None:
        super().__init__()
        self.points, self.channels = points, channels

    def __missing__(self, orders: Orders) -> Tensor:
        shift = torch.arange(self.channels, dtype=self.points.dtype) + sum(k * (i + 1) for i, k in enumerate(orders))
        self[orders] = 0.5 + 0.25 * torch.sin(self.points.sum(-1, keepdim=True) + shift)
        return self[orders]


def probed(points: Tensor) -> Tensor:
    """Return points [n, d] as functions are tried on them, [ARMS, 1, n, d]."""
    return points.repeat(ARMS, 1, 1, 1)


def asked_of(
    names: Names, points: Tensor, parameters: SimpleNamespace, read: Callable[[Derivatives, Any], Any]
) -> frozenset[Orders]:
    """Return the orders that a function reads, by running it once at some points `probed` with made-up values."""
    return tried(names, points, parameters, read)[1]


def tried(
    names: Names, points: Tensor, parameters: SimpleNamespace, read: Callable[[Derivatives, Any], Any]
) -> tuple[Tensor, frozenset[Orders]]:
    """Return what a function makes of made-up values at some points `probed`, [ARMS, 1, n, m], and what it reads."""
    normals = torch.zeros_like(points)
    normals[..., 0] = 1.0
    derivatives = Derivatives(names, _Any(points, names.channels), points, normals)
    found = stacked(read(derivatives, parameters), points.shape[:-1], "this function")
    return found, frozenset(derivatives.asked)


def stacked(found: Any, shape: Sequence[int], who: str) -> Tensor:
    """Return residuals as [..., m], m of them a point. ValueError unless each has the points' shape exactly."""
    parts = list(found) if isinstance(found, (tuple, list)) else [found]
    for part in parts:
        if not isinstance(part, Tensor) or tuple(part.shape) != tuple(shape):
            got = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
            raise ValueError(
                f"{who} must give one number a point, of shape {tuple(shape)}, or a tuple of such, got {got}: "
                "read fields by name (d.u_x) and combine them point by point"
            )
    return torch.stack(parts, -1)


def residual_of(equation: Equation, d: Derivatives, parameters: Any) -> Tensor:
    """Return the residuals [..., m] of an equation."""
    batch = next(iter(d.values.values())).shape[:-1]
    return stacked(equation(d, parameters), batch, "the equation")


def total_gradient(equation: Equation, d: Derivatives, parameters: Any, orders: frozenset[Orders]) -> list[Tensor]:
    """Return dR/dx_i of the residual along each axis, fields followed: [..., m] each.

    orders: those that the equation reads; the values must hold their derivatives along each axis, too.
    """
    names, own = d.names, sorted(orders)
    # Tangents must lie in memory as what they belong to does: some compilers insist.
    points = d.points.expand(*next(iter(d.values.values())).shape[:-1], names.axes).clone(memory_format=_PLAIN)

    def residual(x: Tensor, *values: Tensor) -> Tensor:
        return residual_of(equation, Derivatives(names, dict(zip(own, values, strict=True)), x), parameters)

    found = []
    for axis in range(names.axes):
        one = unit(axis, names.axes)
        raised = [d.of(tuple(a + b for a, b in zip(k, one, strict=True))).contiguous() for k in own]
        along = torch.zeros_like(points)
        along[..., axis] = 1.0
        primal = (points, *(d.of(k).contiguous() for k in own))
        found.append(jvp(residual, primal, (along, *raised))[1])
    return found
