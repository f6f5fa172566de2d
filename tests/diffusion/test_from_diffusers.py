"""Networks and configs of diffusers as models and schedules of ours."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sciode.bench.diffusers_peers import available
from sciode.diffusion import ClassifierFree, Discrete, RectifiedFlow, from_diffusers, sample, shifted
from sciode.diffusion.diffusers import BETAS
from sciode.testing import GaussianMixture

# Its own libraries warn when they are first imported.
pytestmark = pytest.mark.filterwarnings("ignore")
needs_diffusers = pytest.mark.skipif(
    not available(), reason="diffusers is not installed: pip install sciode[diffusion]"
)

KINDS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}


def _classes(*names: str) -> list[Any]:
    """Classes of diffusers, which types its own exports as private."""
    import diffusers

    return [getattr(diffusers, name) for name in names]


def _nothing(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    return 0 * x


@needs_diffusers
@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("betas", BETAS)
def test_tables_are_those_of_diffusers(betas: str, rescaled: bool) -> None:
    """To the float32 in which diffusers multiplies a thousand factors."""
    DDIMScheduler, DDPMScheduler = _classes("DDIMScheduler", "DDPMScheduler")

    kind = DDPMScheduler if betas == "sigmoid" else DDIMScheduler
    theirs = kind(beta_schedule=betas, beta_start=0.0005, beta_end=0.015, rescale_betas_zero_snr=rescaled)
    schedule = from_diffusers(_nothing, theirs.config).schedule
    assert isinstance(schedule, Discrete) and schedule.t_max == 999.0
    table = theirs.alphas_cumprod.double()
    torch.testing.assert_close(torch.as_tensor(schedule.alpha_bar), table, rtol=2e-4, atol=1e-7)
    assert (float(schedule.alpha(999.0)) == 0) == rescaled


@needs_diffusers
def test_a_trained_table_is_taken_as_it_is() -> None:
    (DDIMScheduler,) = _classes("DDIMScheduler")

    betas = np.linspace(0.01, 0.3, 20).tolist()
    schedule = from_diffusers(_nothing, DDIMScheduler(trained_betas=betas, num_train_timesteps=20)).schedule
    np.testing.assert_allclose(schedule.alpha(torch.arange(20)).square(), np.cumprod(1 - np.array(betas)), rtol=1e-12)


@pytest.mark.parametrize("said", KINDS)
def test_every_prediction_type_gives_the_same_sample(said: str) -> None:
    """The same exact score, said in four ways, and through time steps of diffusers."""
    mixture = GaussianMixture.random(3, seed=0)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    schedule = RectifiedFlow() if said == "flow_prediction" else Discrete.scaled_linear()
    scale = 1000.0 if said == "flow_prediction" else 1.0
    exact = mixture.model(schedule, KINDS[said])

    def unet(x: torch.Tensor, timestep: torch.Tensor) -> Any:
        return SimpleNamespace(sample=exact(x, timestep / scale))

    table = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    model, found, prediction = from_diffusers(unet, table | {"prediction_type": said})
    assert prediction == KINDS[said] and type(found) is type(schedule)
    ours = sample(model, x, found, prediction=prediction, t_start=0.9 * found.t_max, t_end=0.001 * found.t_max)
    wanted = sample(mixture.model(schedule), x, schedule, t_start=0.9 * found.t_max, t_end=0.001 * found.t_max)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-9)


def test_what_a_file_leaves_open_is_what_its_class_takes_for_granted() -> None:
    """A flow's config says by its name, or by a shift without a table, what the network predicts."""
    for config in (
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
        {"shift": 3.0, "num_train_timesteps": 1000},
        {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"},
    ):
        model, schedule, prediction = from_diffusers(_nothing, config)
        assert isinstance(schedule, RectifiedFlow) and prediction == "flow" and model.scale == 1000.0
        assert model.shift == 3.0
    assert from_diffusers(_nothing, {"shift": 1.0}, time_scale=1.0).model.scale == 1.0


def test_a_flows_shift_belongs_to_its_grid() -> None:
    """t -> 3 t / (1 + 2 t): the model is asked at 1000 times that."""
    asked = []

    def network(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        asked.append(float(timestep[0]))
        return x

    model, schedule, prediction = from_diffusers(network, {"shift": 3.0})
    grid = shifted(model.shift)
    sample(model, torch.ones(1, 2, dtype=torch.float64), schedule, sampler="flow-euler", prediction=prediction,
           grid=grid, steps=4, t_start=1.0, t_end=0.1)  # fmt: skip
    first = 0.1 / (3 - 2 * 0.1)
    u = np.linspace(1, first, 5)[:-1]
    np.testing.assert_allclose(asked, 1000 * 3 * u / (1 + 2 * u), rtol=1e-12)


def test_time_steps_are_never_rounded() -> None:
    """Between 499 and 500 the model is asked at what lies between, however small the difference."""
    seen: list[float] = []

    def network(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        seen.extend(timestep.tolist())
        return 0 * x

    model, schedule, prediction = from_diffusers(network, {})
    grid = [600.0, 499.75, 499.5, 499.25, 100.0]
    sample(model, torch.zeros(1, 2), schedule, grid=grid, prediction=prediction, sampler="ddim")
    assert seen == grid[:-1]


@needs_diffusers
def test_networks_of_diffusers_run_with_their_conditions(seeded) -> None:
    """A text-to-image U-Net with nested conditions under guidance: two calls by hand, one call by us."""
    (UNet2DConditionModel,) = _classes("UNet2DConditionModel")

    with seeded(0):
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
            norm_num_groups=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=4,
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=6, addition_embed_type="text_time",
            addition_time_embed_dim=4, projection_class_embeddings_input_dim=4 * 3 + 5,
        ).eval().requires_grad_(False)  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 8, 8, generator=generator)

    def words(scale: float) -> dict[str, Any]:
        embeds = torch.randn(1, 3, 6, generator=generator) * scale
        added = {"text_embeds": torch.ones(1, 5) * scale, "time_ids": torch.ones(1, 3) * scale}
        return {"encoder_hidden_states": embeds, "added_cond_kwargs": added}

    with_, without = words(1.0), words(0.0)
    model, schedule, prediction = from_diffusers(unet, {"beta_schedule": "scaled_linear"})
    guidance = ClassifierFree(3.0, unconditional=without)
    found = sample(model, x, schedule, grid=[600.0, 300.0], sampler="ddim", prediction=prediction, cond=with_,
                   guidance=guidance)  # fmt: skip

    def said(words: dict[str, Any]) -> torch.Tensor:
        wide = {"encoder_hidden_states": words["encoder_hidden_states"].expand(2, -1, -1)}
        wide["added_cond_kwargs"] = {k: v.expand(2, -1) for k, v in words["added_cond_kwargs"].items()}
        return unet(x, 600.0, **wide).sample

    eps = said(without) + 3.0 * (said(with_) - said(without))
    (a, s), (b, r) = ((float(schedule.alpha(t)), float(schedule.sigma(t))) for t in (600.0, 300.0))
    torch.testing.assert_close(found, b * (x - s * eps) / a + r * eps, rtol=1e-4, atol=1e-5)


@needs_diffusers
def test_a_learned_variance_is_left_out(seeded) -> None:
    (DiTTransformer2DModel,) = _classes("DiTTransformer2DModel")

    with seeded(0):
        network = DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=4, in_channels=2, out_channels=4, num_layers=1, sample_size=4,
            patch_size=2, norm_num_groups=2, num_embeds_ada_norm=10,
        ).eval().requires_grad_(False)  # fmt: skip
    x, t = torch.ones(2, 2, 4, 4), torch.tensor([7.0, 7.0])
    cond = {"class_labels": torch.tensor([1, 2])}
    model = from_diffusers(network, {}).model
    assert torch.equal(model(x, t, **cond), network(x, timestep=t, **cond).sample[:, :2])


def test_settings_that_cannot_be_taken_are_named() -> None:
    for match, config in {
        "beta_schedule: unknown 'liner'": {"beta_schedule": "liner"},
        "prediction_type: unknown": {"prediction_type": "noise"},
        "scaled inputs": {"sigma_data": 0.5, "sigma_min": 0.002},
        "got <class 'int'>": 7,
    }.items():
        with pytest.raises(ValueError, match=match):
            from_diffusers(_nothing, config)
    with pytest.raises(ValueError, match="timestep="):
        from_diffusers(lambda x, t: x, {})


def test_the_cosine_table_is_nichols_and_dhariwals() -> None:
    """alpha_bar(i) = cos^2 of the angle over that at 0, but for the last, where beta is kept below 1."""
    schedule = from_diffusers(_nothing, {"beta_schedule": "squaredcos_cap_v2"}).schedule
    angle = (np.arange(1, 1000) / 1000 + 0.008) / 1.008 * math.pi / 2
    wanted = (np.cos(angle) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2
    np.testing.assert_allclose(schedule.alpha(torch.arange(999.0)).square(), wanted, rtol=1e-9)
