"""What users of other libraries ran into, kept from happening here; numbers are issues of those libraries."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from sciode.bench.diffusers_peers import available
from sciode.diffusion import (
    GRIDS,
    Discrete,
    RectifiedFlow,
    Threshold,
    VPLinear,
    invert,
    round_trip,
    sample,
    sampler,
    samplers,
    zero_terminal_snr,
)
from sciode.testing import GaussianMixture

# Libraries of diffusers warn when they are first imported.
pytestmark = pytest.mark.filterwarnings("ignore")
needs_diffusers = pytest.mark.skipif(
    not available(), reason="diffusers is not installed: pip install sciode[diffusion]"
)

MIXTURE = GaussianMixture.random(3, seed=0)
TABLE = Discrete.scaled_linear()
COSINE = {"beta_schedule": "squaredcos_cap_v2"}


def _x(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _scheduler(**settings: Any) -> Any:
    from sciode.diffusion.diffusers import SciodeScheduler

    return SciodeScheduler.from_config({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
                                       | settings)  # fmt: skip


def _walk(scheduler: Any, x: torch.Tensor, steps: int | None = None, **given: Any) -> torch.Tensor:
    scheduler.set_timesteps(steps, **given)
    model, generator = MIXTURE.model(scheduler._schedule), torch.Generator().manual_seed(0)
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, t.expand(x.shape[0])), t, x, generator=generator).prev_sample
    return x


@pytest.mark.parametrize("name", ["dpm-3s", "dpm++-3s", "dpm-fast", "dpm++-fast", "dpm++-2s", "dpm++-3m", "unipc-3"])
def test_no_number_of_steps_gives_nan(name: str) -> None:
    """diffusers#9007, #9104: black images at 3n - 1 steps, the logarithm of a sigma of 0."""
    for steps in range(1, 13):
        found = sample(MIXTURE.model(TABLE), _x(), TABLE, sampler=name, steps=steps, t_end=0.0, denoise_last=True)
        assert found.isfinite().all()


@pytest.mark.parametrize("grid", GRIDS)
def test_inversion_is_finite_on_every_grid(grid: str) -> None:
    """diffusers#10748: NaN in the first inverse step under Karras' grid."""
    for name in ("ddim", "dpm++-2m", "bdia"):
        found = invert(MIXTURE.model(TABLE), 0.5 * _x(), TABLE, sampler=name, steps=12, grid=grid, t_end=1.0)
        assert found.isfinite().all()


@needs_diffusers
@pytest.mark.parametrize("table", [{}, COSINE, {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}])
@pytest.mark.parametrize("flag", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"])
def test_no_time_step_comes_twice(flag: str, table: dict) -> None:
    """diffusers#6477, #12771: a doubled last sigma; a cosine table whose Karras steps round to the same integers."""
    if flag == "use_karras_sigmas" and "prediction_type" in table:
        with pytest.raises(ValueError, match="karras divides by alpha"):
            _scheduler(**{flag: True}, **table).set_timesteps(30)
        return
    scheduler = _scheduler(**{flag: True}, **table)
    for steps in (2, 30, 200):
        scheduler.set_timesteps(steps)
        assert len(scheduler.timesteps) == steps and bool((scheduler.timesteps.double().diff() < 0).all())
        assert bool((scheduler.sigmas.double().diff() < 0).all()) and float(scheduler.sigmas[-1]) == 0


@needs_diffusers
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 33, 50, 999, 1000])
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_no_index_leaves_the_grid(spacing: str, steps: int) -> None:
    """diffusers#10738, #10266: sigma indices out of bounds."""
    scheduler = _scheduler(timestep_spacing=spacing, sampler="unipc-2")
    scheduler.set_timesteps(steps)
    t = scheduler.timesteps
    assert len(t) == steps and float(t.max()) <= 999 and float(t.min()) >= 0
    if steps <= 50:
        assert _walk(scheduler, _x(), steps).isfinite().all()


@needs_diffusers
def test_sigmas_and_time_steps_of_a_grid_belong_together() -> None:
    """diffusers#13768: time steps cut to integers beside sigmas that were not."""
    for flag in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"):
        scheduler = _scheduler(**{flag: True})
        scheduler.set_timesteps(17)
        t = scheduler.timesteps.double()
        torch.testing.assert_close(
            scheduler.sigmas[:-1].double(), TABLE.sigma(t) / TABLE.alpha(t), rtol=2e-6, atol=1e-7
        )
    levels = [10.0, 3.0, 0.7, 0.1]
    scheduler.set_timesteps(sigmas=[*levels, 0.0])
    torch.testing.assert_close(scheduler.sigmas, torch.tensor([*levels, 0.0]))


