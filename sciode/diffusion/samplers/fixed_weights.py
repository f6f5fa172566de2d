"""Multistep samplers with the same weights at every step: iPNDM, and FireFlow's reused midpoint."""

from __future__ import annotations

from itertools import pairwise

from sciode.diffusion.path import Path
from sciode.diffusion.plan import Plan
from sciode.diffusion.samplers.base import Sampler
from sciode.diffusion.weights import adams_weights, keep

__all__ = ["FIXED_WEIGHTS"]

_ADAMS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def _plan_ipndm(path: Path, nodes: int) -> Plan:
    """DDIM with eps replaced by the Adams-Bashforth sum for equal steps of rho, whatever the steps are."""
    plan, x = Plan(), 0
    known: list[int] = []
    for s, t in pairwise(path.nodes):
        known = [plan.call(x, s, "noise"), *known[: nodes - 1]]
        share = adams_weights(path, "noise", s, t, [s])[0]
        x = plan.mix(
            (x, keep("noise", s, t)), *((e, share * w) for e, w in zip(known, _ADAMS[len(known) - 1], strict=True))
        )
    plan.result = x
    return plan


def _plan_fireflow(path: Path) -> Plan:
    """Midpoint steps of the flow in time whose first half takes the velocity of the midpoint before."""
    plan, x = Plan(), 0
    velocity = plan.call(x, path.nodes[0], "flow")
    for s, t in pairwise(path.nodes):
        h = t.t - s.t
        half = plan.mix((x, 1.0), (velocity, h / 2))
        velocity = plan.call(half, path.at_time(s.t + h / 2), "flow")
        x = plan.mix((x, 1.0), (velocity, h))
    plan.result = x
    return plan


FIXED_WEIGHTS: tuple[Sampler, ...] = (
    Sampler("ipndm", 2, _plan_ipndm, options={"nodes": 4}, source="Liu et al. (2022), PNDM; Zhang, Chen (2023), iPNDM"),
    Sampler(
        "fireflow",
        2,
        _plan_fireflow,
        evaluations=lambda steps: steps + 1,
        in_time=True,
        source="Deng et al. (2024), FireFlow",
    ),
)
"""ipndm reaches the order of its weights on grids that are uniform in rho alone, 2 on others; fireflow is of order
2."""
