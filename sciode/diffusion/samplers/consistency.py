"""Steps of consistency models: jump to the data (or part of the way), and put fresh noise back on."""

from __future__ import annotations

import math
from itertools import pairwise

from sciode.diffusion.path import Node, Path
from sciode.diffusion.plan import Plan
from sciode.diffusion.samplers.base import Sampler

__all__ = ["CONSISTENCY"]


def _plan(path: Path, gamma: float) -> Plan:
    """Jump from s to time (1 - gamma) t by DDIM, then by noise up to t; no noise in the last step.

    gamma = 1 jumps to the data themselves (LCM), gamma = 0 adds no noise (DDIM). The last step of LCM ends in the data.
    """
    plan, x = Plan(), 0
    for i, (s, t) in enumerate(zip(path.nodes, path.nodes[1:], strict=False)):
        x0 = plan.call(x, s, "data")
        if i + 1 == path.steps:
            plan.result = x0 if gamma == 1 else plan.mix(*_jump(x, x0, s, t))
            return plan
        if gamma == 1:
            x = plan.mix((x0, t.alpha), (plan.draw(), t.sigma))
            continue
        low = path.at_time((1 - gamma) * t.t) if gamma else t
        kept = t.alpha / low.alpha
        terms = [(register, c * kept) for register, c in _jump(x, x0, s, low)]
        up = math.sqrt(max(t.sigma**2 - (kept * low.sigma) ** 2, 0.0))
        x = plan.mix(*terms, *([(plan.draw(), up)] if gamma else []))
    return plan


def _returning(path: Path) -> Plan:
    """Jump to the data, and put the noise of the start back on, not what the jump left of it."""
    plan, x, first = Plan(), 0, path.nodes[0]
    for s, t in pairwise(path.nodes):
        x = plan.mix((plan.call(x, s, "data"), t.alpha), (0, t.sigma / first.sigma))
    plan.result = x
    return plan


def _jump(x: int, x0: int, s: Node, t: Node) -> tuple[tuple[int, float], tuple[int, float]]:
    return (x, t.sigma / s.sigma), (x0, t.alpha - t.sigma * s.alpha / s.sigma)


CONSISTENCY: tuple[Sampler, ...] = (
    Sampler("lcm", None, _plan, "consistency", options={"gamma": 1.0}, source="Luo et al. (2023), LCM"),
    Sampler(
        "rf-return",
        None,
        _returning,
        "consistency",
        in_time=True,
        source="Lee et al. (2024), improving the training of rectified flows",
    ),
    Sampler("tcd", None, _plan, "consistency", options={"gamma": 0.3}, source="Zheng et al. (2024), TCD"),
)
"""For models distilled to predict the end of the ODE's path: with others they do not tend to its solution. rf-return
needs a start of pure noise; on straight paths it is Euler's method."""
