"""Backward differentiation tables: the class that refuses a wrong one, and one constant a method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev
from numpy.typing import ArrayLike

from sciode.solvers.tableaux.refusal import require, require_claims

_TOLERANCE = 1e-12
# A double root of rho that rounding has split lies about sqrt(eps) from where it belongs.
_ON_THE_CIRCLE = 1e-6


@dataclass(frozen=True, repr=False)
class MultistepTableau:
    """Coefficients of an implicit multistep method with one slope; a wrong table raises ValueError when built.

    One step of constant size dt solves for y_{n+1}, with f_{n+1} = f(t_{n+1}, y_{n+1}):

        sum_{j=0..k} alpha_j y_{n+1-j} = dt beta f_{n+1},   alpha_0 = 1.

    - `name`: lower-case letters and digits, such as "bdf2".
    - `order`: p. Verified: sum_j alpha_j = 0, sum_j (-j) alpha_j = beta and sum_j (-j)^q alpha_j = 0 for q = 2 ... p.
    - `alpha` [k + 1]: of the newest state first, and 1 there; `beta`: rho'(1), see below, and so not 0.
    - `reference`: paper or book.

    A table whose rho(x) = sum_j alpha_j x^(k-j) has a root outside the unit circle, or a multiple one on it, is not
    zero-stable: errors would grow however small dt is, and the table is refused. With beta = 0 the root 1 is double.

    Attributes that follow from the coefficients:

    - `steps`: k, the number of earlier states that a step reads; the first k - 1 steps need another method.
    - `a_stable`: all solutions for y' = lambda y decay or stay bounded wherever Re lambda <= 0. The region of
      instability is enclosed by z(theta) = sum_j alpha_j e^(-ij theta) / beta, so that is so if Re z(theta) >= 0 all
      along: with x = cos theta it is a Chebyshev series, and its least value on [-1, 1] is found at the zeros of its
      derivative.

    Tables are immutable, hashable and equal by value.
    Source: Hairer, Norsett & Wanner (1993), Solving ODEs I, III.1-III.3; Hairer & Wanner (1996), Solving ODEs II, V.1.
    """

    name: str
    order: int
    alpha: tuple[float, ...]
    beta: float
    reference: str = ""
    a_stable: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", tuple(float(value) for value in self.alpha))
        object.__setattr__(self, "beta", float(self.beta))
        require_claims(self.name, self.order)
        require(
            len(self.alpha) >= 2, self.name, f"alpha has {len(self.alpha)} entries; a step joins two states at least"
        )
        require(self.alpha[0] == 1.0, self.name, f"alpha[0] is {self.alpha[0]}; divide alpha and beta by it")
        require(self.alpha[-1] != 0.0, self.name, "the last entry of alpha is 0: leave it out")
        _check_order(self)
        _check_roots(self)
        object.__setattr__(self, "a_stable", _is_a_stable(self))

    def __repr__(self) -> str:
        damping = "A-stable" if self.a_stable else "not A-stable"
        return f"<MultistepTableau {self.name}: order {self.order}, {self.steps} steps, {damping}>"

    @property
    def steps(self) -> int:
        """Number of earlier states that a step reads."""
        return len(self.alpha) - 1

    def stability(self, z: ArrayLike) -> Any:
        """The largest |x| with sum_j alpha_j x^(k-j) = z beta x^k, for complex z = dt lambda of any shape.

        It is the factor by which a step of y' = lambda y multiplies in the long run; inf at z = 1/beta, where the step
        has no solution.
        """
        z = np.asarray(z, dtype=complex)
        result = np.empty(z.shape)
        for index in np.ndindex(z.shape):
            leading = self.alpha[0] - z[index] * self.beta
            polynomial = np.array([leading, *self.alpha[1:]])
            result[index] = np.inf if leading == 0.0 else np.abs(np.roots(polynomial)).max()
        return result[()]


def _check_order(table: MultistepTableau) -> None:
    alpha, back = np.array(table.alpha), -np.arange(len(table.alpha), dtype=float)
    for power in range(table.order + 1):
        terms = alpha * back**power
        residual = terms.sum() - (table.beta if power == 1 else 0.0)
        # A comparison that NaN fails, so that a table with NaN or infinity is refused too.
        close = bool(abs(residual) <= _TOLERANCE * max(1.0, np.abs(terms).sum()))
        message = (
            f"order {table.order} claimed, but the condition of power {power} fails by {residual:.1e}: correct a "
            "coefficient or lower the claim"
        )
        require(close, table.name, message)


def _check_roots(table: MultistepTableau) -> None:
    roots = np.roots(table.alpha)
    outside = roots[np.abs(roots) > 1.0 + _ON_THE_CIRCLE]
    if len(outside):
        message = f"not zero-stable: rho has the root {outside[0]:.4g}, outside the unit circle"
        require(False, table.name, message)
    circle = roots[np.abs(roots) > 1.0 - _ON_THE_CIRCLE]
    apart = np.abs(circle[:, None] - circle[None, :]) + np.eye(len(circle))
    if len(circle) > 1 and apart.min() <= 2.0 * _ON_THE_CIRCLE:
        require(False, table.name, "not zero-stable: rho has a multiple root on the unit circle")


def _is_a_stable(table: MultistepTableau) -> bool:
    real = Chebyshev(np.array(table.alpha) / table.beta)
    critical = real.deriv().roots() if real.degree() > 1 else np.zeros(0)
    inside = np.clip(critical[np.abs(critical.imag) <= _ON_THE_CIRCLE].real, -1.0, 1.0)
    least = real(np.concatenate([inside, [-1.0, 1.0]])).min()
    return bool(table.beta > 0.0 and least >= -_TOLERANCE * np.abs(table.alpha).sum())


BDF2 = MultistepTableau(
    name="bdf2",
    order=2,
    alpha=(1, -4 / 3, 1 / 3),
    beta=2 / 3,
    reference="Curtiss & Hirschfelder (1952), PNAS 38; Gear (1971), Numerical Initial Value Problems in ODEs",
)

BDF3 = MultistepTableau(
    name="bdf3",
    order=3,
    alpha=(1, -18 / 11, 9 / 11, -2 / 11),
    beta=6 / 11,
    reference="Curtiss & Hirschfelder (1952), PNAS 38; Gear (1971), Numerical Initial Value Problems in ODEs",
)
