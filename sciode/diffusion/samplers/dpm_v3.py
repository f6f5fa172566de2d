"""DPM-Solver-v3: an exponential integrator whose linear part is the model's own, component by component.

With L, S the integrals of l, s from the start of a step and B that of e^-S b, f = e^S (g + B) makes g as constant as a
linear law can, and

    y_t = e^-L_t (y_s - integral of e^(L + S) (g + B) dlambda),   g_j = e^-S_j f_j - B_j at node j,

where g is interpolated through the last values. Integrals by Gauss and Legendre's rule, at any lambda.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sciode.diffusion.path import Node, Path
from sciode.diffusion.plan import Plan
from sciode.diffusion.samplers.base import Sampler
from sciode.diffusion.samplers.multistep import FEW_STEPS
from sciode.diffusion.statistics import ModelStatistics
from sciode.diffusion.weights import derivative_basis, lagrange, points_between, running_between

__all__ = ["DPM_V3", "ExponentialStep", "exponential_step"]

Array = NDArray[np.float64]


class _Value(NamedTuple):
    node: Node
    f: int


class ExponentialStep(NamedTuple):
    """x_t = kept x_s + sum_j weights[j] f_j + constant, arrays of one sample's shape."""

    kept: Array
    weights: list[Array]
    constant: Array


def _plan(
    path: Path, ems: ModelStatistics, nodes: int, corrector: int, below: float, pseudo: bool, lower_final: bool | None
) -> Plan:
    """nodes: values of the predictor; corrector: values of the corrector, the new one among them (0 = none).

    below: the corrector acts where t <= below, all over by default; half of the time range under strong guidance.
    pseudo: derivatives from as few values as give them. lower_final: as in `multistep.py`.
    """
    plan, x = Plan(), 0
    known: list[_Value] = []
    lower = path.steps < FEW_STEPS if lower_final is None else lower_final
    for i, (s, t) in enumerate(pairwise(path.nodes)):
        if not known or known[0].node is not s:
            known.insert(0, _value(plan, ems, x, s))
        left = path.steps - i if lower else nodes
        start = x
        x = _stepped(plan, ems, start, s, t, known[: min(nodes, left)], pseudo)
        if corrector and i + 1 < path.steps and t.t <= below:
            new = _value(plan, ems, x, t)
            x = _stepped(plan, ems, start, s, t, [new, *known[: corrector - 1]], pseudo)
            # f is kept as it was at the predicted state.
            known.insert(0, new)
        del known[max(nodes, corrector) :]
    plan.result = x
    return plan


def _value(plan: Plan, ems: ModelStatistics, x: int, at: Node) -> _Value:
    """f = e^-lambda eps - l x / alpha."""
    eps = plan.call(x, at, "noise")
    return _Value(at, plan.mix((eps, at.rho), (x, -ems.value("l", [at.lam])[0] / at.alpha)))


def _stepped(plan: Plan, ems: ModelStatistics, x: int, s: Node, t: Node, known: Sequence[_Value], pseudo: bool) -> int:
    lams = [value.node.lam for value in known]

    def basis(at: Array) -> list[Array]:
        return derivative_basis(at, lams, True) if pseudo else [lagrange(at, lams, j) for j in range(len(lams))]

    step = exponential_step(ems, s, t, [value.node for value in known], basis)
    terms = ((value.f, w) for value, w in zip(known, step.weights, strict=True))
    return plan.mix((x, step.kept), *terms, constant=step.constant)


def exponential_step(
    ems: ModelStatistics, s: Node, t: Node, nodes: Sequence[Node], basis: Callable[[Array], list[Array]]
) -> ExponentialStep:
    """The weights of f at `nodes` in a step from s to t, for values that are interpolated by `basis(lambda)`.

    Raises ValueError for statistics that grow beyond all numbers within the step.
    """
    try:
        with np.errstate(over="raise"):
            return _weighed(ems, s, t, nodes, basis)
    except FloatingPointError as fault:
        raise ValueError(
            f"ems: the statistics overflow between lambda = {s.lam:.2f} and {t.lam:.2f}; estimate them from more data "
            "(some 1,000 samples at 64 points), or with a lower degree"
        ) from fault


def _weighed(
    ems: ModelStatistics, s: Node, t: Node, nodes: Sequence[Node], basis: Callable[[Array], list[Array]]
) -> ExponentialStep:
    at, quadrature = points_between(s.lam, t.lam)
    ones, count = (slice(None), *[None] * len(ems.shape)), len(nodes)
    lams = [node.lam for node in nodes]
    start_l, end_l, *_ = big_l = ems.integral("l", [s.lam, t.lam, *at])
    start_s, *_ = big_s = ems.integral("s", [s.lam, *lams, *at])
    kernel = np.exp(big_l[2:] - start_l + big_s[1 + count :] - start_s) * quadrature[ones]
    shrink = np.exp(start_l - end_l)
    weights = [-shrink * (kernel * share[ones]).sum(0) for share in basis(at)]
    own = _drift(ems, s.lam, lams)
    along = np.tensordot(running_between(s.lam, t.lam), np.exp(start_s - big_s[1 + count :]) * ems.value("b", at), 1)
    constant = -shrink * (kernel * along).sum(0) - sum(w * b for w, b in zip(weights, own, strict=True))
    damp = np.exp(start_s - big_s[1 : 1 + count])
    scaled = [t.alpha * w * e for w, e in zip(weights, damp, strict=True)]
    return ExponentialStep(t.alpha / s.alpha * shrink, scaled, t.alpha * constant)


def _drift(ems: ModelStatistics, start: float, lams: Sequence[float]) -> Array:
    """B(lambda), the integral of e^-S b from the start of the step, at values' own nodes: [n, *shape]."""
    at, quadrature = points_between(start, np.asarray(lams))
    flat = at.ravel()
    inside = np.exp(ems.integral("s", [start]) - ems.integral("s", flat)) * ems.value("b", flat)
    return np.einsum("qn,qn...->n...", quadrature, inside.reshape(*at.shape, *ems.shape))


_SOURCE = "Zheng et al. (2023), DPM-Solver-v3"


def _sampler(name: str, order: int, nodes: int, corrector: int) -> Sampler:
    options = {"nodes": nodes, "corrector": corrector, "below": math.inf, "pseudo": False, "lower_final": None}
    return Sampler(name, order, _plan, wants="ems", options=options, source=_SOURCE)


DPM_V3: tuple[Sampler, ...] = (
    _sampler("dpm-v3-1", 1, 1, 0),
    _sampler("dpm-v3-2", 2, 2, 0),
    _sampler("dpm-v3-3", 3, 3, 0),
    _sampler("dpm-v3", 3, 3, 3),
)
"""dpm-v3-p extrapolates p values; dpm-v3 is of order 3 with a corrector through three values, which costs nothing."""
