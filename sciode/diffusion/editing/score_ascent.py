"""CODE: encode by the ODE within confidence bounds, climb the score at one noise level, decode by the ODE."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from torch import Tensor

from sciode.diffusion.editing.stage import Draws, Stage, stage_of
from sciode.diffusion.noise import Seed
from sciode.diffusion.path import Node
from sciode.diffusion.schedules.base import Schedule

__all__ = ["code"]


def code(
    model: Callable[..., Tensor], x: Tensor, schedule: Schedule, level: float, *, updates: int = 200,
    step: float = 0.02, anneal: int = 4, factor: float = 0.8, confidence: float | None = 1.7, limit: float = 1.0,
    steps: int = 50, t_end: float = 1e-3, seed: Seed = 0, **options: Any,
) -> Tensor:  # fmt: skip
    """Restored data [B, ...]: x itself where the model finds it likely, the likelier the more updates.

        encode x from t_end to level;   x <- x + e s(x) + sqrt(2 e) z,  s = grad log p_level;   decode to t_end.

    - level: a time; low ones keep more of x. updates: Langevin's steps, which leave the model's law at that level
      unchanged; 0 = there and back again.
    - step: e in units of sigma(level)^2, 0.005 to 0.05; multiplied by `factor` after each of `anneal` equal parts.
    - confidence: before each step of the encoding x is clipped to +- (alpha limit + confidence sigma), for data
      within +- limit: such noisy data lie inside with a probability of at least erf(confidence / sqrt(2)) a component.
      None = no clipping.
    - steps: of the ODE each way. options: sampler ("ddim", "edm-heun", "rk-*"), prediction, grid, cond, guidance,
      threshold as in `sample`.

    The last update adds no noise. Source: Nachmany et al. (2024), CODE: confident ordinary differential editing.
    """
    if updates < 0 or anneal < 1 or not step > 0:
        raise ValueError(f"expected updates >= 0, anneal >= 1 and step > 0, got {updates}, {anneal} and {step}")
    stage = stage_of(model, x, schedule, steps=steps, t_start=level, t_end=t_end, **options)
    for s, t in pairwise(reversed(stage.path.nodes)):
        x = stage.step(x if confidence is None else clipped(x, s, confidence, limit), s, t)
    x = _climbed(stage, x, stage.path.nodes[0], updates, step, anneal, factor, Draws(seed, x))
    for s, t in pairwise(stage.path.nodes):
        x = stage.step(x, s, t)
    return x


def clipped(x: Tensor, at: Node, confidence: float, limit: float) -> Tensor:
    """Within +- (alpha limit + confidence sigma)."""
    bound = at.alpha * limit + confidence * at.sigma
    return x.clamp(-bound, bound)


def _climbed(
    stage: Stage, x: Tensor, at: Node, updates: int, step: float, anneal: int, factor: float, draws: Draws
) -> Tensor:
    for n in range(updates):
        size = step * at.sigma**2 * factor ** (n * anneal // updates)
        # score = -eps / sigma.
        x = x - size / at.sigma * stage.value(x, at, "noise")
        if n + 1 < updates:
            x = x + math.sqrt(2 * size) * draws()
    return x