@pytest.mark.parametrize("steps", [8, 9, 14, 15])
def test_a_lower_final_order_is_had_for_even_and_odd_steps(steps: int) -> None:
    """diffusers#6953: lower_order_final without effect for even numbers of steps."""
    for name in ("dpm++-2m", "dpm++-3m", "unipc-3"):
        pair = [
            sample(MIXTURE.model(TABLE), _x(), TABLE, sampler=sampler(name, lower_final=low), steps=steps, t_end=1.0)
            for low in (True, False)
        ]
        assert float((pair[0] - pair[1]).abs().max()) > 1e-6


@needs_diffusers
@pytest.mark.parametrize("name", [name for name, info in samplers().items() if info.kind == "sde" and info.weak])
def test_every_sde_sampler_runs_to_the_data(name: str) -> None:
    """diffusers#13778: a branch for order 3 of the SDE that was not there."""
    assert _walk(_scheduler(sampler=name), _x(), 9).isfinite().all()


def test_inversion_recovers_the_noise() -> None:
    """diffusers#9009, #5145, #3436, #5703: inverses off by one step. Exact samplers to rounding, DDIM at its order."""
    model, x = MIXTURE.model(VPLinear()), _x()
    assert float(round_trip(model, x, VPLinear(), sampler="bdia", steps=50).rmse.max()) < 1e-12
    ddim = [float(round_trip(model, x, VPLinear(), sampler="ddim", steps=n).rmse.mean()) for n in (200, 400)]
    assert 0.8 < math.log2(ddim[0] / ddim[1]) < 1.3


@needs_diffusers
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpm++-2m"])
def test_every_spacing_steps_to_the_time_that_comes_next(name: str, spacing: str) -> None:
    """diffusers#11347, #9261: the time before, taken as t - T / N whatever the spacing. A point mass is solved exactly
    by any step that ends where it says."""
    mean = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)
    scheduler, x = _scheduler(sampler=name, timestep_spacing=spacing, prediction_type="sample"), _x()
    scheduler.set_timesteps(7)
    alpha, sigma = (f(scheduler.timesteps.double()) for f in (TABLE.alpha, TABLE.sigma))
    z = (x - alpha[0] * mean) / sigma[0]
    for i, t in enumerate(scheduler.timesteps):
        if name != "ddpm":
            torch.testing.assert_close(x, alpha[i] * mean + sigma[i] * z, rtol=0, atol=1e-6)
        x = scheduler.step(mean.expand_as(x), t, x, variance_noise=torch.zeros_like(x)).prev_sample
    torch.testing.assert_close(x, mean.expand_as(x), rtol=0, atol=1e-6)


