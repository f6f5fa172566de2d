"""Weights against the integrals that define them, in 30 digits by another library, from the equations alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy

from sciode.diffusion import EDM, Discrete, ModelStatistics, RectifiedFlow, VPLinear
from sciode.diffusion.path import Node, Path
from sciode.diffusion.plan import Mix, Plan
from sciode.diffusion.samplers.registry import catalogue
from sciode.diffusion.weights import adams_weights, keep

mp: Any = mpmath.mp.clone()
mp.dps = 30
PATH = Path.of(VPLinear(), [0.8, 0.65, 0.55, 0.4])
LINES: dict[str, Callable[[Any], Any]] = {
    "lambda": lambda lam: lam,
    "rho": lambda lam: mp.exp(-lam),
    "asinh": lambda lam: mp.asinh(mp.exp(lam)),
    "t": lambda lam: _time(lam),
}


def _time(lam: Any) -> Any:
    """log alpha = -(b1 - b0) t^2 / 4 - b0 t / 2 with b0 = 0.1 and b1 = 20, solved for t."""
    first, rise = mp.mpf(1) / 10, mp.mpf(199) / 10
    return (mp.sqrt(first**2 + 2 * rise * mp.log1p(mp.exp(-2 * lam))) - first) / rise


def _basis(u: Callable[[Any], Any], nodes: list[Node], j: int) -> Callable[[Any], Any]:
    places = [u(mp.mpf(node.lam)) for node in nodes]

    def value(lam: Any) -> Any:
        out = mp.mpf(1)
        for k, place in enumerate(places):
            if k != j:
                out *= (u(lam) - place) / (places[j] - place)
        return out

    return value


@pytest.mark.parametrize("eta", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("variable", LINES)
@pytest.mark.parametrize("kind", ["data", "noise"])
def test_adams_weights_are_their_integrals(kind: str, variable: str, eta: float) -> None:
    """For the mean m of x / sigma e^(eta lambda) dm = (1 + eta) e^((1 + eta) lambda) D dlambda; and d(x / alpha) =
    -e^-lambda eps dlambda."""
    if kind == "noise" and eta:
        with_noise = adams_weights(PATH, kind, PATH.nodes[2], PATH.nodes[3], PATH.nodes[2::-1], variable)
        assert with_noise == adams_weights(PATH, kind, PATH.nodes[2], PATH.nodes[3], PATH.nodes[2::-1], variable, eta)
        return
    nodes = list(PATH.nodes[2::-1])
    s, t = PATH.nodes[2], PATH.nodes[3]
    sigma, alpha = mp.mpf(t.sigma), mp.mpf(t.alpha)
    for count in (1, 2, 3):
        found = adams_weights(PATH, kind, s, t, nodes[:count], variable, eta)
        for j, weight in enumerate(found):
            basis = _basis(LINES[variable], nodes[:count], j)
            if kind == "data":
                rate = 1 + mp.mpf(eta)
                inside = lambda lam, basis=basis, rate=rate: rate * mp.exp(rate * lam) * basis(lam)  # noqa: E731
                front = sigma * mp.exp(-mp.mpf(eta) * mp.mpf(t.lam))
            else:
                inside, front = (lambda lam, basis=basis: -mp.exp(-lam) * basis(lam)), alpha
            wanted = front * mp.quad(inside, [mp.mpf(s.lam), mp.mpf(t.lam)])
            assert weight == pytest.approx(float(wanted), rel=1e-12, abs=1e-15)
    assert keep("data", s, t, eta) == pytest.approx(
        t.sigma / s.sigma * float(mp.exp(-eta * (t.lam - s.lam))), rel=1e-14
    )


def _line(plan: Plan, n: int) -> Mix:
    mixes = [line for line in plan.lines if isinstance(line, Mix)]
    return mixes[n]


@pytest.mark.parametrize(("l", "s", "b"), [(0.4, -0.3, 0.7), (1.0, 0.0, 0.0), (0.0, -1.0, 0.2)])
def test_v3_is_the_variation_of_constants_of_its_linear_law(l: float, s: float, b: float) -> None:  # noqa: E741
    """For constant statistics dy/dlambda = -l y - f with f' = s f + b has a closed form, which one step of one value
    is."""
    schedule = VPLinear()
    path = Path.of(schedule, [0.6, 0.4])
    n0, n1 = path.nodes
    ems = ModelStatistics.constant(n0.lam, n1.lam, l=l, s=s, b=b)
    plan = catalogue()["dpm-v3-1"].program(path, ems=ems)  # type: ignore[union-attr]
    f0, step = _line(plan, 0), _line(plan, 1)
    x, eps = 0.8, -0.5
    found_f = sum(float(c) * value for (_, c), value in zip(f0.terms, (eps, x), strict=True))
    found = float(step.terms[0][1]) * x + float(step.terms[1][1]) * found_f + float(step.constant)
    y0 = mp.mpf(x) / mp.mpf(n0.alpha)
    f_start = mp.exp(-mp.mpf(n0.lam)) * mp.mpf(eps) - mp.mpf(l) * y0
    assert found_f == pytest.approx(float(f_start), rel=1e-12)
    span = mp.mpf(n1.lam) - mp.mpf(n0.lam)

    def f(v: Any) -> Any:
        """Solves f' = s f + b from f_start."""
        grown = mp.exp(mp.mpf(s) * v)
        return f_start * grown + mp.mpf(b) * (v if s == 0 else (grown - 1) / mp.mpf(s))

    integral = mp.quad(lambda v: mp.exp(mp.mpf(l) * (v - span)) * f(v), [0, span])
    y1 = mp.exp(-mp.mpf(l) * span) * y0 - integral
    assert found == pytest.approx(float(y1 * mp.mpf(n1.alpha)), rel=1e-12)


