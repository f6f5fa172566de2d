"""Our samplers as a scheduler of diffusers: for every sampler its own steps, from anywhere in the grid."""

from __future__ import annotations

import copy
import json
from pathlib import Path as File
from typing import Any

import numpy as np
import pytest
import torch

from sciode.bench.diffusers_peers import available
from sciode.diffusion import Discrete, estimate_ems, sample, samplers
from sciode.diffusion.denoiser import Denoiser
from sciode.diffusion.path import Path
from sciode.diffusion.plan import Plan
from sciode.diffusion.run import run
from sciode.diffusion.samplers.base import Sampler
from sciode.diffusion.samplers.registry import catalogue
from sciode.testing import GaussianMixture

pytestmark = [
    pytest.mark.skipif(not available(), reason="diffusers is not installed: pip install sciode[diffusion]"),
    # Its own libraries warn when they are first imported.
    pytest.mark.filterwarnings("ignore"),
]

STEPS = 5
SCHEDULE = Discrete.scaled_linear()
TABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
MIXTURE = GaussianMixture.random(3, seed=0)
MODEL = MIXTURE.model(SCHEDULE)
REFUSED = {name: "chooses its steps" for name, info in samplers().items() if info.evaluations is None}
REFUSED["edm-churn"] = "adds noise before"
TAKEN = [name for name in samplers() if name not in REFUSED]


def _classes(*names: str) -> list[Any]:
    """Classes of diffusers, which types its own exports as private."""
    import diffusers

    return [getattr(diffusers, name) for name in names]


def _scheduler(**settings: Any) -> Any:
    from sciode.diffusion.diffusers import SciodeScheduler

    return SciodeScheduler.from_config({"timestep_spacing": "trailing"} | TABLE | settings)


def _start(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 3, generator=torch.Generator().manual_seed(0))


def _model(x: torch.Tensor, t: torch.Tensor, model: Any = MODEL) -> torch.Tensor:
    return model(x, t.expand(x.shape[0]))


def _walk(scheduler: Any, x: torch.Tensor, model: Any = MODEL, begin: int = 0, **more: Any) -> torch.Tensor:
    """What a pipeline does."""
    for t in scheduler.timesteps[begin:]:
        output = _model(scheduler.scale_model_input(x, t), t, model)
        x = scheduler.step(output, t, x, return_dict=False, **more)[0]
    return x


def _quiet(name: str, times: np.ndarray, x: torch.Tensor, **extra: Any) -> torch.Tensor:
    """The sampler on these times, its draws all zero."""
    row = catalogue()[name]
    assert isinstance(row, Sampler)
    denoiser = Denoiser(MODEL, SCHEDULE, "eps")
    return run(row.program(Path.of(SCHEDULE, times), **extra), denoiser, (x,), lambda n: torch.zeros_like(x))[0]


@pytest.fixture(scope="module")
def ems() -> Any:
    return estimate_ems(MODEL, MIXTURE.draw(64), SCHEDULE, t_end=0.0, points=12, degree=6, derivative="difference")


@pytest.mark.parametrize("name", TAKEN)
def test_every_sampler_takes_the_same_steps_behind_step(name: str, ems) -> None:
    """Bit for bit, in float32, to the last entry of the table."""
    x, times = _start(), np.append(1000 * (1 - np.arange(STEPS) / STEPS) - 1, 0.0)
    scheduler = _scheduler(sampler=name, final_sigmas_type="sigma_min")
    wants = catalogue()[name].wants == "ems"  # type: ignore[union-attr]
    scheduler.statistics = ems if wants else None
    scheduler.set_timesteps(STEPS)
    found = _walk(scheduler, x, variance_noise=torch.zeros_like(x))
    assert torch.equal(found, _quiet(name, times, x, **({"ems": ems} if wants else {})))
    assert len(scheduler.timesteps) == catalogue()[name].evaluations(STEPS)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", REFUSED)
