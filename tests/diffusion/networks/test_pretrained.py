"""The shipped models: small files that load, and do what they were trained for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sciode.diffusion.networks.files as files
from sciode.diffusion import RectifiedFlow, VPLinear, initial_noise, sample
from sciode.diffusion.networks import pretrained, pretrained_statistics


def test_every_shipped_file_is_below_eight_mebibytes() -> None:
    shipped = list((Path(files.__file__).parent / "checkpoints").rglob("*.safetensors"))
    assert {file.stem for file in shipped} >= {"mnist_unet", "mnist_flow"}
    assert max(file.stat().st_size for file in shipped) <= 8 * 2**20


def test_the_flow_ends_in_one_step_where_the_diffusion_model_ends_in_many() -> None:
    """From the same noise, told the same digits: nearer than two different samples are to one another."""
    diffusion, flow = pretrained("mnist_unet")[0], pretrained("mnist_flow")[0]
    noise, cond = initial_noise(VPLinear(), (4, 1, 28, 28), seed=0), {"label": torch.tensor([0, 1, 4, 7])}
    many = sample(diffusion, noise, VPLinear(), sampler="unipc-3", nfe=12, cond=cond)
    options = {"sampler": "ddim", "prediction": "flow", "t_start": 1.0, "grid": "uniform", "cond": cond}
    once = sample(flow, noise / float(VPLinear().sigma(1.0)), RectifiedFlow(), steps=1, **options)
    far = (once[:, None] - many[None]).square().flatten(2).mean(2)
    assert bool((far.argmin(1) == torch.arange(4)).all())
    assert float(far.diagonal().max()) < 0.5 * float(far[~torch.eye(4, dtype=torch.bool)].min())


def test_statistics_of_the_shipped_model_keep_v3_on_the_way() -> None:
    model, statistics = pretrained("mnist_unet")[0], pretrained_statistics("mnist_unet")
    noise, cond = initial_noise(VPLinear(), (2, 1, 28, 28), seed=1), {"label": torch.tensor([3, 8])}
    aim = sample(model, noise, VPLinear(), sampler="unipc-3", nfe=15, cond=cond)
    informed = sample(model, noise, VPLinear(), sampler="dpm-v3", nfe=8, cond=cond, ems=statistics)
    plain = sample(model, noise, VPLinear(), sampler="ddim", nfe=8, cond=cond)
    assert float((informed - aim).square().mean()) < float((plain - aim).square().mean())


def test_a_model_that_is_not_shipped_is_named() -> None:
    with pytest.raises(ValueError, match="mnist_unet"):
        pretrained("mnist_unit")
