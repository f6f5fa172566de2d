"""Stochastic Runge-Kutta tables: data, one constant a method, and the classes that refuse a table that is wrong.

W is the increment of a step of length h and H its space-time Levy area, so that int W dt over the step is h (W/2 + H);
E W^2 = h, E H^2 = h/12, E W H = 0. All tables are explicit: row i has i entries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SHARK", "SOSRI", "SPARK", "SRA1", "SRIW1", "AdditiveTableau", "ItoTableau", "StratonovichTableau"]

Row = tuple[float, ...]
Matrix = tuple[Row, ...]
Array = NDArray[np.float64]

# Residuals are relative to the size of their terms; a wrong digit leaves far more.
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class AdditiveTableau:
    """Strong order 1.5 for dy = f dt + g(t) dW, in either calculus.

        k_i = f(t + c_i dt, y + dt sum_j a_ij k_j + g(t) (w_i W + h_i H)),
        y1 = y + dt sum_i b_i k_i + g(t) (W/2 + H) + g(t + dt) (W/2 - H),
        error = y1 - (y + dt k_1 + g(t) W) = O(dt^1.5).

    ValueError unless, with <x> = sum_i b_i x_i: <1> = 1, <c> = <w> = 1/2, <h> = 1, <w^2 + h^2 / 12> = 1/2.
    Source: Roessler: Runge-Kutta methods for the strong approximation of solutions of stochastic differential equations
    (SIAM J. Numer. Anal. 48, 2010), section 6.3, with I_10 = dt (W/2 + H).
    """

    name: str
    a: Matrix
    w: Row
    h: Row
    b: Row
    reference: str = ""

    def __post_init__(self) -> None:
        a, b, w, h = _square(self.a), *(np.array(x, dtype=float) for x in (self.b, self.w, self.h))
        _require(self.name, {
            "b sums to 1": (b, 1.0),
            "<c> = 1/2": (b * a.sum(1), 0.5),
            "<w> = 1/2": (b * w, 0.5),
            "<h> = 1": (b * h, 1.0),
            "<w^2 + h^2 / 12> = 1/2": (b * (w * w + h * h / 12), 0.5),
        })  # fmt: skip

    @property
    def c(self) -> Row:
        """The nodes."""
        return _sums(self.a)


@dataclass(frozen=True)
class StratonovichTableau:
    """Strong order 1 for commutative noise, 1/2 for general, and 1.5 for additive noise.

        f_i, g_i = (f, g)(t + c_i dt, y + dt sum_j a_ij f_j + sum_j g_j (w_ij W + h_ij H)),
        y1 = y + dt sum_i b_i f_i + sum_i g_i (bw_i W + bh_i H),  error = y1 - y^, where y^ has the weights eb, ew, eh.

    y^ has to be a method of strong order 1 by itself, so that the error is O(dt^1.5). ValueError unless, with u = sum_j
    w_ij, v = sum_j h_ij: b and bw sum to 1, bh to 0; bw u = 1/2, bh u + bw v = 0, bh v = 0 (the same for y^); and for
    additive noise b c = b u = bw c = 1/2, b v = 1, bh c = -1, b (u^2 + v^2 / 12) = 1/2.
    Source: Foster, dos Reis, Strange: High order splitting methods for SDEs satisfying a commutativity condition (SIAM
    J. Numer. Anal. 62, 2024); Taylor expansions of both sides.
    """

    name: str
    a: Matrix
    w: Matrix
    h: Matrix
    b: Row
    bw: Row
    bh: Row
    eb: Row
    ew: Row
    eh: Row
    reference: str = ""

    def __post_init__(self) -> None:
        a, u, v = (_square(x).sum(1) for x in (self.a, self.w, self.h))
        b, bw, bh, eb, ew, eh = (np.array(x) for x in (self.b, self.bw, self.bh, self.eb, self.ew, self.eh))
        conditions = {
            "b c = 1/2": (b * a, 0.5),
            "b u = 1/2": (b * u, 0.5),
            "b v = 1": (b * v, 1.0),
            "b (u^2 + v^2 / 12) = 1/2": (b * (u * u + v * v / 12), 0.5),
            "bw c = 1/2": (bw * a, 0.5),
            "bh c = -1": (bh * a, -1.0),
        }
        for which, (d, dw, dh) in {"": (b, bw, bh), "embedded ": (eb, ew, eh)}.items():
            conditions |= {
                f"{which}b sums to 1": (d, 1.0),
                f"{which}bw sums to 1": (dw, 1.0),
                f"{which}bh sums to 0": (dh, 0.0),
                f"{which}bw u = 1/2": (dw * u, 0.5),
                f"{which}bh u + bw v = 0": (dh * u + dw * v, 0.0),
                f"{which}bh v = 0": (dh * v, 0.0),
            }
        _require(self.name, conditions)

    @property
    def c(self) -> Row:
        """The nodes."""
        return _sums(self.a)


@dataclass(frozen=True)
class ItoTableau:
    """Strong order 1.5 for diagonal noise with g_i(t, y_i), and for scalar noise.

        f_i = f(t + c0_i dt, y + dt sum_j a0_ij f_j + (W/2 + H) sum_j b0_ij g_j),
        g_i = g(t + c1_i dt, y + dt sum_j a1_ij f_j + sqrt(dt) sum_j b1_ij g_j),
        y1 = y + dt sum_i alpha_i f_i + sum_i g_i (beta1_i I_1 + beta2_i I_11 / sqrt(dt) + beta3_i I_10 / dt
            + beta4_i I_111 / dt),
        error = y1 - y^, where y^ = y + dt f_1 + sum_i g_i (beta1_i I_1 + beta2_i I_11 / sqrt(dt)),

    with I_1 = W, I_11 = (W^2 - dt)/2, I_10 = dt (W/2 + H), I_111 = (W^3 - 3 dt W)/6. y^ is a method of strong order 1,
    so the error is O(dt^1.5). ValueError if one of the 25 conditions of order 1.5 fails.
    Source: Roessler (SIAM J. Numer. Anal. 48, 2010), theorem 5.1; the embedding: Rackauckas, Nie: Adaptive methods for
    stochastic differential equations via natural embeddings and rejection sampling with memory (DCDS-B 22, 2017).
    """

    name: str
    a0: Matrix
    b0: Matrix
    a1: Matrix
    b1: Matrix
    alpha: Row
    beta: tuple[Row, Row, Row, Row]
    reference: str = ""

    def __post_init__(self) -> None:
        a0, b0, a1, b1 = (_square(x) for x in (self.a0, self.b0, self.a1, self.b1))
        alpha, beta = np.array(self.alpha), np.array(self.beta)
        kicked = b1.sum(1)
        # What the weights of g must give against: 1 (from g), g'g, g'f, g''gg, g'g'g.
        wanted = {
            "1": (np.ones_like(alpha), (1, 0, 0, 0)),
            "b1": (kicked, (0, 1, 0, 0)),
            "a1": (a1.sum(1), (1, 0, -1, 0)),
            "b1^2": (kicked**2, (1, 0, -1, 2)),
            "b1 b1": (b1 @ kicked, (0, 0, 0, 1)),
        }
        conditions = {
            f"beta{k + 1} {name} = {value}": (beta[k] * vector, float(value))
            for name, (vector, values) in wanted.items()
            for k, value in enumerate(values)
        }
        conditions |= {
            "alpha sums to 1": (alpha, 1.0),
            "alpha a0 = 1/2": (alpha * a0.sum(1), 0.5),
            "alpha b0 = 1": (alpha * b0.sum(1), 1.0),
            "alpha b0^2 = 3/2": (alpha * b0.sum(1) ** 2, 1.5),
            "(beta1 / 2 + beta3 / 3) a1 b0 = 0": ((beta[0] / 2 + beta[2] / 3) * (a1 @ b0.sum(1)), 0.0),
        }
        _require(self.name, conditions)

    @property
    def c0(self) -> Row:
        """The nodes of the drift."""
        return _sums(self.a0)

    @property
    def c1(self) -> Row:
        """The nodes of the diffusion."""
        return _sums(self.a1)


def _sums(rows: Matrix) -> Row:
    return tuple(math.fsum(row) for row in rows)


def _square(rows: Matrix) -> Array:
    """Rows of i entries as a matrix."""
    return np.array([(*row, *(0.0,) * (len(rows) - len(row))) for row in rows], dtype=float)


def _require(name: str, conditions: dict[str, tuple[Iterable[float], float]]) -> None:
    """ValueError naming the first condition whose terms do not sum to its value."""
    for condition, (terms, value) in conditions.items():
        terms = list(terms)
        residual = abs(math.fsum(terms) - value)
        if not residual <= _TOLERANCE * max(1.0, math.fsum(map(abs, terms))):
            raise ValueError(f"tableau {name!r}: the condition {condition} fails by {residual:.1e}: correct an entry")


SRA1 = AdditiveTableau(
    name="sra1",
    a=((), (3 / 4,)),
    w=(0, 3 / 4),
    h=(0, 3 / 2),
    b=(1 / 3, 2 / 3),
    reference="Roessler (2010), table 6.3",
)

SHARK = AdditiveTableau(
    name="shark",
    a=((), (5 / 6,)),
    w=(0, 5 / 6),
    h=(1, 1),
    b=(2 / 5, 3 / 5),
    reference="Foster, dos Reis & Strange (2024), equation (6.1)",
)

_R3 = math.sqrt(3)

SPARK = StratonovichTableau(
    name="spark",
    a=((), (1 / 2,), (0, 1)),
    w=((), (1 / 2,), (0, 1)),
    h=((), (_R3,), (0, 0)),
    b=((3 - _R3) / 6, _R3 / 3, (3 - _R3) / 6),
    bw=((3 - _R3) / 6, _R3 / 3, (3 - _R3) / 6),
    bh=(1, 0, -1),
    eb=(1 / 2, 0, 1 / 2),
    ew=(1 / 2, 0, 1 / 2),
    eh=(0, 0, 0),
    reference="Foster & Jelincic (2023), definition 1.6",
)

SRIW1 = ItoTableau(
    name="sriw1",
    a0=((), (3 / 4,), (0, 0), (0, 0, 0)),
    b0=((), (3 / 2,), (0, 0), (0, 0, 0)),
    a1=((), (1 / 4,), (1, 0), (0, 0, 1 / 4)),
    b1=((), (1 / 2,), (-1, 0), (-5, 3, 1 / 2)),
    alpha=(1 / 3, 2 / 3, 0, 0),
    beta=(
        (-1, 4 / 3, 2 / 3, 0),
        (-1, 4 / 3, -1 / 3, 0),
        (2, -4 / 3, -2 / 3, 0),
        (-2, 5 / 3, -2 / 3, 1),
    ),
    reference="Roessler (2010), table 6.1",
)

SOSRI = ItoTableau(
    name="sosri",
    a0=(
        (),
        (-0.04199224421316468,),
        (2.842612915017106, -2.0527723684000727),
        (4.338237071435815, -2.8895936137439793, 2.3017575594644466),
    ),
    b0=(
        (),
        (-0.21641093549612528,),
        (1.5336352863679572, 0.26066223492647056),
        (-1.0536037558179159, 1.7015284721089472, -0.20725685784180017),
    ),
    a1=(
        (),
        (0.26204282091330466,),
        (0.20903646383505375, -0.1502377115150361),
        (0.05836595312746999, 0.6149440396332373, 0.08535117634046772),
    ),
    b1=(
        (),
        (-0.5119011827621657,),
        (2.67767339866713, -4.9395031322250995),
        (0.15580956238299215, 3.2361551006624674, -1.4223118283355949),
    ),
    alpha=(1.140099274172029, -0.6401334255743456, 0.4736296532772559, 0.026404498125060714),
    beta=(
        (-1.8453464565104432, 2.688764531100726, -0.2523866501071323, 0.40896857551684956),
        (0.4969658141589478, -0.5771202869753592, -0.12919702470322217, 0.2093514975196336),
        (2.8453464565104425, -2.688764531100725, 0.2523866501071322, -0.40896857551684945),
        (0.11522663875443433, -0.57877086147738, 0.2857851028163886, 0.17775911990655704),
    ),
    reference="Rackauckas & Nie: Stability-optimized high order methods (2020)",
)
