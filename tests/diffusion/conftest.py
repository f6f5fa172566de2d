"""The mixture that orders are measured on, and where its ODE ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from sciode.diffusion import VPLinear
from sciode.diffusion.denoiser import Denoiser
from sciode.diffusion.grids import times_of
from sciode.diffusion.path import Path
from sciode.diffusion.run import run
from sciode.diffusion.samplers.base import Sampler
from sciode.testing import GaussianMixture


class Case(NamedTuple):
    """A mixture, starts [B, D], and the exact end of the probability-flow ODE."""

    mixture: GaussianMixture
    schedule: VPLinear
    model: Callable[..., Tensor]
    x: Tensor
    exact: Tensor

    def error(self, x: Tensor) -> float:
        """Root mean square."""
        return float((x - self.exact).square().mean().sqrt())


@pytest.fixture(scope="session")
def case() -> Case:
    """Five components in three dimensions, t from 1 to 1e-3."""
    return _case(0)


@pytest.fixture(scope="session")
def cases(case: Case) -> tuple[Case, ...]:
    """That one and two others."""
    return case, _case(1), _case(2)


def _case(seed: int) -> Case:
    mixture, schedule = GaussianMixture.random(3, seed=seed), VPLinear()
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Case(mixture, schedule, mixture.model(schedule), x, mixture.end_of_ode(x, schedule, 1.0, 1e-3))


@pytest.fixture(scope="session")
def drift() -> Callable[..., Tensor]:
    """`drift(row, case, steps, grid=...)`: the sample of an SDE sampler whose normal draws are all zero."""

    def quiet(row: Sampler, case: Case, steps: int, grid: str = "log-snr") -> Tensor:
        path = Path.of(case.schedule, times_of(grid, case.schedule, steps, 1.0, 1e-3))
        denoiser = Denoiser(case.model, case.schedule, "eps")
        return run(row.program(path), denoiser, (case.x,), lambda n: torch.zeros_like(case.x))[0]

    return quiet
