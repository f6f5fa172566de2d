"""Multistep samplers as one table: exponential Adams methods in log-SNR, in rho or in t, with and without corrector.

DPM-Solver-2M/3M, DPM-Solver++ 2M/3M and their SDE forms, UniPC, DEIS tAB and rhoAB, SA-Solver: each is a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sciode.diffusion.path import Node, Path
from sciode.diffusion.plan import Plan
from sciode.diffusion.samplers.base import Sampler
from sciode.diffusion.weights import adams_weights, half_rule, keep

__all__ = ["FEW_STEPS", "MULTISTEP", "Adams", "plan_adams"]

FEW_STEPS = 7
"""Below this, the last steps are of lower order by default: on mixtures that halves errors at 5 and doubles them at
8."""


@dataclass(frozen=True)
class Adams:
    """A row: what is interpolated, in which variable, through how many values.

    nodes: values of the predictor; corrector: values of the corrector, the new one among them (0 = none). The new value
    is the predicted state's; it serves the next step, too. half: "bh1" or "bh2", two values joined by half their
    difference instead of exact weights. eta: noise of the reverse SDE, a number or a function of t.
    """

    kind: str = "data"
    variable: str = "lambda"
    nodes: int = 1
    corrector: int = 0
    half: str | None = None
    eta: float | Callable[[float], float] = 0.0


def plan_adams(path: Path, row: Adams, lower_final: bool | None = None) -> Plan:
    """The program of a row.

    lower_final: whether the last steps use as few values as there are steps left; None = with fewer than 7 steps,
    where the last extrapolation would be the widest.
    """
    plan, x = Plan(), 0
    known: list[tuple[Node, int]] = []
    lower = path.steps < FEW_STEPS if lower_final is None else lower_final
    for i, (s, t) in enumerate(pairwise(path.nodes)):
        if not known or known[0][0] is not s:
            known.insert(0, (s, plan.call(x, s, row.kind)))
        left = path.steps - i if lower else row.nodes
        used = known[: min(row.nodes, left)]
        eta = row.eta(s.t) if callable(row.eta) else row.eta
        start = [(x, keep(row.kind, s, t, eta))]
        noise = [(plan.draw(), t.sigma * np.sqrt(-np.expm1(-2 * eta * (t.lam - s.lam))))] if eta else []
        x = plan.mix(*start, *_weighted(path, row, s, t, used, eta), *noise)
        if row.corrector and i + 1 < path.steps:
            new = (t, plan.call(x, t, row.kind))
            used = [new, *known[: min(row.corrector - 1, left)]]
            x = plan.mix(*start, *_weighted(path, row, s, t, used, eta), *noise)
            known.insert(0, new)
        del known[max(row.nodes, row.corrector) :]
    plan.result = x
    return plan


def _weighted(
    path: Path, row: Adams, s: Node, t: Node, used: list[tuple[Node, int]], eta: float
) -> list[tuple[int, float]]:
    nodes, registers = [node for node, _ in used], [register for _, register in used]
    if len(nodes) == 2 and row.half:
        total = adams_weights(path, row.kind, s, t, [s], eta=eta)[0]
        at_s = nodes.index(s)
        other = 1 - at_s
        weights = half_rule(row.kind, total, s, t, nodes[other], row.half, eta)
        return [(registers[at_s], weights[0]), (registers[other], weights[1])]
    return list(zip(registers, adams_weights(path, row.kind, s, t, nodes, row.variable, eta), strict=True))


def _plan(path: Path, lower_final: bool | None, **row: Any) -> Plan:
    return plan_adams(path, Adams(**row), lower_final)


def _sampler(name: str, order: int, row: Adams, source: str) -> Sampler:
    stochastic = row.eta != 0.0
    return Sampler(
        name,
        order,
        _plan,
        kind="sde" if stochastic else "ode",
        weak=min(order, 2) if stochastic else None,
        options={"lower_final": None} | asdict(row),
        source=source,
    )


_DPM = "Lu et al. (2022), DPM-Solver"
_PP = "Lu et al. (2022), DPM-Solver++"
_DEIS = "Zhang, Chen (2023), fast sampling of diffusion models with exponential integrator"
_UNIPC = "Zhao et al. (2023), UniPC"
_SA = "Xue et al. (2023), SA-Solver"


def _table() -> list[Sampler]:
    rows = [
        _sampler("dpm-2m", 2, Adams("noise", nodes=2), _DPM),
        _sampler("dpm-3m", 3, Adams("noise", nodes=3), _DPM),
        _sampler("dpm++-2m", 2, Adams(nodes=2, half="bh2"), _PP),
        _sampler("dpm++-2m-taylor", 2, Adams(nodes=2), _PP),
        _sampler("dpm++-3m", 3, Adams(nodes=3), f"{_PP}; the second derivative is twice the divided difference"),
        _sampler("dpm++-sde", 1, Adams(eta=1.0), _PP),
        _sampler("dpm++-2m-sde", 2, Adams(nodes=2, half="bh2", eta=1.0), _PP),
        _sampler("dpm++-3m-sde", 3, Adams(nodes=3, eta=1.0), _PP),
        _sampler("sa-solver", 3, Adams(nodes=2, corrector=3, eta=1.0), _SA),
        _sampler("sa-solver-3", 4, Adams(nodes=3, corrector=4, eta=1.0), _SA),
    ]
    for r in range(4):
        rows.append(_sampler(f"deis-tab-{r}", r + 1, Adams("noise", "t", r + 1), _DEIS))
        rows.append(_sampler(f"deis-rho-ab-{r}", r + 1, Adams("noise", "rho", r + 1), _DEIS))
    for p in (1, 2, 3):
        for suffix, half in (("", "bh2"), ("-bh1", "bh1"), ("-vary", None)):
            row = Adams(nodes=p, corrector=p + 1, half=half)
            rows.append(_sampler(f"unipc-{p}{suffix}", p + 1, row, _UNIPC))
    for p in (2, 3):
        row = Adams("noise", "asinh", p, corrector=p + 1)
        rows.append(_sampler(f"unipc-asinh-{p}", p + 1, row, f"{_UNIPC}, of the noise, in asinh(alpha / sigma): ours"))
    return rows


MULTISTEP: tuple[Sampler, ...] = tuple(_table())
"""The rows. half-rules and exact weights differ where there are two values only. deis-*-r extrapolates r + 1 values,
as its authors count; unipc-p is of order p + 1 by its corrector. unipc-asinh-p interpolates noise predictions in the
variable in which they are straight where there is little data: without statistics of the model the most accurate here
at 8 to 20 evaluations, on the grid "middle"."""
