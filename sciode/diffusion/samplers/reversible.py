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

StepPair = tuple[Plan, Plan]
"""A step and its way back, (state, memory) -> (state, memory) both; the first step starts from a state alone."""

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


def _pairs(path: Path, step, **options: float) -> list[StepPair]:
    """The first step is DDIM's; the memory of a state is the one before it."""
    own, noise = _ddim(path, path.nodes[0], path.nodes[1])
    there, back = Plan(), Plan(inputs=2, result=1)
    there.result, there.memory = there.mix((0, own), (there.call(0, path.nodes[0], "noise"), noise)), (0,)
    pairs = [(there, back)]
    for before, s, t in _triples(path):
        c, own, noise = step(path, before, s, t, **options)
        there, back = Plan(inputs=2), Plan(inputs=2)
        known = there.mix((0, own), (there.call(0, s, "noise"), noise))
        there.result, there.memory = there.mix((known, 1.0), (1, c)), (0,)
        # The same sum, in the same order, as on the way there: its rounding cancels.
        known = back.mix((1, own), (back.call(1, s, "noise"), noise))
        back.result, back.memory = 1, (back.mix((0, _over(c)), (known, -_over(c))),)
        pairs.append((there, back))
    return pairs


def _forth(path: Path, pairs, **options: float) -> Plan:
    """All steps there."""
    plan = Plan()
    state: tuple[int, ...] = (0,)
    for there, _ in pairs(path, **options):
        x, beside = plan.follow(there, *state)
        state = (x, *beside)
    plan.result, plan.memory = state[0], state[1:]
    return plan


def _back(path: Path, pairs, **options: float) -> Plan:
    """All steps back; inputs: the final state and its memory."""
    plan = Plan(inputs=2)
    state: tuple[int, ...] = (0, 1)
    for _, back in reversed(pairs(path, **options)):
        x, beside = plan.follow(back, *state)
        state = (x, *beside)
    plan.result = state[0]
    return plan


def _triples(path: Path) -> Sequence[tuple[Node, Node, Node]]:
    return list(zip(path.nodes, path.nodes[1:], path.nodes[2:], strict=False))


def _growth(path: Path, pairs, step, **options: float) -> float:
    """The product of 1 / older over the steps."""
    return math.prod(abs(_over(step(path, *three, **options)[0])) for three in _triples(path))


def _over(c: float) -> float:
    """1 / c; a step without its older state (gamma = 0) cannot be undone."""
    return 1 / c if c else math.inf


def _edict_coefficients(s: Node, t: Node) -> tuple[float, float]:
    return t.alpha / s.alpha, t.sigma - t.alpha / s.alpha * s.sigma


def _edict_pairs(path: Path, p: float) -> list[StepPair]:
    """Two coupled states: each steps by the other's noise, then both are mixed. Memory is the second."""
    pairs = []
    for s, t in pairwise(path.nodes):
        a, b = _edict_coefficients(s, t)
        there, back = Plan(inputs=2 if pairs else 1), Plan(inputs=2)
        x, y = (0, 1) if pairs else (0, 0)
        x_new = there.mix((x, a), (there.call(y, s, "noise"), b))
        y_new = there.mix((y, a), (there.call(x_new, s, "noise"), b))
        x = there.mix((x_new, p), (y_new, 1 - p))
        there.result, there.memory = x, (there.mix((y_new, p), (x, 1 - p)),)
        y_new = back.mix((1, 1 / p), (0, -(1 - p) / p))
        x_new = back.mix((0, 1 / p), (y_new, -(1 - p) / p))
        y = back.mix((y_new, 1 / a), (back.call(x_new, s, "noise"), -b / a))
        back.result, back.memory = back.mix((x_new, 1 / a), (back.call(y, s, "noise"), -b / a)), (y,)
        pairs.append((there, back))
    return pairs


def _edict_growth(path: Path, pairs, p: float) -> float:
    """Unmixing multiplies the difference of the states by 1 / p^2 a step."""
    return p ** (-2 * path.steps)


def _one_by_one(path: Path, pairs, **options: float) -> list[StepPair]:
    return pairs(path, **options)


REVERSIBLE: tuple[Sampler, ...] = (
    Sampler(
        "bdia", 2, _forth, inverse=_back, growth=_growth, pairs=_one_by_one,
        options={"pairs": _pairs, "step": _bdia, "gamma": 1.0},
        source="Zhang et al. (2024), exact diffusion inversion via bidirectional integration approximation",
    ),
    Sampler(
        "edict", 1, _forth, inverse=_back, growth=_edict_growth, pairs=_one_by_one,
        evaluations=lambda steps: 2 * steps, options={"pairs": _edict_pairs, "p": 0.93},
        source="Wallace et al. (2023), EDICT",
    ),
    Sampler(
        "belm", 2, _forth, inverse=_back, growth=_growth, pairs=_one_by_one, options={"pairs": _pairs, "step": _belm},
        source="Wang et al. (2024), BELM; weights re-derived: the two-step formula of least order error",
    ),
)  # fmt: skip
"""bdia: gamma = 1 is of order 2 and multiplies rounding by 1; any other gamma is of order 1 and by gamma^-(N-1).
edict: p^(-2N). belm: as its older weights are below 1 on grids that are finer towards the data, see `growth`."""
