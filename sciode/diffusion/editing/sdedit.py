"""SDEdit: noise up to a level, then sampling from there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sciode.diffusion.checks import check_kinds, check_states
from sciode.diffusion.editing.stage import Draws
from sciode.diffusion.job import carried
from sciode.diffusion.noise import Seed
from sciode.diffusion.sample import sample
from sciode.diffusion.schedules.base import Schedule

__all__ = ["sdedit"]


def sdedit(
    model: Callable[..., Tensor], x: Tensor, schedule: Schedule, level: float, *, seed: Seed = 0, **options: Any
) -> Tensor:
    """Data like x [B, ...]: sampled from alpha(level) x + sigma(level) z.

    level: a time; the higher, the more the model's and the less like x. 0.3 to 0.6 of t_max are usual.
    options: those of `sample` but t_start. Raises ValueError for misuse. Source: Meng et al. (2022), SDEdit.
    """
    if "t_start" in options:
        raise ValueError("t_start: it is `level` here")
    check_states(x)
    check_kinds(schedule=schedule, level=level)
    if not 0 < level <= schedule.t_max:
        raise ValueError(f"level: expected 0 < level <= {schedule.t_max}, got {level}")
    noisy = float(schedule.alpha(level)) * carried(x) + float(schedule.sigma(level)) * Draws(seed, x)()
    return sample(model, noisy.to(x.dtype), schedule, t_start=level, seed=seed, **options)
