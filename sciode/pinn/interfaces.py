"""What two networks have to agree in where their pieces meet: nine conditions as data, and the sets that methods use.

Each looks at one point of the interface, from both sides. For the exact solution of a problem all of them vanish.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciode.pinn.derivatives import Derivatives, residual_of, total_gradient
from sciode.pinn.problem import Problem, crossing
from sciode.pinn.taylor import Orders, unit
from sciode.solvers.suggest import choose

__all__ = ["CONDITIONS", "CPINN", "XPINN", "Interface", "Sides", "orders_of", "tangents", "weights_of"]


class Sides(NamedTuple):
    """Both fields at the points of an interface, normals [..., d] from left to right, and the equation's parameters."""

    problem: Problem
    left: Derivatives
    right: Derivatives
    normals: Tensor
    parameters: Any

    def jump(self, of: Callable[[Derivatives], Tensor]) -> Tensor:
        """Right minus left."""
        return of(self.right) - of(self.left)

    def residual(self, side: Derivatives) -> Tensor:
        """The equation's residuals on one side."""
        return residual_of(self.problem.equation, side, self.parameters)


@dataclass(frozen=True)
class Interface:
    """A condition: residuals [..., m] of both sides, and which derivatives they read."""

    name: str
    residual: Callable[[Sides], Tensor]
    orders: Callable[[Problem], frozenset[Orders]]


def tangents(normals: Tensor) -> list[Tensor]:
    """Return d - 1 unit vectors [..., d] across the normals: none on a line, one in the plane, two in space."""
    axes = normals.shape[-1]
    if axes == 1:
        return []
    if axes == 2:
        return [torch.stack((-normals[..., 1], normals[..., 0]), -1)]
    # The axis that the normal is farthest from; both tangents are then well away from zero length.
    chosen = torch.nn.functional.one_hot(normals.abs().argmin(-1), 3).to(normals)
    first = torch.nn.functional.normalize(torch.linalg.cross(normals, chosen), dim=-1)
    return [first, torch.linalg.cross(normals, first)]


def _average(sides: Sides) -> Tensor:
    half = 0.5 * sides.jump(_value)
    return torch.cat((half, -half), -1)


def _both(sides: Sides) -> Tensor:
    return torch.cat([sides.residual(side) for side in (sides.left, sides.right)], -1)


def _enhanced(sides: Sides) -> Tensor:
    equation, orders = sides.problem.equation, sides.problem.orders
    slopes = [total_gradient(equation, side, sides.parameters, orders) for side in (sides.left, sides.right)]
    return torch.cat([part for one in slopes for part in one], -1)


def _tangential(sides: Sides, times: int) -> Tensor:
    """The jump of all derivatives of an order along the interface, in numbers whose squares sum to the tensor's.

    That sum is the same for all pairs of tangents; one of the mixed ones, of which there are several, stands for all.
    """
    along = tangents(sides.normals)
    if not along:
        return 0 * sides.jump(_value)
    found = []
    for places in combinations_with_replacement(range(len(along)), times):
        alike = math.factorial(times) / math.prod(math.factorial(places.count(k)) for k in set(places))
        found.append(math.sqrt(alike) * sides.jump(lambda d, p=places: d.directed(*(along[k] for k in p))))
    return torch.cat(found, -1)


def _value(d: Derivatives) -> Tensor:
    return d.of((0,) * d.names.axes)


def _flux(sides: Sides) -> Tensor:
    return sides.jump(lambda d: crossing(sides.problem, d, sides.parameters, sides.normals))


def raised(orders: Iterable[Orders], axes: int) -> set[Orders]:
    """Return the orders of the derivatives of these along each axis."""
    steps = [unit(axis, axes) for axis in range(axes)]
    return {tuple(a + b for a, b in zip(one, step, strict=True)) for one in orders for step in steps}


def _of_order(order: int) -> Callable[[Problem], frozenset[Orders]]:
    def orders(problem: Problem) -> frozenset[Orders]:
        axes, found = problem.names.axes, {(0,) * problem.names.axes}
        for _ in range(order):
            found = {
                tuple(a + b for a, b in zip(one, unit(axis, axes), strict=True))
                for one in found
                for axis in range(axes)
            }
        return frozenset(found)

    return orders


def _raised(problem: Problem) -> frozenset[Orders]:
    return problem.orders | raised(problem.orders, problem.names.axes)


CONDITIONS: Mapping[str, Interface] = MappingProxyType(
    {
        one.name: one
        for one in (
            Interface("value", lambda sides: sides.jump(_value), _of_order(0)),
            Interface("average", _average, _of_order(0)),
            Interface("residual", _both, lambda problem: problem.orders),
            Interface("residual continuity", lambda sides: sides.jump(sides.residual), lambda problem: problem.orders),
            Interface("flux", _flux, lambda problem: problem.flux_orders),
            Interface(
                "second normal derivative",
                lambda sides: sides.jump(lambda d: d.directed(sides.normals, sides.normals)),
                _of_order(2),
            ),
            Interface("gradient-enhanced residual", _enhanced, _raised),
            Interface("tangential derivative", lambda sides: _tangential(sides, 1), _of_order(1)),
            Interface("second tangential derivative", lambda sides: _tangential(sides, 2), _of_order(2)),
        )
    }
)
"""By name, in the order of Li et al. (ICML 2023): u_1 - u_2; both from their mean; both residuals; their difference;
the flux through the interface; the second derivative across; the gradients of both residuals; first and second
derivatives along the interface (in space: all of them, the mixed ones too). "average" is "value" times 1/2."""

XPINN: tuple[str, ...] = ("average", "residual continuity")
"""Jagtap & Karniadakis (2020)."""

CPINN: tuple[str, ...] = ("average", "flux")
"""Conservative physics-informed networks: Jagtap, Kharazmi & Karniadakis (2020)."""


def weights_of(arms: str | Sequence[str] | Sequence[Sequence[str]] | Tensor) -> Tensor:
    """Return a weight for each condition and arm, float64 [arms, 9].

    arms: the name of a condition or several, one arm; a list of such lists; or a tensor [arms, 9] of weights or of
    booleans in the order of `CONDITIONS`. Raises ValueError for unknown names or negative weights.
    """
    if isinstance(arms, Tensor):
        if arms.ndim != 2 or arms.shape[1] != len(CONDITIONS) or not len(arms):
            raise ValueError(f"arms must be [arms, {len(CONDITIONS)}], one weight a condition, got {tuple(arms.shape)}")
        found = arms.detach().to("cpu", torch.float64)
        if not bool((found >= 0).all()):
            raise ValueError("weights of interface conditions must be >= 0")
        return found
    arms = [arms] if isinstance(arms, str) else arms
    sets: Any = [arms] if all(isinstance(one, str) for one in arms) else arms
    places = list(CONDITIONS)
    found = torch.zeros(len(sets), len(CONDITIONS), dtype=torch.float64)
    for arm, names in enumerate(sets):
        for name in names:
            found[arm, places.index(choose("interface condition", name, CONDITIONS))] = 1.0
    return found


def orders_of(names: Sequence[str], problem: Problem) -> frozenset[Orders]:
    """Return what these conditions read."""
    return frozenset().union(*(CONDITIONS[name].orders(problem) for name in names))
