"""What a call of `sample` asked for, checked: the sampler, the denoiser and the grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciode.diffusion.checks import check_kinds, check_one, check_states
from sciode.diffusion.denoiser import Denoiser
from sciode.diffusion.grids import Grid, times_of
from sciode.diffusion.guidance import Guidance
from sciode.diffusion.path import Path
from sciode.diffusion.plan import Plan
from sciode.diffusion.predictions import PREDICTIONS
from sciode.diffusion.samplers.base import Adaptive, Sampler
from sciode.diffusion.samplers.recipe import Recipe
from sciode.diffusion.samplers.registry import named
from sciode.diffusion.schedules.base import Schedule
from sciode.diffusion.thresholding import Threshold
from sciode.solvers.suggest import choose

__all__ = ["Chosen", "Job", "carried", "first_step", "job_of", "row_of", "seen"]

_STEPS = 20

Chosen = str | Sampler | Adaptive | Recipe
"""A name, what `sampler(name, **options)` gives, or a recipe that a search found."""


@dataclass(frozen=True)
class Job:
    """What `sample` and `invert` both were asked for, checked."""

    sampler: Sampler | Adaptive
    denoiser: Denoiser
    path: Path
    extra: dict[str, Any]
    denoise_last: bool = False


def job_of(
    model: Callable[..., Tensor], x: Tensor, schedule: Schedule, sampler: Chosen, steps: int | None,
    nfe: int | None, prediction: str, grid: Grid, t_start: float | None, t_end: float, guidance: Guidance | None,
    threshold: Threshold | None, cond: Mapping[str, Any] | None, ems: Any, denoise_last: bool,
) -> Job:  # fmt: skip
    """Check the arguments of `sample`; raises ValueError with the mend."""
    check_states(x)
    check_kinds(
        model=model, schedule=schedule, steps=steps, nfe=nfe, guidance=guidance, threshold=threshold, cond=cond,
        ems=ems, t_start=t_start, t_end=t_end, denoise_last=denoise_last,
    )  # fmt: skip
    choose("prediction", prediction, PREDICTIONS)
    row = row_of(sampler)
    if denoise_last and isinstance(row, Sampler) and row.inverse is not None:
        raise ValueError(f"denoise_last: it throws away the state that {row.name}'s exact inversion starts from")
    if isinstance(row, Sampler) and row.times is not None:
        grid = _own_times(row, grid)
    count = _count(row, steps, nfe, denoise_last, grid)
    times = times_of(grid, schedule, count, schedule.t_max if t_start is None else float(t_start), float(t_end))
    path = Path.of(schedule, times)
    denoiser = Denoiser(model, schedule, prediction, dict(cond or {}), guidance, threshold, seen(x))
    wants = row.wants if isinstance(row, Sampler) else None
    if wants == "ems" and ems is None:
        raise ValueError(
            f"ems: {row.name} needs the model's statistics; pass ems=estimate_ems(model, data, schedule, ...)"
        )
    if wants != "ems" and ems is not None:
        raise ValueError(f"ems: {row.name} has no use for statistics; they belong to dpm-v3")
    if ems is not None:
        check_one("ems", ems.shape, x)
    if isinstance(sampler, Recipe) and sampler.first is not None:
        check_one("first", np.shape(sampler.first), x)
    return Job(row, denoiser, path, {"ems": ems} if wants == "ems" else {}, denoise_last)


def carried(x: Tensor) -> Tensor:
    """The states as loops carry them: half precision in float32, in which steps do not round away."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def seen(x: Tensor) -> torch.dtype | None:
    """The dtype in which the model is shown the states, where they are carried in another."""
    return None if carried(x) is x else x.dtype


def row_of(sampler: Chosen) -> Sampler | Adaptive:
    """The sampler of a name; raises ValueError for unknown ones."""
    if isinstance(sampler, Recipe):
        return sampler.sampler()
    if isinstance(sampler, Sampler | Adaptive):
        return sampler
    return named(sampler)


def _own_times(row: Sampler, grid: Grid) -> Grid:
    assert row.times is not None
    if not isinstance(grid, str) or grid != "log-snr":
        raise ValueError(f"grid: {row.name} has times of its own; leave grid out")
    return row.times


def _count(row: Sampler | Adaptive, steps: int | None, nfe: int | None, denoise_last: bool, grid: Grid) -> int:
    if isinstance(row, Adaptive):
        if steps is not None or nfe is not None:
            raise ValueError(f"steps: {row.name} chooses its own; set rtol and atol by sampler({row.name!r}, rtol=...)")
        return 1
    if not isinstance(grid, str) and not callable(grid):
        if not isinstance(grid, Sequence | np.ndarray | Tensor):
            raise ValueError(f"grid: got {grid!r}; pass a name, a function, or the times; how many is `steps`")
        count = len(grid) - 1
        if nfe is not None or steps not in (None, count):
            raise ValueError(f"steps, nfe: the times given as grid make {count} steps; give neither")
        return count
    if steps is not None and nfe is not None:
        raise ValueError("steps, nfe: give one of them")
    if nfe is not None:
        return row.steps_for(nfe - denoise_last)
    return _STEPS if steps is None else steps


def first_step(job: Job) -> tuple[Plan | None, Path]:
    """Where alpha is 0 at the start: the data prediction's step, by which samplers in log-SNR begin; and the rest."""
    path = job.path
    assert isinstance(job.sampler, Sampler)
    if path.nodes[0].alpha != 0 or job.sampler.in_time:
        return None, path
    if job.sampler.inverse is not None:
        raise ValueError(
            f"t_start: alpha is 0 there, and {job.sampler.name} could undo no first step from pure noise; start a "
            "little earlier, or use another sampler"
        )
    lead, s, t = Plan(), *path.nodes[:2]
    lead.result = lead.mix((0, t.sigma / s.sigma), (lead.call(0, s, "data"), t.alpha))
    return lead, Path(path.schedule, path.nodes[1:])
