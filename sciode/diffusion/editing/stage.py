"""What editors share: a model between two noise levels, one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sciode.diffusion.checks import check_kinds, check_states
from sciode.diffusion.denoiser import Denoiser
from sciode.diffusion.grids import Grid, times_of
from sciode.diffusion.guidance import Guidance
from sciode.diffusion.job import carried, row_of, seen
from sciode.diffusion.noise import Seed, normals_of, seeds_for
from sciode.diffusion.path import Node, Path
from sciode.diffusion.predictions import PREDICTIONS
from sciode.diffusion.run import no_draw, run
from sciode.diffusion.samplers.base import Adaptive, Sampler
from sciode.diffusion.schedules.base import Schedule
from sciode.diffusion.thresholding import Threshold
from sciode.solvers.suggest import choose

__all__ = ["Draws", "Stage", "stage_of"]

_STEPS = 8
"""Multistep samplers lower their orders where there are fewer."""


class Draws:
    """Standard normals one after the other, from every sample's own stream, in float32 at least."""

    def __init__(self, seed: Seed, like: Tensor) -> None:
        self._draw = normals_of(seeds_for(seed, like.shape[0], like.device), carried(like))
        self.count = 0

    def __call__(self) -> Tensor:
        """The next ones [B, ...]."""
        self.count += 1
        return self._draw(self.count - 1)


class Stage(NamedTuple):
    """A denoiser on a path; steps by a sampler that needs no earlier values."""

    denoiser: Denoiser
    path: Path
    sampler: Sampler

    def step(self, x: Tensor, s: Node, t: Node, draws: Draws | None = None) -> Tensor:
        """From one node to another, either way."""
        plan = self.sampler.program(Path(self.path.schedule, (s, t)))
        return run(plan, self.denoiser, (x,), no_draw if draws is None else lambda n: draws())[0]

    def value(self, x: Tensor, at: Node, kind: str) -> Tensor:
        """The model's "noise" or "data" prediction."""
        t = torch.full((x.shape[0],), float(at.t), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        return self.denoiser(x, t, self.denoiser.asks(at, kind))


def stage_of(
    model: Callable[..., Tensor], x: Tensor, schedule: Schedule, *, steps: int, t_start: float, t_end: float,
    sampler: str | Sampler = "ddim", prediction: str = "eps", grid: Grid = "log-snr",
    cond: Mapping[str, Any] | None = None, guidance: Guidance | None = None, threshold: Threshold | None = None,
    draws: bool = False, **unknown: Any,
) -> Stage:  # fmt: skip
    """For states like x as a caller gives them; what is stepped is `carried(x)`. draws: whether steps may draw noise.

    Checks the arguments; raises ValueError with the mend.
    """
    if unknown:
        known = "sampler, steps, t_end, seed, prediction, grid, cond, guidance, threshold"
        raise ValueError(f"{', '.join(unknown)}: no option of an editor; beside its own there are {known}")
    check_states(x)
    check_kinds(
        model=model, schedule=schedule, steps=steps, guidance=guidance, threshold=threshold, cond=cond, level=t_start,
        t_end=t_end,
    )  # fmt: skip
    choose("prediction", prediction, PREDICTIONS)
    t_start, t_end = float(t_start), float(t_end)
    row = row_of(sampler)
    if isinstance(row, Adaptive) or row.wants or row.times or row.inverse is not None or row.kind == "consistency":
        raise ValueError(f"sampler: {row.name} does not step by itself; use ddim, ddpm, edm-heun or rk-*")
    if not t_end < t_start <= schedule.t_max:
        raise ValueError(f"level: expected t_end < level <= {schedule.t_max}, got {t_end} and {t_start}")
    denoiser = Denoiser(model, schedule, prediction, dict(cond or {}), guidance, threshold, seen(x))
    path = Path.of(schedule, times_of(grid, schedule, steps, t_start, t_end))
    _check_times(path, grid, steps, t_start, t_end)
    alone, drawn = _alone(row, path)
    if not alone:
        raise ValueError(
            f"sampler: {row.name} steps by values of the steps before, which an edit changes; use ddim, dpm++-2s, "
            "edm-heun or rk-*"
        )
    if drawn and not draws:
        raise ValueError(f"sampler: {row.name} draws noise, and this goes both ways; use ddim, edm-heun or rk-*")
    return Stage(denoiser, path, row)


def _check_times(path: Path, grid: Grid, steps: int, t_start: float, t_end: float) -> None:
    """Raise ValueError for times given as grid that are others than an editor's own arguments say."""
    ends = float(path.nodes[0].t), float(path.nodes[-1].t)
    named = isinstance(grid, str) or callable(grid)
    if path.steps != steps or not (named or np.allclose(ends, (t_start, t_end))):
        raise ValueError(
            f"grid: its times make {path.steps} steps from {ends[0]:g} to {ends[1]:g}, but steps, level (or t_start) "
            f"and t_end are {steps}, {t_start:g} and {t_end:g}; let them agree"
        )


def _alone(row: Sampler, path: Path) -> tuple[bool, int]:
    """Whether steps planned together are steps planned apart, seen on one number; and how often they draw."""
    first, last = path.nodes[0].t, path.nodes[-1].t
    many = Path.of(path.schedule, [first + (last - first) * i / _STEPS for i in range(_STEPS + 1)])
    denoiser, x = Denoiser(lambda x, t: x.sin(), path.schedule, "x0"), torch.full((1, 1), 0.7, dtype=torch.float64)
    plan, apart = row.program(many), x
    for nodes in pairwise(many.nodes):
        apart = run(row.program(Path(path.schedule, nodes)), denoiser, (apart,), lambda n: x)[0]
    return bool(torch.allclose(run(plan, denoiser, (x,), lambda n: x)[0], apart, rtol=1e-9)), plan.draws
