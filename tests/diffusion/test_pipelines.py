"""`pipe.scheduler = SciodeScheduler.from_config(...)` in randomly initialised pipelines of diffusers."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from sciode.bench.diffusers_peers import available
from sciode.diffusion import from_diffusers, sample, shifted

pytestmark = [
    pytest.mark.skipif(not available(), reason="diffusers is not installed: pip install sciode[diffusion]"),
    # Its own libraries warn when they are first imported, and its pipelines about what is missing.
    pytest.mark.filterwarnings("ignore"),
]
needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="text-to-image pipelines need transformers: pip install sciode[diffusion]"
)
TABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
# Single precision, states some ten times larger than their last step.
SINGLE: dict[str, Any] = {"rtol": 2e-5, "atol": 2e-5}


def _classes(*names: str) -> list[Any]:
    """Classes of diffusers, which types its own exports as private."""
    import diffusers

    return [getattr(diffusers, name) for name in names]


def _ours(scheduler: Any, **settings: Any) -> Any:
    from sciode.diffusion.diffusers import SciodeScheduler

    return SciodeScheduler.from_config(scheduler.config, **settings)


def _generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _without(network: torch.nn.Module) -> Any:
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vae(seeded_module: Callable) -> Any:
    (AutoencoderKL,) = _classes("AutoencoderKL")

    with seeded_module(0):
        return _without(AutoencoderKL(
            in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8,), norm_num_groups=4, sample_size=8,
            down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), layers_per_block=1,
        ))  # fmt: skip


@pytest.fixture(scope="module")
def seeded_module() -> Callable:
    """Networks of a module's fixtures, without a trace in the global stream."""
    from contextlib import contextmanager

    @contextmanager
    def seeded(seed: int) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield

    return seeded


@pytest.fixture(scope="module")
def text_to_image(vae: Any, seeded_module: Callable) -> Callable[..., Any]:
    """Stable Diffusion with a U-Net of some thousand weights; `text_to_image(scheduler, kind=None)`."""
    StableDiffusionPipeline, UNet2DConditionModel = _classes("StableDiffusionPipeline", "UNet2DConditionModel")

    with seeded_module(1):
        unet = _without(UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
            norm_num_groups=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=4,
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=12,
        ))  # fmt: skip

    def made(scheduler: Any, kind: Any = StableDiffusionPipeline) -> Any:
        nothing = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
        return _quiet(kind(vae=vae, unet=unet, scheduler=scheduler, requires_safety_checker=False, **nothing))

    return made


def _words(batch: int = 2) -> dict[str, Any]:
    embeds = torch.randn(batch, 5, 12, generator=_generator(1))
    return {
        "prompt_embeds": embeds,
        "negative_prompt_embeds": 0 * embeds,
        "guidance_scale": 4.0,
        "output_type": "latent",
    }


TO_TABLE = {"final_sigmas_type": "sigma_min"}
RIGHT = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}),
    "dpm++-2m": ("DPMSolverMultistepScheduler", {"lower_order_final": False}),
    "unipc-2": ("UniPCMultistepScheduler", {"timestep_spacing": "trailing"}),
    "unipc-3": ("UniPCMultistepScheduler", {"solver_order": 3, "lower_order_final": False, **TO_TABLE}),
    "unipc-2-bh1": ("UniPCMultistepScheduler", {"solver_type": "bh1", "lower_order_final": False, **TO_TABLE}),
    "dpm++-2m-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "lower_order_final": False}),
}
"""Schedulers of diffusers that are right: UniPC, where the last sigma is 0, with bh2 and lowered order alone."""


@needs_transformers
@pytest.mark.parametrize("name", RIGHT)
def test_text_to_image_gives_what_diffusers_gives_where_it_is_right(name: str, text_to_image) -> None:
    import diffusers

    kind, settings = RIGHT[name]
    theirs = getattr(diffusers, kind)(**TABLE, **settings)
    pipe, images = text_to_image(theirs), []
    theirs.set_timesteps(10)
    # Some of diffusers' spacings put steps elsewhere than ours, but all can be given.
    given = {"timesteps": [float(t) for t in theirs.timesteps]}
    for scheduler, asked in ((theirs, {"num_inference_steps": 10}), (_ours(theirs, sampler=name), given)):
        pipe.scheduler = scheduler
        images.append(pipe(generator=_generator(), **asked, **_words()).images)
    assert images[0].isfinite().all() and images[0].shape == (2, 4, 8, 8)
    torch.testing.assert_close(images[1] / images[0].abs().max(), images[0] / images[0].abs().max(), **SINGLE)


