"""Fully implicit Runge-Kutta tables: the class that refuses a wrong one, and one constant a method."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import ArrayLike, NDArray

from sciode.solvers.tableaux.base import HIGHEST_CHECKED_ORDER
from sciode.solvers.tableaux.refusal import require, require_claims
from sciode.solvers.tableaux.trees import order_of, order_residuals, trees_up_to

Array = NDArray[np.float64]

# Residuals are relative to the size of their terms: rounding leaves below 1e-14, a wrong digit far more.
_TOLERANCE = 1e-12


@dataclass(frozen=True, repr=False)
class ImplicitTableau:
    """Coefficients of a fully implicit Runge-Kutta method; one that breaks a condition raises ValueError when built.

    One step from (t, y0) to (t + dt, y1) solves for all stages at once:

        Y_i = y0 + dt sum_j a_ij f(t + c_j dt, Y_j),   y1 = y0 + dt sum_i b_i f(t + c_i dt, Y_i).

    - `name`: lower-case letters and digits, such as "radauiia5".
    - `order`: the order of y1, verified to order 8 by rooted trees.
    - `c` [stages], `a` [stages][stages], `b` [stages]: all dimensionless; row i of a sums to c_i.
    - `reference`: paper or book.

    Attributes that follow from the coefficients:

    - `stages`: their number. A row of zeros in `a` is a stage that is known, Y_i = y0 (Crank-Nicolson's first).
    - `stage_order`: the largest q with sum_j a_ij c_j^(k-1) = c_i^k / k for all i and k = 1 ... q. On stiff problems
      and on PDEs with boundary values the order seen may fall towards it.
    - `stiffly_accurate`: the last row of a is b, so that y1 = Y_stages and no b-weighted sum is needed.
    - `numerator`, `denominator`: coefficients of P and Q, lowest power first, in R(z) = P(z)/Q(z), where
      y1 = R(dt lambda) y0 for y' = lambda y: Q(z) = det(I - z a), P(z) = det(I - z a + z 1 b^T).
    - `limit`: R(z) as |z| grows, 0 for Radau IIA, (-1)^stages for Gauss; inf if R is unbounded.
    - `a_stable`: |R(z)| <= 1 wherever Re z <= 0. By the maximum principle that is so if Q has no root there and
      |R(iy)| <= 1 for all real y: E(y) = |Q(iy)|^2 - |P(iy)|^2 is a polynomial in y^2, and its sign is looked at
      between its real roots and beyond the last, where it also says |limit| <= 1. Its coefficients are formed in
      float64, and those below 1e-12 of the terms they are sums of count as zero.
    - `l_stable`: A-stable with limit 0: what is stiff is damped, not only bounded.

    Tables are immutable, hashable and equal by value.
    Source: Hairer & Wanner (1996), Solving ODEs II, IV.3 and IV.5; Butcher (2016), section 34.
    """

    name: str
    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    reference: str = ""
    stage_order: int = field(init=False, compare=False)
    stiffly_accurate: bool = field(init=False, compare=False)
    numerator: tuple[float, ...] = field(init=False, compare=False)
    denominator: tuple[float, ...] = field(init=False, compare=False)
    limit: float = field(init=False, compare=False)
    a_stable: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        _set(self, c=_floats(self.c), a=tuple(_floats(row) for row in self.a), b=_floats(self.b))
        require_claims(self.name, self.order)
        _check_shapes(self)
        _check_rows(self)
        _check_order(self)
        _set(self, stage_order=_stage_order(self), stiffly_accurate=self.a[-1] == self.b)
        a = np.array(self.a)
        numerator, denominator = _determinant(a - np.array(self.b)), _determinant(a)
        _set(self, numerator=numerator, denominator=denominator, limit=_limit(numerator, denominator))
        _set(self, a_stable=_is_a_stable(numerator, denominator))

    def __repr__(self) -> str:
        damping = "L-stable" if self.l_stable else "A-stable" if self.a_stable else "not A-stable"
        return f"<ImplicitTableau {self.name}: order {self.order}, {self.stages} stages, {damping}>"

    @property
    def stages(self) -> int:
        """Number of stages of one step."""
        return len(self.b)

    @property
    def l_stable(self) -> bool:
        """Whether the method is A-stable and R vanishes at infinity."""
        return self.a_stable and abs(self.limit) <= _TOLERANCE

    def stability(self, z: ArrayLike) -> Any:
        """R(z) for complex z = dt lambda of any shape; infinite z gives `limit`, a pole gives inf."""
        z = np.asarray(z, dtype=complex)
        # In powers of 1/z where z is large, so that nothing overflows.
        large = np.abs(z) > 1.0
        inverse = np.zeros_like(z)
        np.divide(1.0, z, out=inverse, where=large & np.isfinite(z))
        degree = max(len(self.numerator), len(self.denominator))
        top, bottom = (
            np.where(large, np.polyval(padded, inverse), np.polyval(padded[::-1], np.where(large, 0.0, z)))
            for padded in (np.pad(p, (0, degree - len(p))) for p in (self.numerator, self.denominator))
        )
        result = np.full_like(z, np.inf)
        np.divide(top, bottom, out=result, where=bottom != 0.0)
        return result[()]


def _set(table: ImplicitTableau, **values: object) -> None:
    """Complete a frozen table while it is being built."""
    for name, value in values.items():
        object.__setattr__(table, name, value)


def _floats(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _check_shapes(table: ImplicitTableau) -> None:
    stages = len(table.b)
    require(stages >= 1, table.name, "b is empty; a method has one stage at least")
    require(len(table.c) == stages, table.name, f"c has {len(table.c)} entries for the {stages} stages of b")
    require(len(table.a) == stages, table.name, f"a has {len(table.a)} rows for the {stages} stages of b")
    for i, row in enumerate(table.a):
        require(len(row) == stages, table.name, f"row {i} of a has {len(row)} entries; a is square, with {stages}")


def _check_rows(table: ImplicitTableau) -> None:
    # A comparison that NaN fails, so that a table with NaN or infinity is refused too.
    for i, (row, node) in enumerate(zip(table.a, table.c, strict=True)):
        close = abs(sum(row) - node) <= _TOLERANCE * max(1.0, sum(map(abs, row)))
        message = f"row {i} of a sums to {sum(row)!r} but c[{i}] is {node!r}: one of them is wrong"
        require(close, table.name, message)


def _check_order(table: ImplicitTableau) -> None:
    order = min(table.order, HIGHEST_CHECKED_ORDER)
    residuals = order_residuals(np.array(table.a), np.array(table.b), order)
    failed = np.flatnonzero(~(np.abs(residuals) <= _TOLERANCE))
    if len(failed):
        tree = trees_up_to(order)[failed[0]]
        require(
            False,
            table.name,
            f"order {table.order} claimed, but the order-{order_of(tree)} condition of the rooted tree {tree} fails by "
            f"{residuals[failed[0]]:.1e}: correct a coefficient or lower the claim",
        )


def _stage_order(table: ImplicitTableau) -> int:
    a, c = np.array(table.a), np.array(table.c)
    # Beyond the number of stages only a table whose nodes are all zero could go on.
    holds = (np.abs(a @ c ** (k - 1) - c**k / k).max() <= _TOLERANCE for k in range(1, table.stages + 1))
    return next((k for k, true in enumerate(holds) if not true), table.stages)


def _determinant(matrix: Array) -> tuple[float, ...]:
    """Coefficients of det(I - z matrix), lowest power first, by the recursion of Faddeev and LeVerrier.

    Unlike products over eigenvalues it keeps full accuracy where those coincide.
    """
    size = len(matrix)
    coefficients, power = [1.0], np.eye(size)
    for k in range(1, size + 1):
        product = matrix @ power
        coefficients.append(-float(np.trace(product)) / k)
        power = product + coefficients[-1] * np.eye(size)
    while len(coefficients) > 1 and abs(coefficients[-1]) <= _TOLERANCE:
        coefficients.pop()
    return tuple(coefficients)


def _limit(numerator: tuple[float, ...], denominator: tuple[float, ...]) -> float:
    if len(numerator) != len(denominator):
        return math.inf if len(numerator) > len(denominator) else 0.0
    return numerator[-1] / denominator[-1]


def _is_a_stable(numerator: tuple[float, ...], denominator: tuple[float, ...]) -> bool:
    if len(denominator) > 1 and Polynomial(denominator).roots().real.min() <= _TOLERANCE:
        return False
    (bottom, bottom_size), (top, top_size) = _on_the_axis(denominator), _on_the_axis(numerator)
    count = max(len(bottom), len(top))
    bottom, bottom_size, top, top_size = (np.pad(p, (0, count - len(p))) for p in (bottom, bottom_size, top, top_size))
    gap = np.where(np.abs(bottom - top) <= _TOLERANCE * (bottom_size + top_size), 0.0, bottom - top)
    excess = Polynomial(gap).trim()
    roots = excess.roots() if excess.degree() > 0 else np.zeros(0)
    positive = np.sort(roots[(np.abs(roots.imag) <= 1e-9 * (1.0 + np.abs(roots))) & (roots.real > 0.0)].real)
    ends = np.concatenate([[0.0], positive])
    samples = np.append((ends[1:] + ends[:-1]) / 2.0, 2.0 * ends[-1] + 1.0)
    return bool((excess(samples) >= 0.0).all())


def _on_the_axis(coefficients: tuple[float, ...]) -> tuple[Array, Array]:
    """Coefficients of |p(iy)|^2 in powers of y^2, and the sums of the sizes of their terms."""
    p = np.array(coefficients)
    # p(iy) p(-iy): the product of y^j and y^k has the factor i^j (-i)^k, and odd powers cancel.
    signs = (-1.0) ** np.arange(len(p))
    product, size = np.convolve(p, p * signs), np.convolve(np.abs(p), np.abs(p))
    return product[::2] * (-1.0) ** np.arange(len(p)), size[::2]


_R6, _R15, _R3 = math.sqrt(6.0), math.sqrt(15.0), math.sqrt(3.0)

# One number a line, as the formatter would have it, would hide the shape of the tables.
# fmt: off

IMPLICIT_EULER = ImplicitTableau(
    name="impliciteuler", order=1,
    c=(1,),
    a=((1,),),
    b=(1,),
    reference="Hairer & Wanner (1996), Solving ODEs II, IV.1; Radau IIA of one stage",
)

IMPLICIT_MIDPOINT = ImplicitTableau(
    name="implicitmidpoint", order=2,
    c=(1 / 2,),
    a=((1 / 2,),),
    b=(1,),
    reference="Hairer, Norsett & Wanner (1993), Solving ODEs I, II.7; Gauss of one stage",
)

CRANK_NICOLSON = ImplicitTableau(
    name="cranknicolson", order=2,
    c=(0, 1),
    a=((0, 0),
       (1 / 2, 1 / 2)),
    b=(1 / 2, 1 / 2),
    reference="Crank & Nicolson (1947), Proc. Camb. Phil. Soc. 43; the trapezoidal rule, Lobatto IIIA of two stages",
)

GAUSS_LEGENDRE_4 = ImplicitTableau(
    name="gausslegendre4", order=4,
    c=(1 / 2 - _R3 / 6, 1 / 2 + _R3 / 6),
    a=((1 / 4, 1 / 4 - _R3 / 6),
       (1 / 4 + _R3 / 6, 1 / 4)),
    b=(1 / 2, 1 / 2),
    reference="Hammer & Hollingsworth (1955), MTAC 9; Butcher (1964), Math. Comp. 18",
)

GAUSS_LEGENDRE_6 = ImplicitTableau(
    name="gausslegendre6", order=6,
    c=(1 / 2 - _R15 / 10, 1 / 2, 1 / 2 + _R15 / 10),
    a=((5 / 36, 2 / 9 - _R15 / 15, 5 / 36 - _R15 / 30),
       (5 / 36 + _R15 / 24, 2 / 9, 5 / 36 - _R15 / 24),
       (5 / 36 + _R15 / 30, 2 / 9 + _R15 / 15, 5 / 36)),
    b=(5 / 18, 4 / 9, 5 / 18),
    reference="Butcher (1964), Math. Comp. 18; Kuntzmann (1961), ZAMM 41",
)

RADAU_IIA_3 = ImplicitTableau(
    name="radauiia3", order=3,
    c=(1 / 3, 1),
    a=((5 / 12, -1 / 12),
       (3 / 4, 1 / 4)),
    b=(3 / 4, 1 / 4),
    reference="Ehle (1969), Univ. of Waterloo, report 2010; Hairer & Wanner (1996), Solving ODEs II, IV.5",
)

RADAU_IIA_5 = ImplicitTableau(
    name="radauiia5", order=5,
    c=((4 - _R6) / 10, (4 + _R6) / 10, 1),
    a=(((88 - 7 * _R6) / 360, (296 - 169 * _R6) / 1800, (-2 + 3 * _R6) / 225),
       ((296 + 169 * _R6) / 1800, (88 + 7 * _R6) / 360, (-2 - 3 * _R6) / 225),
       ((16 - _R6) / 36, (16 + _R6) / 36, 1 / 9)),
    b=((16 - _R6) / 36, (16 + _R6) / 36, 1 / 9),
    reference="Ehle (1969), Univ. of Waterloo, report 2010; Hairer & Wanner (1996), Solving ODEs II, IV.5",
)
