"""Derivatives of stacked networks by Taylor series: all that an equation asks for, in one pass through the layers.

A series is a mapping from orders, one an axis, to Taylor coefficients: (2, 1) stands for the third derivative u_xxt
over 2! 1!. Only orders that something needs are carried, with all below them. A layer acts on all coefficients in one
batched product; the activation's series follows from its differential equation. What remains is an ordinary graph, of
which the weights' gradient is taken once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jvp

__all__ = [
    "ACTIVATIONS",
    "CURVES",
    "Curve",
    "Low",
    "Orders",
    "Series",
    "closed",
    "derivatives_of",
    "factorial",
    "multiplied",
    "unit",
]

Orders = tuple[int, ...]
"""How often a derivative is taken along each axis."""

Series = Mapping[Orders, Tensor]
"""Orders -> coefficients (of a series) or derivatives, all of one shape up to broadcasting."""


def closed(orders: Iterable[Orders], axes: int) -> tuple[Orders, ...]:
    """Return these orders and all below them, value first, lower total orders before higher ones."""
    found = {(0,) * axes}
    for one in orders:
        found |= set(product(*(range(k + 1) for k in one)))
    return tuple(sorted(found, key=lambda one: (sum(one), tuple(-k for k in one))))


def unit(axis: int, axes: int) -> Orders:
    """Return the orders of the first derivative along an axis."""
    return tuple(int(i == axis) for i in range(axes))


def _less(a: Orders, b: Orders) -> Orders | None:
    """a - b where that is nowhere negative."""
    left = tuple(i - j for i, j in zip(a, b, strict=True))
    return left if min(left) >= 0 else None


def _sum(parts: Sequence[Tensor]) -> Tensor | None:
    return None if not parts else sum(parts[1:], start=parts[0])


def _product(a: Series, b: Series, at: Orders) -> Tensor | None:
    """The coefficient of a b at some orders; absent coefficients are zero."""
    pairs = ((one, _less(at, one)) for one in a)
    return _sum([a[one] * b[rest] for one, rest in pairs if rest is not None and rest in b])


def _squared(y: Series, at: Orders) -> Tensor | None:
    """The coefficient of y^2, each pair of factors taken once."""
    halves = []
    for one, value in y.items():
        rest = _less(at, one)
        if rest is not None and rest in y and one <= rest:
            halves.append(value * y[rest] if one == rest else 2 * value * y[rest])
    return _sum(halves)


def multiplied(a: Series, b: Series, orders: Iterable[Orders]) -> dict[Orders, Tensor]:
    """Return the series of a product, at the orders asked for."""
    found = {one: _product(a, b, one) for one in orders}
    return {one: value for one, value in found.items() if value is not None}


def _driven(z: Series, slope: Series, at: Orders) -> Tensor | None:
    """The coefficient at some orders of y with grad y = slope grad z, from lower ones of slope."""
    axis = next(i for i, k in enumerate(at) if k)
    parts = []
    for one, value in z.items():
        rest = _less(at, one)
        if one[axis] and rest is not None and rest in slope:
            share = one[axis] / at[axis]
            parts.append(value * slope[rest] if share == 1 else share * value * slope[rest])
    return _sum(parts)


def _tanh(z: Series, orders: Sequence[Orders]) -> dict[Orders, Tensor]:
    """y = tanh z, by grad y = (1 - y^2) grad z."""
    value = torch.tanh(z[orders[0]])
    y, slope = {orders[0]: value}, {orders[0]: 1 - value * value}
    for place, at in enumerate(orders[1:], 1):
        own = _driven(z, slope, at)
        if own is not None:
            y[at] = own
        # The slope's last coefficients are asked for by none.
        if any(_less(later, at) is not None for later in orders[place + 1 :]):
            squared = _squared(y, at)
            if squared is not None:
                slope[at] = -squared
    return y


def _sine(z: Series, orders: Sequence[Orders]) -> dict[Orders, Tensor]:
    """y = sin z, by grad sin z = cos z grad z and grad cos z = -sin z grad z."""
    y, slope = {orders[0]: torch.sin(z[orders[0]])}, {orders[0]: torch.cos(z[orders[0]])}
    for at in orders[1:]:
        own, other = _driven(z, slope, at), _driven(z, y, at)
        if own is not None:
            y[at] = own
        if other is not None:
            slope[at] = -other
    return y


ACTIVATIONS: Mapping[str, Callable[[Series, Sequence[Orders]], dict[Orders, Tensor]]] = {"tanh": _tanh, "sine": _sine}
"""By name: the series of z, and orders with all below them in ascending order -> the series of the activation."""


class Curve(NamedTuple):
    """An activation f up to its second derivative: f(z), f' from z and f, and -f''/2 from f and f'."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    bend: Callable[[Tensor, Tensor], Tensor]