def test_a_sampler_that_cannot_live_behind_step_says_why(name: str) -> None:
    with pytest.raises(ValueError, match=REFUSED[name]):
        _scheduler(sampler=name).set_timesteps(STEPS)


@pytest.mark.parametrize("name", ["ddim", "dpm++-2m", "dpm++-3m", "unipc-3", "dpm-2s", "edm-heun", "deis-tab-3"])
def test_the_last_evaluation_is_the_data_prediction(name: str) -> None:
    """N steps of a multistep sampler are N evaluations: those of `sample` with denoise_last."""
    x, scheduler = _start(), _scheduler(sampler=name)
    scheduler.set_timesteps(8)
    times = 1000 * (1 - np.arange(8) / 8) - 1
    assert len(scheduler.timesteps) == 7 * scheduler.order + 1
    ours = sample(MODEL, x, SCHEDULE, sampler=name, grid=times, denoise_last=True)
    assert torch.equal(_walk(scheduler, x), ours)


@pytest.mark.parametrize("name", ["lcm", "tcd"])
def test_consistency_models_end_in_the_data_they_last_predict(name: str) -> None:
    x, scheduler = _start(), _scheduler(sampler=name)
    scheduler.set_timesteps(3)
    assert len(scheduler.timesteps) == 3
    states: list[torch.Tensor] = []

    def seen(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        states.append(x)
        return MODEL(x, t)

    found = _walk(scheduler, x, seen, generator=torch.Generator().manual_seed(0))
    t = scheduler.timesteps[-1].double()
    alpha, sigma = float(SCHEDULE.alpha(t)), float(SCHEDULE.sigma(t))
    torch.testing.assert_close(found, (states[-1] - sigma * _model(states[-1], t.float())) / alpha)


@pytest.mark.parametrize("name", ["ddim", "dpm++-3m", "unipc-2", "dpm++-2s", "dpm-3s", "edm-heun", "rk-bosh3", "ddpm"])
def test_image_to_image_begins_anywhere(name: str) -> None:
    """From every begin index that is a multiple of the order: what the sampler makes of the rest of the grid."""
    scheduler, x = _scheduler(sampler=name, final_sigmas_type="sigma_min"), _start()
    scheduler.set_timesteps(STEPS)
    times = np.append(1000 * (1 - np.arange(STEPS) / STEPS) - 1, 0.0)
    for step in range(STEPS):
        begin = step * scheduler.order
        noisy = scheduler.add_noise(torch.ones_like(x), x, scheduler.timesteps[begin : begin + 1])
        wanted = _quiet(name, times[step:], noisy)
        for known in (True, False):  # A loop of one's own need not say where it begins.
            scheduler.set_timesteps(STEPS)
            if known:
                scheduler.set_begin_index(begin)
            found = _walk(scheduler, noisy, begin=begin, variance_noise=torch.zeros_like(x))
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
            assert scheduler.step_index == len(scheduler.timesteps)


def test_a_step_is_no_place_to_begin_in_its_middle() -> None:
    scheduler = _scheduler(sampler="dpm++-2s")
    scheduler.set_timesteps(STEPS)
    with pytest.raises(ValueError, match="multiples of 2"):
        scheduler.set_begin_index(3)
    for name in ("fireflow", "dpm-fast"):
        scheduler = _scheduler(sampler=name)
        scheduler.set_timesteps(7)
        with pytest.raises(ValueError, match="cannot begin"):
            scheduler.set_begin_index(1)
    scheduler = _scheduler()
    scheduler.set_timesteps(STEPS)
    with pytest.raises(ValueError, match="there are 5 time steps"):
        scheduler.set_begin_index(5)


def test_a_scheduler_may_be_copied_in_the_middle() -> None:
    scheduler, x = _scheduler(sampler="unipc-3"), _start()
    scheduler.set_timesteps(6)
    for t in scheduler.timesteps[:3]:
        x = scheduler.step(_model(x, t), t, x).prev_sample
    other, y = copy.deepcopy(scheduler), x
    for t in scheduler.timesteps[3:]:
        x = scheduler.step(_model(x, t), t, x).prev_sample
        y = other.step(_model(y, t), t, y).prev_sample
    assert torch.equal(x, y)


def test_what_a_pipeline_puts_in_place_of_a_state_counts() -> None:
    """Inpainting blends every state with a known one, in a new tensor or within the old."""
    known, results = torch.full((4, 3), 0.3), []
    for within in (True, False):
        scheduler, x = _scheduler(sampler="dpm++-2m"), _start()
        scheduler.set_timesteps(6)
        for t in scheduler.timesteps:
            x = scheduler.step(_model(x, t), t, x).prev_sample
            if within:
                x[:, 0] = known[:, 0]
            else:
                x = torch.cat((known[:, :1], x[:, 1:]), 1)
        results.append(x)
    assert torch.equal(*results)
    scheduler.set_timesteps(6)
    assert not torch.equal(_walk(scheduler, _start())[:, 1:], results[0][:, 1:])


def test_a_list_of_generators_gives_each_sample_its_own_noise() -> None:
    def generators(numbers: tuple[int, ...]) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(n) for n in numbers]

    scheduler, x = _scheduler(sampler="dpm++-2m-sde"), _start(3)
    scheduler.set_timesteps(6)
    both = _walk(scheduler, x, generator=generators((5, 6, 7)))
    scheduler.set_timesteps(6)
    alone = _walk(scheduler, x[1:2], generator=generators((6,)))
    torch.testing.assert_close(both[1:2], alone)
    scheduler.set_timesteps(6)
    assert not torch.equal(both, _walk(scheduler, x, generator=generators((5, 8, 7))))


