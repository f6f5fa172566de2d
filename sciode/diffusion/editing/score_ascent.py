"""CODE: encode by the ODE within confidence bounds, climb the score at one noise level, decode by the ODE."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from torch import Tensor

from sciode.diffusion.checks import check_kinds, check_one
from sciode.diffusion.editing.stage import Draws, Stage, stage_of
from sciode.diffusion.job import carried
from sciode.diffusion.noise import Seed
from sciode.diffusion.path import Node
from sciode.diffusion.samplers.base import Sampler
from sciode.diffusion.schedules.base import Schedule

__all__ = ["Limit", "code"]

Limit = float | tuple[Tensor, Tensor]
"""What data lie within: +- a number, or (low, high) of each component, that broadcast to one sample."""


def code(
    model: Callable[..., Tensor], x: Tensor, schedule: Schedule, level: float, *, updates: int = 200,
    step: float = 0.02, anneal: int = 4, factor: float = 0.8, confidence: float | None = 1.7, limit: Limit = 1.0,
    sampler: str | Sampler = "edm-heun", steps: int = 25, t_end: float = 1e-3, seed: Seed = 0, **options: Any,
) -> Tensor:  # fmt: skip
    """Restored data [B, ...]: x itself where the model finds it likely, the likelier the more updates.

        encode x from t_end to level;   x <- x + e s(x) + sqrt(2 e) z,  s = grad log p_level;   decode to t_end.

    - level: a time; low ones keep more of x. updates: Langevin's steps, which leave the model's law at that level
      unchanged; 0 = there and back again.
    - step: e in units of sigma(level)^2, 0.005 to 0.05; multiplied by `factor` after each of `anneal` equal parts.
    - confidence: before each step of the encoding x is clipped to [alpha low - confidence sigma, alpha high +
      confidence sigma], for data within limit = (low, high), a number standing for +- itself: such noisy data lie
      inside with a probability of at least erf(confidence / sqrt(2)) a component. None = no clipping; 1 to 2 are good.
    - limit: 1 for pictures in [-1, 1]; or (low, high) of each component, such as quantiles of the data, where some
      hardly vary: what the model has never seen there is clipped more.
    - sampler: "edm-heun", "rk-*" or "ddim"; steps: of the ODE each way. Errors of the way there and back are edits
      that nobody asked for: ddim wants 100 or more, edm-heun 12 to 25.
    - options: prediction, grid, cond, guidance, threshold as in `sample`; half precision, too. Times given as grid
      must agree with steps, level and t_end.

    The last update adds no noise. Raises ValueError for misuse, before the model is called.

    Source: Nachmany et al. (2024), CODE: confident ordinary differential editing.
    """
    check_kinds(updates=updates, anneal=anneal, level=level)
    if updates < 0 or anneal < 1 or not (step > 0 and factor > 0):
        said = f"{updates}, {anneal}, {step} and {factor}"
        raise ValueError(f"expected updates >= 0, anneal >= 1, step > 0 and factor > 0, got {said}")
    if confidence is not None and not confidence > 0:
        raise ValueError(f"confidence: expected a number > 0, or None for no clipping, got {confidence}")
    stage = stage_of(model, x, schedule, steps=steps, t_start=level, t_end=t_end, sampler=sampler, **options)
    dtype, x = x.dtype, carried(x)
    (low, high), draws = _bounds(limit, x), Draws(seed, x)
    for s, t in pairwise(reversed(stage.path.nodes)):
        x = stage.step(x if confidence is None else clipped(x, s, confidence, low, high), s, t)
    x = _climbed(stage, x, stage.path.nodes[0], updates, step, anneal, factor, draws)
    for s, t in pairwise(stage.path.nodes):
        x = stage.step(x, s, t)
    return x.to(dtype)


def _bounds(limit: Limit, x: Tensor) -> tuple[Tensor, Tensor]:
    """(low, high) like x. Raises ValueError for what bounds no sample of x [B, ...]."""
    if isinstance(limit, int | float):
        low, high = x.new_tensor(-limit), x.new_tensor(limit)
    elif isinstance(limit, tuple) and len(limit) == 2 and all(isinstance(v, Tensor) for v in limit):
        low, high = (v.to(x) for v in limit)
        for bound in (low, high):
            check_one("limit", bound.shape, x)
    else:
        raise ValueError(f"limit: expected a number, or (low, high) as two tensors, got a {type(limit).__name__}")
    if not bool((low < high).any()) or bool((low > high).any()):
        raise ValueError("limit: expected a number > 0, or low <= high in every component")
    return low, high


def clipped(x: Tensor, at: Node, confidence: float, low: Tensor, high: Tensor) -> Tensor:
    """Within alpha low - confidence sigma and alpha high + confidence sigma."""
    return x.clamp(at.alpha * low - confidence * at.sigma, at.alpha * high + confidence * at.sigma)


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
