"""Singlestep samplers: DPM-Solver and DPM-Solver++ of orders 1 to 3, with inner nodes at fractions of a step."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sciode.diffusion.path import Node, Path
from sciode.diffusion.plan import Plan
from sciode.diffusion.samplers.base import Sampler
from sciode.diffusion.weights import adams_weights, half_rule, keep

__all__ = ["ORDERS", "SINGLESTEP", "fast_orders", "step_through"]


@dataclass(frozen=True)
class Stage:
    """A state at a fraction of the step in lambda, from a line through the values of two earlier stages, or one.

    half: whether the two are joined by half of their difference instead of exact weights.
    """

    fraction: float
    through: tuple[int, ...] = (0,)
    half: bool = False


ORDERS: dict[int, tuple[Stage, ...]] = {
    1: (Stage(1.0),),
    2: (Stage(1 / 2), Stage(1.0, (0, 1), half=True)),
    3: (Stage(1 / 3), Stage(2 / 3, (0, 1)), Stage(1.0, (0, 2))),
}
"""The stages by order: 2S with r1 = 1/2, 3S with r1 = 1/3 and r2 = 2/3."""


def step_through(
    plan: Plan, path: Path, kind: str, stages: tuple[Stage, ...], x: int, s: Node, t: Node, known: list | None = None
) -> int:
    """Add one step from s to t to a plan; returns the register of the state at t.

    known: a list of (node, register) of values at s and inner nodes; those that are missing are added to it.
    """
    values = [] if known is None else known
    state = x
    for j, stage in enumerate(stages):
        if j >= len(values):
            node = s if j == 0 else path.at(s.lam + stages[j - 1].fraction * (t.lam - s.lam))
            values.append((node, plan.call(state, node, kind)))
        end = t if stage.fraction == 1.0 else path.at(s.lam + stage.fraction * (t.lam - s.lam))
        nodes = [values[i][0] for i in stage.through]
        if stage.half:
            total = adams_weights(path, kind, s, end, [s])[0]
            weights = half_rule(kind, total, s, end, nodes[1], "bh2")
        else:
            weights = adams_weights(path, kind, s, end, nodes)
        state = plan.mix(
            (x, keep(kind, s, end)), *((values[i][1], w) for i, w in zip(stage.through, weights, strict=True))
        )
    return state


def _plan(path: Path, kind: str, order: int) -> Plan:
    plan, x = Plan(), 0
    for s, t in pairwise(path.nodes):
        x = step_through(plan, path, kind, ORDERS[order], x, s, t)
    plan.result = x
    return plan


def fast_orders(evaluations: int) -> list[int]:
    """Orders of steps that take exactly so many evaluations: threes, and at the end 2 + 1, 1 or 2."""
    threes, rest = divmod(evaluations, 3)
    return {0: [3] * (threes - 1) + [2, 1], 1: [3] * threes + [1], 2: [3] * threes + [2]}[rest]


def _plan_fast(path: Path, kind: str) -> Plan:
    """N evaluations on a grid of N steps: a step of order k spans k of them."""
    plan, x, i = Plan(), 0, 0
    for order in fast_orders(path.steps):
        x = step_through(plan, path, kind, ORDERS[order], x, path.nodes[i], path.nodes[i + order])
        i += order
    plan.result = x
    return plan


def _plan_ancestral(path: Path, order: int, eta: float) -> Plan:
    """A step of the ODE beyond the next level, then noise back up to it: rho_down^2 + rho_up^2 = rho_t^2."""
    plan, x = Plan(), 0
    for s, t in pairwise(path.nodes):
        up = min(t.rho, eta * t.rho * np.sqrt(-np.expm1(-2 * (t.lam - s.lam))))
        down = path.at_rho(np.sqrt(t.rho**2 - up**2))
        y = step_through(plan, path, "data", ORDERS[order], x, s, down)
        x = plan.mix((y, t.alpha / down.alpha), (plan.draw(), t.alpha * up))
    plan.result = x
    return plan


def _table() -> list[Sampler]:
    rows = []
    for kind, prefix, paper in (("noise", "dpm", "DPM-Solver"), ("data", "dpm++", "DPM-Solver++")):
        source = f"Lu et al. (2022), {paper}"
        for order in (2, 3):
            options = {"kind": kind, "order": order}
            calls = (lambda steps: 2 * steps) if order == 2 else (lambda steps: 3 * steps)
            rows.append(Sampler(f"{prefix}-{order}s", order, _plan, evaluations=calls, options=options, source=source))
        rows.append(Sampler(f"{prefix}-fast", 2, _plan_fast, options={"kind": kind}, source=source))
    ancestral = {"order": 2, "eta": 1.0}
    rows.append(
        Sampler("dpm++-2s-ancestral", 1, _plan_ancestral, kind="sde", weak=2, evaluations=lambda steps: 2 * steps,
                options=ancestral, source="Lu et al. (2022), DPM-Solver++, with the ancestral noise of DDPM")
    )  # fmt: skip
    return rows


SINGLESTEP: tuple[Sampler, ...] = tuple(_table())
"""The rows. "fast" ends with one step of order 1 or 2, so that it claims 2 although most of its steps are of order
3."""
