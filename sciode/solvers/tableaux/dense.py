"""Dense output derived from a table alone, for tables whose author published none.

Inside a step the solution is a polynomial in theta = (t - t0)/dt,

    y(t0 + theta dt) = y0 + dt sum_i b_i(theta) k_i.

Cubic Hermite interpolation of (y0, f0, y1, f1) is accurate to order 3. Evaluating f on an interpolant accurate to
order q gives slopes good enough for a Hermite-Birkhoff polynomial accurate to order q + 1: each round of this
bootstrap costs a few extra evaluations and gains one order.
Source: Enright, Jackson, Norsett & Thomsen (1986), Interpolants for Runge-Kutta formulas, ACM TOMS 12(3).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

Array = NDArray[np.float64]

HIGHEST_DERIVED_ORDER = 8

# Where f is evaluated to reach an order: chosen by a search on a grid of 0.05 for a small interpolation error and a
# small amplification of the previous interpolant's error. One symmetric node (1/2) would make the problem singular.
_BOOTSTRAP_NODES: dict[int, tuple[float, ...]] = {
    4: (0.2,),
    5: (0.2, 0.8),
    6: (0.15, 0.35, 0.85),
    7: (0.1, 0.3, 0.7, 0.9),
    8: (0.1, 0.25, 0.4, 0.75, 0.9),
}


class DenseOutput(NamedTuple):
    """Extra stages (nodes and rows) and interpolation weights, in the layout of `Tableau`."""

    extra_c: tuple[float, ...]
    extra_a: tuple[tuple[float, ...], ...]
    dense: tuple[tuple[float, ...], ...]


def derive(b: tuple[float, ...], fsal: bool, order: int) -> DenseOutput:
    """Dense output of the given order (1 to 8) for a method of at least that order with weights `b`.

    Order 1 is the straight line. Orders 2 and 3 are the cubic Hermite polynomial, for one extra evaluation (none if
    `fsal`) that the next step can reuse. Orders 4 to 8 add 1, 3, 6, 10 and 15 evaluations by bootstrapping.
    """
    weights = np.array(b)
    if order == 1:
        return DenseOutput((), (), tuple((float(weight),) for weight in weights))
    nodes: list[float] = [] if fsal else [1.0]
    rows: list[Array] = [] if fsal else [weights]
    end = len(b) - 1 if fsal else len(b)
    dense = _interpolate(weights, end, (), len(b) + len(nodes))
    for level in range(4, order + 1):
        first = len(b) + len(nodes)
        for node in _BOOTSTRAP_NODES[level]:
            row = dense @ node ** np.arange(1, dense.shape[1] + 1)
            rows.append(np.pad(row, (0, len(b) + len(nodes) - len(row))))
            nodes.append(node)
        dense = _interpolate(weights, end, _BOOTSTRAP_NODES[level], first)
    return DenseOutput(tuple(nodes), tuple(map(_floats, rows)), tuple(map(_floats, dense)))


def _floats(values: Array) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _interpolate(b: Array, end: int, nodes: tuple[float, ...], first: int) -> Array:
    """b_i(theta) as coefficients [stages so far, powers], from slopes at 0, at 1 (stage `end`) and at `nodes`.

    The slopes at `nodes` are the stages `first`, `first` + 1, ...; stages used by none of the data keep weight zero.
    """
    increment, start_slope, end_slope, *node_slopes = hermite_birkhoff(nodes)
    dense = np.zeros((first + len(nodes), len(increment)))
    dense[: len(b)] += np.outer(b, increment)
    dense[0] += start_slope
    dense[end] += end_slope
    dense[first:] += np.array(node_slopes).reshape(len(nodes), len(increment))
    return dense


@cache
def hermite_birkhoff(nodes: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    """Cardinal polynomials of the data y1 - y0, f0, f1 and f at `nodes`: coefficients of theta, ..., theta^(3 + M).

    The polynomial p of degree 3 + M with p(0) = 0, p(1) = y1 - y0 and p' = f at 0, 1 and the M nodes. p' is the
    Lagrange polynomial of the slopes plus the multiple of the nodal polynomial that makes its integral y1 - y0.
    """
    slopes_at = (0.0, 1.0, *nodes)
    nodal = Polynomial.fromroots(slopes_at).integ()
    increment = nodal / nodal(1.0)
    cardinals = [increment]
    for point in slopes_at:
        lagrange = Polynomial.fromroots([other for other in slopes_at if other != point])
        integral = (lagrange / lagrange(point)).integ()
        cardinals.append(integral - integral(1.0) * increment)
    return tuple(_floats(np.asarray(cardinal.coef[1:], dtype=np.float64)) for cardinal in cardinals)
