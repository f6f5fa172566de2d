"""RePaint: the known part is noised data at every level, and each step is taken several times."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sciode.diffusion.checks import check_kinds, check_mask, check_states
from sciode.diffusion.editing.stage import Draws, stage_of
from sciode.diffusion.job import carried
from sciode.diffusion.noise import Seed
from sciode.diffusion.path import Node
from sciode.diffusion.schedules.base import Schedule

__all__ = ["noised", "repaint"]


def repaint(
    model: Callable[..., Tensor], x: Tensor, mask: Tensor, schedule: Schedule, *, repeats: int = 10, steps: int = 50,
    t_start: float | None = None, t_end: float = 1e-3, sampler: str = "ddpm", seed: Seed = 0, **options: Any,
) -> Tensor:  # fmt: skip
    """x [B, ...] where `mask` is true, and what the model makes fit elsewhere.

        in every step   x <- step(x),   x[mask] <- alpha x_known + sigma z,   and back up by the noising process.

    - mask: bool, broadcasts against x. repeats: how often each step is taken, each time but the last followed by a step
      of the noising process back up: more repeats bring the two parts into agreement; 1 = plain replacement.
    - steps x repeats evaluations (repeats 10, steps 50 for pictures). options: prediction, grid, cond, guidance,
      threshold as in `sample`; half precision, too. Times given as grid must agree with steps, t_start and t_end.

    Raises ValueError for misuse. Source: Lugmayr et al. (2022), RePaint.
    """
    check_states(x)
    check_kinds(schedule=schedule, repeats=repeats, t_start=t_start)
    check_mask(mask, x)
    if mask.dtype != torch.bool:
        raise ValueError(f"mask: expected bool, true where x is known, got {mask.dtype}")
    if repeats < 1:
        raise ValueError(f"repeats: expected at least 1, got {repeats}")
    start = schedule.t_max if t_start is None else t_start
    stage = stage_of(
        model, x, schedule, steps=steps, t_start=float(start), t_end=t_end, sampler=sampler, draws=True, **options
    )
    draws = Draws(seed, x)
    first = stage.path.nodes[0]
    given, known, z = x, carried(x), draws()
    x = torch.where(mask, first.alpha * known + first.sigma * z, first.sigma * z)
    for s, t in pairwise(stage.path.nodes):
        for turn in range(repeats):
            x = stage.step(x, s, t, draws)
            x = torch.where(mask, t.alpha * known + t.sigma * draws(), x)
            if turn + 1 < repeats:
                x = noised(x, t, s, draws())
    return torch.where(mask, given, x.to(given.dtype))


def noised(x: Tensor, t: Node, s: Node, z: Tensor) -> Tensor:
    """A state at node t as one at the noisier node s, by the noising process."""
    keep = s.alpha / t.alpha
    return keep * x + math.sqrt(max(s.sigma**2 - (keep * t.sigma) ** 2, 0.0)) * z
