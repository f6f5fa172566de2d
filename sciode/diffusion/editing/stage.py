"""What editors share: a model between two noise levels, one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciode.diffusion.denoiser import Denoiser
from sciode.diffusion.grids import Grid, times_of
from sciode.diffusion.guidance import Guidance
from sciode.diffusion.job import row_of
from sciode.diffusion.noise import Seed, normals_of, seeds_for
from sciode.diffusion.path import Node, Path
from sciode.diffusion.predictions import PREDICTIONS
from sciode.diffusion.run import no_draw, run
from sciode.diffusion.samplers.base import Adaptive, Sampler
from sciode.diffusion.schedules.base import Schedule
from sciode.diffusion.thresholding import Threshold
from sciode.solvers.suggest import choose

__all__ = ["Draws", "Stage", "stage_of"]


class Draws:
    """Standard normals one after the other, from every sample's own stream."""

    def __init__(self, seed: Seed, like: Tensor) -> None:
        self._draw = normals_of(seeds_for(seed, like.shape[0], like.device), like)
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
) -> Stage:  # fmt: skip
    """Check the arguments; raises ValueError with the mend."""
    if x.ndim < 2 or not x.is_floating_point():
        raise ValueError(f"x: expected real states [B, ...], got {x.dtype} of shape {tuple(x.shape)}")
    choose("prediction", prediction, PREDICTIONS)
    row = row_of(sampler)
    if isinstance(row, Adaptive) or row.wants or row.times or row.inverse is not None:
        raise ValueError(f"sampler: {row.name} does not step by itself; use ddim, ddpm, edm-heun or rk-*")
    if not t_end < t_start <= schedule.t_max:
        raise ValueError(f"level: expected t_end < level <= {schedule.t_max}, got {t_end} and {t_start}")
    denoiser = Denoiser(model, schedule, prediction, dict(cond or {}), guidance, threshold)
    path = Path.of(schedule, times_of(grid, schedule, steps, t_start, t_end))
    return Stage(denoiser, path, row)
