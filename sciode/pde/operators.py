"""Differential operators: from a field function to the field function of its derivative.

A field function maps ONE point x [d] to values u(x) [c]; a scalar field has c = 1. Batches are `over(u, points)`.
Operators take and return field functions, so they compose as they do on paper: `divergence(gradient(p))` is
`laplacian(p)`. All derivatives are forward-mode: their cost grows with the few dimensions of space, and reverse mode is
left for the parameters, of which there are many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.func import jacfwd, jvp, vmap

from sciode.solvers.jets import Jet

__all__ = [
    "FieldFunction",
    "curl",
    "divergence",
    "expansion",
    "gradient",
    "hessian",
    "jacobian",
    "laplacian",
    "over",
    "partial",
]

FieldFunction = Callable[[Tensor], Tensor]
"""x [d] -> u(x) [c]."""


def over(u: FieldFunction, points: Tensor) -> Tensor:
    """Return the values of a field function at a batch of points, [N, d] -> [N, c]."""
    if points.ndim != 2:
        raise ValueError(f"points must be [N, d], got {tuple(points.shape)}: a single point is u(x)")
    return vmap(u)(points)


def partial(u: FieldFunction, axis: int) -> FieldFunction:
    """Return du/dx_axis [c], by one forward-mode pass. ValueError, when called, for an axis that x does not have."""

    def slope(x: Tensor) -> Tensor:
        _check_point(x)
        if not 0 <= axis < x.shape[0]:
            raise ValueError(f"axis is {axis}, but the point has axes 0 to {x.shape[0] - 1}")
        return _along(u, _directions(x)[axis])(x)

    return slope


def jacobian(u: FieldFunction) -> FieldFunction:
    """Return J_ij = du_i/dx_j, [c, d]."""

    def slopes(x: Tensor) -> Tensor:
        _check_point(x)
        return jacfwd(u)(x)

    return slopes


def gradient(p: FieldFunction) -> FieldFunction:
    """Return the gradient of a scalar field, dp/dx_j, [d]. ValueError, when called, where p is not [1]."""

    def slopes(x: Tensor) -> Tensor:
        matrix = jacobian(p)(x)
        if matrix.ndim != 2 or matrix.shape[0] != 1:
            raise ValueError(f"gradient needs a scalar field [1], got values {_values(matrix)}: take jacobian(u)")
        return matrix[0]

    return slopes


def divergence(u: FieldFunction) -> FieldFunction:
    """Return sum_i du_i/dx_i, [1]. ValueError, when called, where u has not one component an axis."""

    def source(x: Tensor) -> Tensor:
        return _square(u, x, "divergence").diagonal().sum(0, keepdim=True)

    return source


def curl(u: FieldFunction) -> FieldFunction:
    """Return the curl: du_y/dx - du_x/dy [1] in the plane, [3] in space. ValueError, when called, for other fields."""

    def rotation(x: Tensor) -> Tensor:
        slopes = _square(u, x, "curl")
        twist = slopes - slopes.T
        if x.shape[0] == 2:
            return twist[1, :1]
        if x.shape[0] == 3:
            return torch.stack((twist[2, 1], twist[0, 2], twist[1, 0]))
        raise ValueError(f"curl is of two or three dimensions, the point has {x.shape[0]}")

    return rotation


def laplacian(u: FieldFunction, *, taylor: bool = False) -> FieldFunction:
    """Return sum_j d2u_i/dx_j2 of each component, [c]: the second derivative along each axis, nothing mixed.

    taylor: carry (u, u', u''/2) through u once an axis (`sciode.solvers.jets.Jet`) where two nested passes carry u'
    twice. The same number to rounding at twice the speed (sine network of 4 x 32, 4,096 points, one CPU core: 2.3 to
    2.6 times, 1.7 to 1.9 with the gradient of the parameters). For u written with operations that have a rule for jets,
    as networks are; not for a u that is itself made by an operator. ValueError, when called, names what has no rule.
    """

    def bend(x: Tensor, direction: Tensor) -> Tensor:
        if taylor:
            moved: Any = u(cast(Tensor, Jet([x, direction, torch.zeros_like(x)])))
            # What does not depend on x comes back as a tensor.
            return 2 * moved.coefficients[2] if isinstance(moved, Jet) else torch.zeros_like(moved)
        return _along(_along(u, direction), direction)(x)

    def spread(x: Tensor) -> Tensor:
        _check_point(x)
        return vmap(bend, (None, 0))(x, _directions(x)).sum(0)

    return spread


def expansion(u: FieldFunction) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return x -> (u [c], du_i/dx_j [c, d], sum_j d2u_i/dx_j2 [c]): what most equations read of a field, in one pass.

    Where u is written with operations that have a rule for jets, as networks are, (u, u', u''/2) is carried through it
    once for all axes; else, as for a u that is itself made by an operator, the operators above are called one by one.
    The same numbers to rounding.
    """

    def one_by_one(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return u(x), jacobian(u)(x), laplacian(u)(x)

    def at_once(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        def along(direction: Tensor) -> tuple[Tensor, ...]:
            moved: Any = u(cast(Tensor, Jet([x, direction, torch.zeros_like(x)])))
            return moved.coefficients if isinstance(moved, Jet) else (moved, *[torch.zeros_like(moved)] * 2)

        values, slopes, bends = vmap(along)(_directions(x))
        return values[0], slopes.movedim(0, -1), 2 * bends.sum(0)

    def spread(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _check_point(x)
        try:
            return at_once(x)
        except (ValueError, TypeError, AttributeError, RuntimeError):
            # An operation without a rule, or a derivative within u. A mistake of u's own comes again, from u itself.
            return one_by_one(x)

    return spread


def hessian(p: FieldFunction) -> FieldFunction:
    """Return d2p/dx_i dx_j of a scalar field, [d, d]. ValueError, when called, where p is not [1]."""
    return jacobian(gradient(p))


def _along(u: FieldFunction, direction: Tensor) -> FieldFunction:
    """The derivative of u in a direction [d]."""
    return lambda x: jvp(u, (x,), (direction,))[1]


def _directions(x: Tensor) -> Tensor:
    return torch.eye(x.shape[0], dtype=x.dtype, device=x.device)


def _square(u: FieldFunction, x: Tensor, name: str) -> Tensor:
    slopes = jacobian(u)(x)
    if slopes.ndim != 2 or slopes.shape[0] != slopes.shape[1]:
        raise ValueError(
            f"{name} needs a vector field [{x.shape[0]}], one component an axis, got values {_values(slopes)}"
        )
    return slopes


def _values(slopes: Tensor) -> list[int]:
    return list(slopes.shape[:-1])


def _check_point(x: Tensor) -> None:
    if isinstance(x, Jet):
        raise ValueError("taylor=True does not pass through the operator that u is made by: use taylor=False")
    if x.ndim != 1:
        raise ValueError(f"an operator's field takes one point [d], got {tuple(x.shape)}: take over(u, points)")