def test_half_precision_states_are_kept_in_float32() -> None:
    """bfloat16 has 8 bits: the result is the float32 one to what the model's own outputs lose, rounded once."""
    x, found = _start(), {}
    for dtype in (torch.float32, torch.bfloat16):
        scheduler = _scheduler(sampler="dpm++-3m")
        scheduler.set_timesteps(20)
        y = x.to(torch.bfloat16).to(dtype)
        for t in scheduler.timesteps:
            # The same outputs, whatever the state's dtype.
            y = scheduler.step(_model(scheduler._begun.state if scheduler._begun else y.float(), t).to(dtype), t, y)[0]
        found[dtype] = y
    assert found[torch.bfloat16].dtype == torch.bfloat16
    torch.testing.assert_close(found[torch.bfloat16].float(), found[torch.float32], rtol=0, atol=0.05)


def test_settings_survive_a_file_and_go_back_to_diffusers(tmp_path: File) -> None:
    DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler = _classes(
        "DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"
    )

    from sciode.diffusion.diffusers import SciodeScheduler

    theirs = DDIMScheduler(prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, **TABLE)
    kind: Any = SciodeScheduler
    theirs.save_pretrained(tmp_path / "theirs")
    ours = kind.from_pretrained(tmp_path / "theirs", sampler="unipc-3", sampler_options={"lower_final": True})
    ours.save_pretrained(tmp_path / "ours")
    again = kind.from_pretrained(tmp_path / "ours")
    for scheduler in (ours, again):
        assert scheduler.config.sampler == "unipc-3" and scheduler.config.prediction_type == "v_prediction"
        assert scheduler.config.final_sigmas_type == "sigma_min"
        # DDIM's default, which its file does not say.
        assert scheduler.config.timestep_spacing == "leading"
    assert json.loads((tmp_path / "ours" / "scheduler_config.json").read_text())["sampler_options"] == {
        "lower_final": True
    }
    back = DDIMScheduler.from_config(again.config)
    assert all(back.config[k] == v for k, v in theirs.config.items() if k[0] != "_")
    assert {DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler} <= set(ours.compatibles)