@needs_transformers
def test_text_to_image_gives_what_sample_gives(text_to_image) -> None:
    """The same network, guidance and grid in `sample`: the pipeline adds nothing."""
    (DDIMScheduler,) = _classes("DDIMScheduler")

    from sciode.diffusion import ClassifierFree

    pipe = text_to_image(DDIMScheduler(timestep_spacing="trailing", clip_sample=False, **TABLE))
    pipe.scheduler = _ours(pipe.scheduler, sampler="dpm++-3m")
    words = _words()
    found = pipe(generator=_generator(), num_inference_steps=8, **words).images
    model, schedule, prediction = from_diffusers(pipe.unet, pipe.scheduler.config)
    x = torch.randn(2, 4, 8, 8, generator=_generator())
    guidance = ClassifierFree(4.0, unconditional={"encoder_hidden_states": words["negative_prompt_embeds"]})
    ours = sample(model, x, schedule, sampler="dpm++-3m", grid=[1000 * (1 - i / 8) - 1 for i in range(8)],
                  denoise_last=True, prediction=prediction, guidance=guidance,
                  cond={"encoder_hidden_states": words["prompt_embeds"]})  # fmt: skip
    torch.testing.assert_close(found / found.abs().max(), ours / found.abs().max(), **SINGLE)


@needs_transformers
@pytest.mark.parametrize("strength", [0.25, 0.6, 1.0])
@pytest.mark.parametrize("name", ["ddim", "dpm++-2m", "unipc-3", "dpm++-2s", "edm-heun"])
def test_image_to_image_gives_what_sample_gives(name: str, strength: float, text_to_image) -> None:
    """Noise is put on at the begin index, and the sampler takes the rest of the grid."""
    DDIMScheduler, StableDiffusionImg2ImgPipeline = _classes("DDIMScheduler", "StableDiffusionImg2ImgPipeline")

    pipe = text_to_image(
        DDIMScheduler(timestep_spacing="trailing", clip_sample=False, **TABLE), StableDiffusionImg2ImgPipeline
    )
    pipe.scheduler = _ours(pipe.scheduler, sampler=name)
    words = _words() | {"guidance_scale": 1.0}
    image = torch.randn(2, 4, 8, 8, generator=_generator(5))
    found = pipe(image=image, strength=strength, num_inference_steps=8, generator=_generator(), **words).images
    model, schedule, prediction = from_diffusers(pipe.unet, pipe.scheduler.config)
    first = 8 - int(8 * strength)
    times = [1000 * (1 - i / 8) - 1 for i in range(first, 8)]
    noise = torch.randn(2, 4, 8, 8, generator=_generator())
    x = float(schedule.alpha(times[0])) * image + float(schedule.sigma(times[0])) * noise
    ours = sample(model, x, schedule, sampler=name, grid=times, denoise_last=True, prediction=prediction,
                  cond={"encoder_hidden_states": words["prompt_embeds"]})  # fmt: skip
    torch.testing.assert_close(found / found.abs().max(), ours / found.abs().max(), **SINGLE)


@needs_transformers
@pytest.mark.parametrize("name", ["dpm++-2m", "unipc-2"])
def test_inpainting_keeps_what_is_not_masked(name: str, text_to_image, vae) -> None:
    DPMSolverMultistepScheduler, StableDiffusionInpaintPipeline = _classes(
        "DPMSolverMultistepScheduler", "StableDiffusionInpaintPipeline"
    )

    pipe = text_to_image(DPMSolverMultistepScheduler(**TABLE), StableDiffusionInpaintPipeline)
    pipe.scheduler = _ours(pipe.scheduler, sampler=name)
    image, mask = torch.rand(1, 3, 8, 8, generator=_generator()), torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    found = pipe(image=image, mask_image=mask, height=8, width=8, generator=_generator(), num_inference_steps=6,
                 **_words(1)).images  # fmt: skip
    # Latents of the image, drawn first from the same stream.
    kept = vae.encode(2 * image - 1).latent_dist.sample(_generator()) * vae.config.scaling_factor
    torch.testing.assert_close(found[..., 4:], kept[..., 4:])
    assert not torch.allclose(found[..., :4], kept[..., :4], atol=0.1)


