"""SDE samplers: orders of the variance without Monte Carlo, laws of the noise and of the samples."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from sciode.diffusion import EDM, RectifiedFlow, VPLinear, initial_noise, sample, sampler, samplers
from sciode.diffusion.denoiser import Denoiser
from sciode.diffusion.grids import times_of
from sciode.diffusion.noise import normals_of, seeds_for
from sciode.diffusion.path import Path
from sciode.diffusion.run import run
from sciode.diffusion.samplers.registry import catalogue
from sciode.testing import GaussianMixture

WEAK = {name: info.weak for name, info in samplers().items() if info.weak}
MEAN, DEVIATION = 0.7, 0.5


def _variance_error(name: str, steps: int) -> tuple[float, float]:
    """Errors of mean and variance for Gaussian data: every draw's share is the answer to a unit impulse."""
    schedule = VPLinear()
    model = GaussianMixture([1.0], [[MEAN]], [[[DEVIATION**2]]]).model(schedule)
    path = Path.of(schedule, times_of("log-snr", schedule, steps, 1.0, 1e-3))
    plan = catalogue()[name].program(path)  # type: ignore[union-attr]
    start, end = path.nodes[0], path.nodes[-1]
    # Row 0: no noise; row 1: one standard deviation at the start; row 2 + k: draw k is 1.
    x = torch.full((plan.draws + 2, 1), start.alpha * MEAN, dtype=torch.float64)
    x[1] += math.sqrt((start.alpha * DEVIATION) ** 2 + start.sigma**2)

    def impulse(k: int) -> torch.Tensor:
        out = torch.zeros_like(x)
        out[k + 2] = 1
        return out

    found, _ = run(plan, Denoiser(model, schedule, "eps"), (x,), impulse)
    variance = float((found[1:] - found[0]).square().sum())
    return float(found[0]) - end.alpha * MEAN, variance - ((end.alpha * DEVIATION) ** 2 + end.sigma**2)


@pytest.mark.parametrize("name", WEAK)
def test_the_variance_of_gaussian_data_converges_at_the_order_claimed(name: str) -> None:
    errors = [_variance_error(name, n) for n in (40, 80, 160, 320)]
    assert max(abs(mean) for mean, _ in errors) < 1e-13
    slopes = [math.log2(abs(a[1]) / abs(b[1])) for a, b in pairwise(errors)]
    assert max(slopes) >= WEAK[name] - 0.15 and abs(slopes[-1] - WEAK[name]) < 0.35


def test_expectations_of_a_mixture_are_within_their_band(case) -> None:
    """E |x|^2 by 20,000 paths of 40 steps; the bias at this size is below the standard error."""
    n = 20_000
    x = initial_noise(case.schedule, (n, 3), seed=3, dtype=torch.float64)
    end = [float(f(1e-3)) for f in (case.schedule.alpha, case.schedule.sigma)]
    mean, covariance = case.mixture.moments(*end)
    wanted = float(mean.square().sum() + covariance.trace())
    for name in ("dpm++-3m-sde", "sa-solver"):
        square = sample(case.model, x, case.schedule, sampler=name, steps=40, seed=4).square().sum(1)
        assert abs(float(square.mean()) - wanted) < 4 * float(square.std()) / math.sqrt(n)


@pytest.mark.parametrize("name", ["ddpm", "dpm++-2m-sde", "edm-churn", "sa-solver"])
def test_samples_of_one_gaussian_have_its_law(name: str) -> None:
    schedule = EDM() if name == "edm-churn" else VPLinear()
    options = {"inflate": 1.0} if name == "edm-churn" else {}
    model = GaussianMixture([1.0], [[MEAN]], [[[DEVIATION**2]]]).model(schedule)
    x = initial_noise(schedule, (4000, 1), seed=1, dtype=torch.float64)
    steps = 400 if name == "ddpm" else 100
    found = sample(model, x, schedule, sampler=sampler(name, **options), steps=steps, t_end=0.01, seed=2)
    spread = math.sqrt(float(schedule.alpha(0.01)) ** 2 * DEVIATION**2 + float(schedule.sigma(0.01)) ** 2)
    assert kstest(((found - float(schedule.alpha(0.01)) * MEAN) / spread).flatten().numpy(), "norm").pvalue > 0.01


def test_an_sde_sampler_may_start_from_pure_noise() -> None:
    flow = RectifiedFlow()
    model = GaussianMixture([1.0], [[MEAN]], [[[DEVIATION**2]]]).model(flow, "v")
    x = initial_noise(flow, (4000, 1), t_start=1.0, seed=1, dtype=torch.float64)
    options = {"prediction": "v", "t_start": 1.0, "t_end": 0.01}
    found = sample(model, x, flow, sampler="dpm++-2m-sde", steps=100, seed=2, **options)  # type: ignore[arg-type]
    spread = math.sqrt((0.99 * DEVIATION) ** 2 + 0.01**2)
    assert kstest(((found - 0.99 * MEAN) / spread).flatten().numpy(), "norm").pvalue > 0.01


@pytest.mark.parametrize("name", ["lcm", "tcd"])
@pytest.mark.parametrize("schedule", [VPLinear(), RectifiedFlow()], ids=["vp", "flow"])
def test_an_exact_consistency_function_gives_the_data_in_any_number_of_steps(name: str, schedule) -> None:
    """For N(m, s^2) the end of the ODE from x is m + s (x - alpha m) / sqrt(alpha^2 s^2 + sigma^2)."""

    def ends(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (f(t.double()).to(x)[:, None] for f in (schedule.alpha, schedule.sigma))
        return MEAN + DEVIATION * (x - alpha * MEAN) / torch.sqrt((alpha * DEVIATION) ** 2 + sigma**2)

    start = schedule.t_max
    z = initial_noise(schedule, (4000, 1), seed=8, dtype=torch.float64) / float(schedule.sigma(start))
    spread = math.sqrt(float(schedule.alpha(start)) ** 2 * DEVIATION**2 + float(schedule.sigma(start)) ** 2)
    x = float(schedule.alpha(start)) * MEAN + spread * z
    row = sampler(name, gamma=1.0)
    for steps in (1, 4):
        found = sample(ends, x, schedule, sampler=row, steps=steps, grid="uniform", prediction="x0", seed=5)
        assert kstest(((found - MEAN) / DEVIATION).flatten().numpy(), "norm").pvalue > 0.01


def test_draws_are_normal_independent_and_apart_from_initial_noise() -> None:
    like = torch.empty(500, 4, 5, dtype=torch.float64)
    draw = normals_of(seeds_for(7, 500, like.device), like)
    first, second = draw(0), draw(1)
    assert kstest(first.flatten().numpy(), "norm").pvalue > 0.01
    start = initial_noise(VPLinear(), like.shape, seed=7, dtype=torch.float64)
    for other in (second, start, first.roll(1, 0)):
        correlation = float((first * other).mean())
        assert abs(correlation) < 4 / math.sqrt(first.numel())
    torch.testing.assert_close(draw(0), first, rtol=0, atol=0)


@pytest.mark.parametrize(
    "seed", [np.int64(7), np.arange(3), [np.int64(0), 1, 2], torch.arange(3)], ids=lambda s: type(s).__name__
)
def test_seeds_may_be_numpys(seed: Any) -> None:
    plain = 7 if np.ndim(seed) == 0 else [0, 1, 2]
    wanted = initial_noise(VPLinear(), (3, 2), seed=plain)
    assert torch.equal(initial_noise(VPLinear(), (3, 2), seed=seed), wanted)
