"""Between two steps along a tree: the method's own dense output, and the path's bridge over the step.

A chord is off by the noise of half a step, however small the tolerance. The path between is known, so what is left is
O(dt), and O(dt^1.5) for additive noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .brownian import BrownianTree
from .problem import Problem
from .steppers import Step

__all__ = ["bridged", "columns"]


def columns(problem: Problem, step: Step) -> tuple[Tensor, ...]:
    """What the bridge of each Brownian motion moves: the columns of g at the start of the step, [B, D] each.

    One for all where component i feels motion i alone; none where the noise is known at the steps only.
    """
    if not isinstance(problem.noise, BrownianTree):
        return ()
    g = step.stages
    return (g,) if g.ndim == 2 else g.unbind(-1)


def bridged(
    values: Tensor, problem: Problem, t: Tensor, dt: Tensor, theta: Tensor, g: tuple[Tensor, ...],
    lane: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The values [n, B, D] at theta [n, L] of steps from t over dt ([L] or [n, L]), with the bridges that move g.

    g: the `columns` of those steps ([B, D] or [n, B, D] each); lane: which samples the entries are about, if not all in
    their order.
    """
    if not g:
        return values
    assert isinstance(problem.noise, BrownianTree)
    tree = problem.noise if lane is None else problem.noise.of(lane)
    with torch.no_grad():
        bridge = tree.bridge(t, dt, theta)
    if len(g) == 1:
        # A motion for every component, or one for all of them.
        return values + g[0] * bridge
    for i, column in enumerate(g):
        values = values + column * bridge[..., i : i + 1]
    return values