@needs_transformers
def test_a_pipeline_is_saved_and_loaded_with_its_scheduler(text_to_image, tmp_path: Path) -> None:
    DDIMScheduler, StableDiffusionPipeline = _classes("DDIMScheduler", "StableDiffusionPipeline")

    pipe = text_to_image(DDIMScheduler(**TABLE))
    pipe.scheduler = _ours(pipe.scheduler, sampler="unipc-3", grid="karras")
    pipe.save_pretrained(tmp_path)
    nothing = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor", "image_encoder"))
    again = _quiet(StableDiffusionPipeline.from_pretrained(tmp_path, **nothing))
    assert type(again.scheduler) is type(pipe.scheduler)
    images = [p(generator=_generator(), num_inference_steps=4, **_words()).images for p in (pipe, again)]
    assert torch.equal(*images)


@needs_transformers
@pytest.mark.parametrize("name", ["dpm++-2m-sde", "ddpm"])
def test_a_list_of_generators_makes_an_image_alone_or_in_a_batch(name: str, text_to_image) -> None:
    """Samplers that draw: the image of a generator does not depend on the others."""
    (DDIMScheduler,) = _classes("DDIMScheduler")

    pipe = text_to_image(DDIMScheduler(clip_sample=False, **TABLE))
    pipe.scheduler = _ours(pipe.scheduler, sampler=name)

    def images(rows: slice, *seeds: int) -> torch.Tensor:
        words = {k: v[rows] if isinstance(v, torch.Tensor) else v for k, v in _words().items()}
        return pipe(generator=[_generator(s) for s in seeds], num_inference_steps=5, **words).images

    both, again = images(slice(None), 1, 2), images(slice(None), 7, 2)
    scale = both.abs().max()
    torch.testing.assert_close(images(slice(1, 2), 2) / scale, both[1:] / scale, **SINGLE)
    torch.testing.assert_close(again[1:], both[1:])
    assert not torch.allclose(again[:1], both[:1], atol=1e-2)


@needs_transformers
def test_a_network_of_velocities_gives_what_diffusers_gives(text_to_image) -> None:
    """v prediction to a table of zero terminal SNR, as Stable Diffusion 2.1 and its successors are trained."""
    (DDIMScheduler,) = _classes("DDIMScheduler")

    said = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    theirs = DDIMScheduler(clip_sample=False, **TABLE, **said)
    pipe, images = text_to_image(theirs), []
    for scheduler in (theirs, _ours(theirs, sampler="ddim")):
        pipe.scheduler = scheduler
        images.append(pipe(generator=_generator(), num_inference_steps=8, **_words()).images)
    torch.testing.assert_close(images[1] / images[0].abs().max(), images[0] / images[0].abs().max(), **SINGLE)


@pytest.fixture(scope="module")
def extra_large(vae: Any, seeded_module: Callable) -> Callable[..., Any]:
    """Stable Diffusion XL: told pooled words, and the sizes of the picture."""
    StableDiffusionXLPipeline, UNet2DConditionModel = _classes("StableDiffusionXLPipeline", "UNet2DConditionModel")

    with seeded_module(3):
        unet = _without(UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
            norm_num_groups=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=4,
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=12,
            addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 8,
        ))  # fmt: skip

    def made(scheduler: Any, kind: Any = StableDiffusionXLPipeline) -> Any:
        nothing = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
        return _quiet(kind(vae=vae, unet=unet, scheduler=scheduler, add_watermarker=False, **nothing))

    return made


@needs_transformers
@pytest.mark.parametrize("way", ["text to image", "image to image"])
@pytest.mark.parametrize("name", ["ddim", "unipc-2"])
def test_the_extra_large_pipeline_gives_what_diffusers_gives(name: str, way: str, extra_large) -> None:
    import diffusers

    kind, settings = RIGHT[name]
    theirs = getattr(diffusers, kind)(**TABLE, **(settings | {"timestep_spacing": "trailing"}))
    given: dict[str, Any] = {"num_inference_steps": 8}
    if way == "image to image":
        given |= {"image": torch.randn(2, 4, 8, 8, generator=_generator(5)), "strength": 0.5}
        pipe = extra_large(theirs, diffusers.StableDiffusionXLImg2ImgPipeline)  # type: ignore[attr-defined]
    else:
        given |= {"height": 8, "width": 8}
        pipe = extra_large(theirs)
    words = _words() | {"pooled_prompt_embeds": torch.ones(2, 8), "negative_pooled_prompt_embeds": torch.zeros(2, 8)}
    # Where few steps are left ours lowers the last ones by default, theirs the one to sigma = 0 alone.
    more = {"sampler_options": {"lower_final": False}} if name.startswith("unipc") else {}
    images = []
    for scheduler in (theirs, _ours(theirs, sampler=name, **more)):
        pipe.scheduler = scheduler
        images.append(pipe(generator=_generator(), **given, **words).images)
    assert images[0].isfinite().all() and images[0].shape == (2, 4, 8, 8)
    torch.testing.assert_close(images[1] / images[0].abs().max(), images[0] / images[0].abs().max(), **SINGLE)


