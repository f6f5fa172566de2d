"""Samplers that run backwards exactly, from the final state and one more beside it: BDIA, EDICT, O-BELM.

Each step is solved for the older state in closed form, so that only rounding is left, times what the way back
multiplies it by: `growth`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from sciode.diffusion.path import Node, Path
from sciode.diffusion.plan import Plan
from sciode.diffusion.samplers.base import Sampler
from sciode.diffusion.weights import adams_weights, keep

__all__ = ["REVERSIBLE"]

_Step = tuple[float, float, float]
"""x_next = older * x_before + (own * x + noise * eps(x))."""


def _ddim(path: Path, s: Node, t: Node) -> tuple[float, float]:
    return keep("noise", s, t), adams_weights(path, "noise", s, t, [s])[0]


def _bdia(path: Path, before: Node, s: Node, t: Node, gamma: float) -> _Step:
    """DDIM's step to t, and gamma times what DDIM's step back to the node before leaves over."""
    (forth, forth_eps), (back, back_eps) = _ddim(path, s, t), _ddim(path, s, before)
    return gamma, forth - gamma * back, forth_eps - gamma * back_eps


def _belm(path: Path, before: Node, s: Node, t: Node) -> _Step:
    """Exact for y = x / alpha quadratic in rho: with ratio r of the steps y_next = r^2 y_before + (1 - r^2) y + h (1 +
    r) eps."""
    h, r = t.rho - s.rho, (t.rho - s.rho) / (s.rho - before.rho)
    return r**2 * t.alpha / before.alpha, (1 - r**2) * t.alpha / s.alpha, h * (1 + r) * t.alpha


def _plan(path: Path, step, **options: float) -> Plan:
    """The first step is DDIM's; memory is the state before the last."""
    plan, older = Plan(), 0
    own, noise = _ddim(path, path.nodes[0], path.nodes[1])
    x = plan.mix((older, own), (plan.call(older, path.nodes[0], "noise"), noise))
    for before, s, t in _triples(path):
        c, own, noise = step(path, before, s, t, **options)
        eps = plan.call(x, s, "noise")
        older, x = x, plan.mix((plan.mix((x, own), (eps, noise)), 1.0), (older, c))
    plan.result, plan.memory = x, (older,)
    return plan


def _inverse(path: Path, step, **options: float) -> Plan:
    """Inputs: the final state and the one before it."""
    plan, newer, x = Plan(inputs=2), 0, 1
    for before, s, t in reversed(_triples(path)):
        c, own, noise = step(path, before, s, t, **options)
        eps = plan.call(x, s, "noise")
        # The same sum, in the same order, as on the way there: its rounding cancels.
        newer, x = x, plan.mix((newer, 1 / c), (plan.mix((x, own), (eps, noise)), -1 / c))
    plan.result = x
    return plan


def _triples(path: Path) -> Sequence[tuple[Node, Node, Node]]:
    return list(zip(path.nodes, path.nodes[1:], path.nodes[2:], strict=False))


def _growth(path: Path, step, **options: float) -> float:
    """The product of 1 / older over the steps."""
    return math.prod(1 / abs(step(path, *three, **options)[0]) for three in _triples(path))


def _edict_coefficients(s: Node, t: Node) -> tuple[float, float]:
    return t.alpha / s.alpha, t.sigma - t.alpha / s.alpha * s.sigma


def _edict(path: Path, p: float) -> Plan:
    """Two coupled states: each steps by the other's noise, then both are mixed. Memory is the second."""
    plan, x, y = Plan(), 0, 0
    for s, t in pairwise(path.nodes):
        a, b = _edict_coefficients(s, t)
        x_new = plan.mix((x, a), (plan.call(y, s, "noise"), b))
        y_new = plan.mix((y, a), (plan.call(x_new, s, "noise"), b))
        x = plan.mix((x_new, p), (y_new, 1 - p))
        y = plan.mix((y_new, p), (x, 1 - p))
    plan.result, plan.memory = x, (y,)
    return plan


def _edict_inverse(path: Path, p: float) -> Plan:
    plan, x, y = Plan(inputs=2), 0, 1
    for s, t in reversed(list(pairwise(path.nodes))):
        a, b = _edict_coefficients(s, t)
        y_new = plan.mix((y, 1 / p), (x, -(1 - p) / p))
        x_new = plan.mix((x, 1 / p), (y_new, -(1 - p) / p))
        y = plan.mix((y_new, 1 / a), (plan.call(x_new, s, "noise"), -b / a))
        x = plan.mix((x_new, 1 / a), (plan.call(y, s, "noise"), -b / a))
    plan.result = x
    return plan


def _edict_growth(path: Path, p: float) -> float:
    """Unmixing multiplies the difference of the states by 1 / p^2 a step."""
    return p ** (-2 * path.steps)


REVERSIBLE: tuple[Sampler, ...] = (
    Sampler(
        "bdia", 2, _plan, inverse=_inverse, growth=_growth, options={"step": _bdia, "gamma": 1.0},
        source="Zhang et al. (2024), exact diffusion inversion via bidirectional integration approximation",
    ),
    Sampler(
        "edict", 1, _edict, inverse=_edict_inverse, growth=_edict_growth, evaluations=lambda steps: 2 * steps,
        options={"p": 0.93}, source="Wallace et al. (2023), EDICT",
    ),
    Sampler(
        "belm", 2, _plan, inverse=_inverse, growth=_growth, options={"step": _belm},
        source="Wang et al. (2024), BELM; weights re-derived: the two-step formula of least order error",
    ),
)  # fmt: skip
"""bdia: gamma = 1 is of order 2 and multiplies rounding by 1; any other gamma is of order 1 and by gamma^-(N-1).
edict: p^(-2N). belm: as its older weights are below 1 on grids that are finer towards the data, see `growth`."""