def test_half_precision_changes_no_schedule() -> None:
    """diffusers#3005, #1349: a table cast to half, 1 - alpha_bar = 0, a quantile that half precision has not."""
    x = _x().to(torch.bfloat16)
    model = MIXTURE.model(TABLE)

    def half(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert t.dtype == torch.float32
        return model(x.float(), t).to(x.dtype)

    found = sample(half, x, TABLE, steps=20, t_end=0.0, denoise_last=True, threshold=Threshold(limit=3.0))
    wanted = sample(model, x.double(), TABLE, steps=20, t_end=0.0, denoise_last=True, threshold=Threshold(limit=3.0))
    assert found.dtype == torch.bfloat16
    # bfloat16 has 8 bits, and 20 steps round.
    assert float((found.double() - wanted).square().mean().sqrt()) < 0.1


@needs_diffusers
def test_fractions_of_time_steps_are_taken_as_they_are() -> None:
    """diffusers#11749: float time steps that no lookup finds."""
    given = [900.25, 612.5, 333.3, 50.125]
    scheduler, x = _scheduler(sampler="dpm++-2m"), _x()
    found = _walk(scheduler, x, timesteps=given)
    times = scheduler.timesteps.double().numpy()
    np.testing.assert_allclose(times, given, rtol=1e-6)
    ours = sample(MIXTURE.model(TABLE), x, TABLE, sampler="dpm++-2m", grid=times, denoise_last=True)
    torch.testing.assert_close(found, ours, rtol=0, atol=1e-4)


@needs_diffusers
def test_a_flow_is_shifted_once() -> None:
    """diffusers#13243: set_timesteps shifts what the constructor has shifted already."""
    scheduler = _scheduler(prediction_type="flow_prediction", shift=3.0)
    t = 1 - np.arange(10) / 10
    for _ in range(2):
        scheduler.set_timesteps(10)
        np.testing.assert_allclose(scheduler.timesteps, 1000 * 3 * t / (1 + 2 * t), rtol=1e-6)
    again = type(scheduler).from_config(scheduler.config)
    again.set_timesteps(10)
    assert torch.equal(again.timesteps, scheduler.timesteps)


@needs_diffusers
@pytest.mark.parametrize("name", ["dpm++-2s", "edm-heun", "dpm++-2m"])
def test_image_to_image_repeats_no_time_step(name: str) -> None:
    """diffusers#3116, #5746, #9375, #7651: a doubled first step; samplers of two evaluations that begin in their
    middle. A long way from a late start must end in the image, closer the later it starts."""
    image = MIXTURE.draw(4, seed=3)
    far = []
    for begin in (2, 6, 9):
        scheduler = _scheduler(sampler=name, timestep_spacing="trailing")
        scheduler.set_timesteps(10)
        t = scheduler.timesteps[begin * scheduler.order :]
        scheduler.set_begin_index(begin * scheduler.order)
        assert len(t) == (9 - begin) * scheduler.order + 1
        x = scheduler.add_noise(image, _x(), t[:1])
        model = MIXTURE.model(TABLE)
        for at in t:
            x = scheduler.step(model(x, at.expand(4)), at, x).prev_sample
        far.append(float((x - image).square().mean().sqrt()))
    assert far[0] > far[1] > far[2]


@needs_diffusers
def test_trailing_steps_begin_at_the_last_entry() -> None:
    """diffusers#13868: 'leading' does not; it is DDIM's, and says so."""
    for spacing, first in (("trailing", 999.0), ("linspace", 999.0), ("leading", 950.0)):
        scheduler = _scheduler(timestep_spacing=spacing)
        scheduler.set_timesteps(20)
        assert float(scheduler.timesteps[0]) == first


def test_steps_of_unequal_length_keep_the_order() -> None:
    """k-diffusion#56: 2M needs the ratio of its last two steps: with h for both it is of order 1 on such a grid."""
    model, x, schedule = MIXTURE.model(VPLinear()), _x(), VPLinear()
    exact = MIXTURE.end_of_ode(x, schedule, 1.0, 1e-3)

    def saw(schedule: Any, steps: int, start: float, end: float) -> np.ndarray:
        """Steps of log-SNR in turn long and half as long."""
        low, high = (float(schedule.half_log_snr(t)) for t in (start, end))
        places = np.concatenate(([0.0], np.cumsum(1 + np.arange(steps) % 2)))
        return schedule.t_of(torch.as_tensor(low + (high - low) * places / places[-1])).numpy()

    for name, order in (("dpm++-2m", 2), ("dpm++-3m", 3), ("unipc-2", 3)):
        errors = [
            float((sample(model, x, schedule, sampler=name, steps=n, grid=saw) - exact).square().mean().sqrt())
            for n in (160, 320, 640)
        ]
        assert max(math.log2(a / b) for a, b in pairwise(errors)) >= order - 0.15


@pytest.mark.parametrize(
    "schedule", [Discrete(zero_terminal_snr(TABLE.alpha_bar)), RectifiedFlow(last=1.0)], ids=["table", "flow"]
)
def test_the_first_step_from_no_signal_is_stable(schedule: Any) -> None:
    """k-diffusion#43, #64: unstable first steps, zero terminal SNR. From pure noise the first step is the mean's."""
    model = MIXTURE.model(schedule, "v")
    for name in ("ddim", "dpm++-2m", "dpm++-3m", "unipc-3", "dpm++-2m-sde"):
        found = sample(model, _x(64), schedule, sampler=name, steps=30, grid="uniform", prediction="v", seed=0,
                       t_end=0.002 * schedule.t_max)  # fmt: skip
        assert found.isfinite().all() and float(found.abs().max()) < 6


def test_samples_and_adaptive_steps_know_no_batch() -> None:
    """AUTOMATIC1111#5210: another batch, another picture."""
    model, x = MIXTURE.model(VPLinear()), _x()
    for name in ("ddpm", "dpm++-2m-sde", "sa-solver", "dpm-adaptive-3"):
        more: dict[str, Any] = {} if "adaptive" in name else {"steps": 8}
        pair = [sample(model, x[:n], VPLinear(), sampler=name, seed=[5, 6, 7, 8][:n], **more) for n in (4, 1)]
        torch.testing.assert_close(pair[0][:1], pair[1], rtol=1e-12, atol=1e-12)