def test_dynamic_and_static_thresholding_are_those_of_sample() -> None:
    from sciode.diffusion import Threshold

    x = 3 * _start()
    times = 1000 * (1 - np.arange(STEPS) / STEPS) - 1
    for settings, threshold in (
        ({"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}, Threshold(0.9, most=1.5)),
        ({"clip_sample": True, "clip_sample_range": 0.8}, Threshold(None, limit=0.8)),
    ):
        scheduler = _scheduler(**settings)
        scheduler.set_timesteps(STEPS)
        ours = sample(MODEL, x, SCHEDULE, sampler="dpm++-2m", grid=times, denoise_last=True, threshold=threshold)
        found = _walk(scheduler, x)
        assert torch.equal(found, ours) and float(found.abs().max()) <= 1.5


def test_noise_is_added_at_fractions_of_time_steps() -> None:
    scheduler, x = _scheduler(), _start()
    t = torch.tensor([10.5, 999.0, 0.0, 499.7])
    alpha, sigma = (f(t.double()).float()[:, None] for f in (SCHEDULE.alpha, SCHEDULE.sigma))
    torch.testing.assert_close(scheduler.add_noise(x, 2 * x, t), (alpha + 2 * sigma) * x)
    torch.testing.assert_close(scheduler.scale_noise(x, t, 2 * x), (alpha + 2 * sigma) * x)
    torch.testing.assert_close(scheduler.get_velocity(x, 2 * x, t), (2 * alpha - sigma) * x)
    assert scheduler.init_noise_sigma == 1.0 and len(scheduler) == 1000
    torch.testing.assert_close(
        scheduler.alphas_cumprod.double(), torch.as_tensor(SCHEDULE.alpha_bar), rtol=1e-6, atol=0
    )


def test_misuse_says_the_mend() -> None:
    scheduler, x = _scheduler(), _start()
    for match, act in {
        "call set_timesteps": lambda: scheduler.step(x, 999, x),
        "give it, or timesteps": scheduler.set_timesteps,
        "give one of them": lambda: scheduler.set_timesteps(timesteps=[1.0], sigmas=[1.0]),
        "at least 1": lambda: scheduler.set_timesteps(0),
        "Did you mean 'dpm": lambda: _scheduler(sampler="dpm++2m"),
        "Did you mean 'lower_final'": lambda: _scheduler(sampler_options={"lowerfinal": True}),
        "unknown 'uniform_'": lambda: _scheduler(grid="uniform_").set_timesteps(3),
        "beta_schedule: unknown": lambda: _scheduler(beta_schedule="linear_"),
        "prediction_type: unknown": lambda: _scheduler(prediction_type="noise"),
        "final_sigmas_type": lambda: _scheduler(final_sigmas_type="sigma_max"),
        "sciode.diffusion.invert": lambda: _scheduler(invert_sigmas=True),
        "scaled inputs": lambda: _scheduler(sigma_data=0.5),
        "scheduler.statistics": lambda: _scheduler(sampler="dpm-v3").set_timesteps(3),
    }.items():
        with pytest.raises(ValueError, match=match):
            act()
    scheduler.set_timesteps(3)
    with pytest.raises(ValueError, match="is none of"):
        scheduler.step(x, 5.0, x)
    with pytest.raises(ValueError, match="sampler_options"):
        scheduler.step(x, scheduler.timesteps[0], x, eta=0.5)
    _walk(scheduler, x)
    with pytest.raises(ValueError, match="all 3 time steps are taken"):
        scheduler.step(x, scheduler.timesteps[-1], x)


def test_one_plan_is_one_pure_program() -> None:
    """Joined programs run as they do one after the other."""
    from sciode.diffusion.diffusers.spacing import Spaced
    from sciode.diffusion.diffusers.stepwise import program

    row = catalogue()["dpm++-3m"]
    assert isinstance(row, Sampler)
    plan = program(row, SCHEDULE, Spaced(np.array([900.0, 500.0, 100.0]), None), 0.0)
    assert isinstance(plan, Plan) and plan.calls == 3
    x = _start()
    found, _ = run(plan, Denoiser(MODEL, SCHEDULE, "eps"), (x,))
    torch.testing.assert_close(
        found, sample(MODEL, x, SCHEDULE, sampler=row, grid=[900.0, 500.0, 100.0], denoise_last=True)
    )