CURVES: Mapping[str, Curve] = {
    "tanh": Curve(torch.tanh, lambda z, y: 1 - y * y, lambda y, slope: y * slope),
    "sine": Curve(torch.sin, lambda z, y: torch.cos(z), lambda y, slope: y / 2),
}
"""By name, as `ACTIVATIONS`."""


@dataclass(frozen=True)
class Low:
    """Orders of at most two, as `closed` puts them, the coefficients of which lie side by side along axis 2.

    All of one total order are moved at once, with a third of the operations that `ACTIVATIONS` take one by one.
    """

    orders: tuple[Orders, ...]

    @property
    def first(self) -> list[int]:
        """The axes along which there are first derivatives."""
        return [one.index(1) for one in self.orders if sum(one) == 1]

    @property
    def second(self) -> list[tuple[int, int]]:
        """The first derivatives, by their places, that meet in each second one."""
        place = {axis: k for k, axis in enumerate(self.first)}
        pairs = [[axis for axis, k in enumerate(one) for _ in range(k)] for one in self.orders if sum(one) == 2]
        return [(place[a], place[b]) for a, b in pairs]

    def split(self, rows: Tensor) -> list[Tensor]:
        """Value, first and second coefficients of rows [..., M, N, h]; the latter where there are any."""
        sizes = [1, len(self.first), len(self.second)]
        return list(rows.split([size for size in sizes if size], 2))

    def bent(self, curve: Curve, value: Tensor, first: Tensor | None = None, second: Tensor | None = None) -> Tensor:
        """The activation's coefficients [..., M, N, h] from those of z; without second ones, they are 0."""
        y = curve.value(value)
        if first is None:
            return y
        slope = curve.slope(value, y)
        parts = [y, slope * first]
        if pairs := self.second:
            bent = curve.bend(y, slope) * _met(first, pairs)
            parts.append(-bent if second is None else slope * second - bent)
        return torch.cat(parts, 2)


def _met(first: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """z_a z_b for each pair of places, twice where they differ: a mixed coefficient has no factor 1/2."""
    if all(a == b for a, b in pairs) and [a for a, _ in pairs] == list(range(pairs[0][0], pairs[-1][0] + 1)):
        return first.narrow(2, pairs[0][0], len(pairs)).square()
    rows = first.unbind(2)
    return torch.stack([rows[a].square() if a == b else 2 * rows[a] * rows[b] for a, b in pairs], 2)


def factorial(orders: Orders) -> float:
    """Return prod_i orders_i!, what turns a Taylor coefficient into a derivative."""
    return float(math.prod(map(math.factorial, orders)))


def _along(points: Tensor, axis: int) -> Tensor:
    """Return the direction of an axis at every point [..., d]."""
    direction = torch.zeros_like(points)
    direction[..., axis] = 1.0
    return direction


def derivatives_of(
    function: Callable[[Tensor], Tensor], points: Tensor, orders: Iterable[Orders]
) -> dict[Orders, Tensor]:
    """Return derivatives of a plain function x [..., d] -> [..., c], which looks at each point alone; [..., c] each.

    By nested forward-mode passes, one a derivative. Meant for what is evaluated once a set of points: exact solutions,
    windows, factors that vanish on a boundary.
    """
    axes = points.shape[-1]

    def slope(of: Callable[[Tensor], Tensor], axis: int) -> Callable[[Tensor], Tensor]:
        return lambda x: jvp(of, (x,), (_along(x, axis),))[1]

    found = {}
    for one in closed(orders, axes):
        nested = function
        for axis, times in enumerate(one):
            for _ in range(times):
                nested = slope(nested, axis)
        found[one] = nested(points)
    return found