def test_fixed_weights_are_adams_and_bashforths() -> None:
    """Integrals over [0, 1] of the polynomials through 0, -1, -2, ..., as fractions."""
    from sciode.diffusion.samplers.fixed_weights import _ADAMS

    u = sympy.symbols("u")
    for count, row in enumerate(_ADAMS, 1):
        for j, weight in enumerate(row):
            basis = sympy.prod((u + k) / sympy.Integer(k - j) for k in range(count) if k != j)
            assert weight == pytest.approx(float(sympy.integrate(sympy.expand(basis), (u, 0, 1))), rel=1e-14)


def _carried(
    name: str, schedule: Any, rho: list[float], y: Callable[[float], float], slope: float
) -> tuple[float, float]:
    """x after two steps of a two-step inverter whose states so far are alpha y(rho) exactly, and alpha y there."""
    path = Path.of(schedule, [float(schedule.t_of(-np.log(r))) for r in rho])
    plan = catalogue()[name].program(path)  # type: ignore[union-attr]
    before, here, after = path.nodes
    own, last = _line(plan, 1), _line(plan, 2)
    inner = own.terms[0][1] * y(here.rho) * here.alpha + own.terms[1][1] * slope
    found = last.terms[0][1] * inner + last.terms[1][1] * y(before.rho) * before.alpha
    return found, y(after.rho) * after.alpha


def test_two_step_inverters_are_exact_for_what_they_claim() -> None:
    """y = x / alpha quadratic in rho, eps = dy / drho: O-BELM by any steps on any schedule, BDIA by equal ones where
    alpha is 1 (its increments are those of x)."""

    def y(r: float) -> float:
        return 0.3 - 1.1 * r + 0.45 * r**2

    for schedule in (VPLinear(), Discrete.scaled_linear(), RectifiedFlow(), EDM()):
        rho = [2.4, 1.6, 0.9]
        found, wanted = _carried("belm", schedule, rho, y, -1.1 + 0.9 * rho[1])
        assert found == pytest.approx(wanted, rel=1e-9)
    rho = [2.0, 1.6, 1.2]
    found, wanted = _carried("bdia", EDM(), rho, y, -1.1 + 0.9 * rho[1])
    assert found == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("h", "ratio"), [(9.58 / 20, 0.72), (9.58 / 39, 0.55), (9.58 / 80, 0.36)])
def test_what_the_right_second_derivative_gains_where_the_data_prediction_is_one_mode(h: float, ratio: float) -> None:
    """One step for D = e^lambda: the error of 3M over that of 3M with half the second derivative. At 20 steps over the
    9.58 units of log-SNR of the benchmarks it is 0.72, and 0.55 from 39 steps on: why few steps gain little."""
    places = [-2 * h, -h, 0.0, h]
    path = Path.of(EDM(), [math.exp(-lam) for lam in places])
    c, b, s, t = path.nodes
    values = np.exp([s.lam, b.lam, c.lam])
    right = float(np.dot(adams_weights(path, "data", s, t, [s, b, c]), values))
    # What the second divided difference, h^2 D'' / 2, adds: half of it is missing from theirs.
    bend = values[0] - 2 * values[1] + values[2]
    curved = float(mp.quad(lambda u: mp.exp(u - h) * (u / h) ** 2 / 2 * bend, [0, h]))
    exact = float(mp.quad(lambda u: mp.exp(u - h) * mp.exp(u), [0, h]))
    assert (right - exact) / (right - curved / 2 - exact) == pytest.approx(ratio, abs=0.01)