@pytest.fixture(scope="module")
def flow(vae: Any, seeded_module: Callable) -> Callable[..., Any]:
    """Stable Diffusion 3 with a transformer of some thousand weights."""
    SD3Transformer2DModel, StableDiffusion3Pipeline = _classes("SD3Transformer2DModel", "StableDiffusion3Pipeline")

    with seeded_module(2):
        transformer = _without(SD3Transformer2DModel(
            sample_size=8, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=12, caption_projection_dim=16, pooled_projection_dim=8, out_channels=4,
            pos_embed_max_size=16,
        ))  # fmt: skip

    def made(scheduler: Any, kind: Any = StableDiffusion3Pipeline) -> Any:
        names = [f"{what}{number}" for what in ("text_encoder", "tokenizer") for number in ("", "_2", "_3")]
        return _quiet(kind(transformer=transformer, vae=vae, scheduler=scheduler, **dict.fromkeys(names)))

    return made


def _pooled() -> dict[str, Any]:
    return _words() | {
        "pooled_prompt_embeds": torch.ones(2, 8), "negative_pooled_prompt_embeds": torch.zeros(2, 8), "height": 8,
        "width": 8,
    }  # fmt: skip


SIGMAS = [1 - i / 8 for i in range(8)]


@needs_transformers
@pytest.mark.parametrize("name", ["euler", "flow-euler"])
def test_flows_give_what_diffusers_gives(name: str, flow) -> None:
    """From pure noise at t = 1, where alpha is 0; the shift is applied once."""
    (FlowMatchEulerDiscreteScheduler,) = _classes("FlowMatchEulerDiscreteScheduler")

    pipe = flow(FlowMatchEulerDiscreteScheduler(shift=3.0))
    theirs = pipe(generator=_generator(), sigmas=SIGMAS, **_pooled()).images
    pipe.scheduler = _ours(pipe.scheduler, sampler=name)
    torch.testing.assert_close(pipe(generator=_generator(), sigmas=SIGMAS, **_pooled()).images, theirs, **SINGLE)
    # What the pipeline asks for without sigmas of its own is that grid.
    torch.testing.assert_close(
        pipe(generator=_generator(), num_inference_steps=8, **_pooled()).images, theirs, **SINGLE
    )


@needs_transformers
@pytest.mark.parametrize("name", ["dpm++-2m", "unipc-3", "rf-solver"])
def test_flows_give_what_sample_gives(name: str, flow) -> None:
    (FlowMatchEulerDiscreteScheduler,) = _classes("FlowMatchEulerDiscreteScheduler")

    pipe = flow(FlowMatchEulerDiscreteScheduler(shift=3.0))
    pipe.scheduler = _ours(pipe.scheduler, sampler=name)
    words = _pooled() | {"guidance_scale": 1.0}
    found = pipe(generator=_generator(), sigmas=SIGMAS, **words).images
    model, schedule, prediction = from_diffusers(pipe.transformer, pipe.scheduler.config)
    x = torch.randn(2, 4, 8, 8, generator=_generator())
    cond = {"encoder_hidden_states": words["prompt_embeds"], "pooled_projections": words["pooled_prompt_embeds"]}
    grid = [3 * s / (1 + 2 * s) for s in SIGMAS]
    ours = sample(model, x, schedule, sampler=name, grid=grid, denoise_last=True, prediction=prediction, cond=cond)
    torch.testing.assert_close(found, ours, **SINGLE)
    assert model.shift == 3.0 and shifted(model.shift)(schedule, 8, 1.0, 0.0)[1] == pytest.approx(grid[1])


@needs_transformers
def test_flows_go_from_image_to_image(flow) -> None:
    FlowMatchEulerDiscreteScheduler, StableDiffusion3Img2ImgPipeline = _classes(
        "FlowMatchEulerDiscreteScheduler", "StableDiffusion3Img2ImgPipeline"
    )

    words = {k: v for k, v in _pooled().items() if k not in ("height", "width")}
    image, images = torch.randn(2, 4, 8, 8, generator=_generator(5)), []
    for sampler in (None, "flow-euler"):
        pipe = flow(FlowMatchEulerDiscreteScheduler(shift=3.0), StableDiffusion3Img2ImgPipeline)
        if sampler:
            pipe.scheduler = _ours(pipe.scheduler, sampler=sampler)
        images.append(pipe(image=image, strength=0.5, sigmas=SIGMAS, generator=_generator(), height=8, width=8,
                           **words).images)  # fmt: skip
    torch.testing.assert_close(images[1], images[0], **SINGLE)


@needs_transformers
@pytest.mark.parametrize("way", ["text to image", "image to image"])
def test_flux_shifts_by_its_image_size_and_gives_what_diffusers_gives(way: str, seeded) -> None:
    names = ("AutoencoderKL", "FlowMatchEulerDiscreteScheduler", "FluxPipeline", "FluxTransformer2DModel")
    autoencoder, euler, text, network = _classes(*names)
    (image,) = _classes("FluxImg2ImgPipeline")
    with seeded(0):
        vae = _without(autoencoder(
            latent_channels=1, block_out_channels=(8,), norm_num_groups=4, use_quant_conv=False, shift_factor=0.1,
            use_post_quant_conv=False,
        ))  # fmt: skip
        transformer = _without(network(
            patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=12, pooled_projection_dim=8, axes_dims_rope=(4, 4, 8),
        ))  # fmt: skip
    given: dict[str, Any] = {"height": 16, "width": 16, "guidance_scale": 0.0, "num_inference_steps": 6}
    if way == "image to image":
        given |= {"image": torch.rand(1, 3, 16, 16, generator=_generator(5)), "strength": 0.5}
    nothing = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    kind = image if way == "image to image" else text
    pipe = _quiet(kind(scheduler=euler(use_dynamic_shifting=True), vae=vae, transformer=transformer, **nothing))
    words = {"prompt_embeds": torch.randn(1, 5, 12, generator=_generator(1)), "pooled_prompt_embeds": torch.ones(1, 8)}
    images = []
    for scheduler in (pipe.scheduler, _ours(pipe.scheduler, sampler="euler")):
        pipe.scheduler = scheduler
        images.append(pipe(generator=_generator(), output_type="latent", max_sequence_length=5, **given, **words)[0])
    torch.testing.assert_close(images[1], images[0], **SINGLE)


def test_dynamic_shifting_takes_the_shift_of_the_image_size() -> None:
    (FlowMatchEulerDiscreteScheduler,) = _classes("FlowMatchEulerDiscreteScheduler")

    theirs = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.1)
    ours = _ours(theirs)
    with pytest.raises(ValueError, match="mu="):
        ours.set_timesteps(8)
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(sigmas=SIGMAS, mu=0.8)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas)


def test_class_conditions_with_a_learned_variance(seeded) -> None:
    """DiT: the pipeline guides, splits and steps; theirs and ours agree."""
    AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel = _classes(
        "AutoencoderKL", "DDIMScheduler", "DiTPipeline", "DiTTransformer2DModel"
    )

    with seeded(0):
        network = _without(DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
            patch_size=2, norm_num_groups=4,
        ))  # fmt: skip
        vae = _without(AutoencoderKL(block_out_channels=(8,), norm_num_groups=4))
    pipe = _quiet(DiTPipeline(network, vae, DDIMScheduler(clip_sample=False)))
    images = []
    for scheduler in (pipe.scheduler, _ours(pipe.scheduler, sampler="ddim")):
        pipe.scheduler = scheduler
        images.append(pipe([3, 7], generator=_generator(), num_inference_steps=10, output_type="pt").images)
    assert images[0].shape == (2, 3, 8, 8)
    torch.testing.assert_close(images[1], images[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpm++-3m", "dpm++-3m-sde", "sa-solver", "dpm-3s"])
def test_unconditional_pipelines_run_every_kind_of_sampler(name: str, seeded) -> None:
    """With a list of generators, an image is the same alone and in a batch."""
    DDPMPipeline, DDPMScheduler, UNet2DModel = _classes("DDPMPipeline", "DDPMScheduler", "UNet2DModel")

    with seeded(0):
        unet = _without(UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1,
            norm_num_groups=4, down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D",) * 2,
        ))  # fmt: skip
    pipe = _quiet(DDPMPipeline(unet, DDPMScheduler()))
    pipe.scheduler = _ours(pipe.scheduler, sampler=name)
    assert pipe.scheduler.config.clip_sample

    def images(*seeds: int) -> torch.Tensor:
        generators = [_generator(seed) for seed in seeds]
        return pipe(len(seeds), generators, num_inference_steps=6, output_type="pt").images

    both = images(1, 2)
    torch.testing.assert_close(both[1:], images(2), rtol=0, atol=1e-5)
    # Clipped data, as DDPM's settings ask.
    assert both.isfinite().all() and not torch.equal(both[0], both[1])
