"""The diffusion model of MNIST, a few steps of it: both stages leave models that load, and a finished run is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sciode.diffusion import RectifiedFlow, VPLinear
from sciode.diffusion.networks import load_model
from sciode.experiments import mnist_diffusion
from sciode.experiments.mnist_diffusion import FLOW, MODEL, Settings

SIZES: dict[str, Any] = {
    "steps": 3, "batch": 4, "images": 40, "preset": "unet-digits", "pairs": 8, "pair_nfe": 2, "reflow_steps": 2
}  # fmt: skip


def test_both_stages_leave_models_and_a_finished_run_is_not_trained_again(shared_data: Path, tmp_path: Path) -> None:
    assert mnist_diffusion.main(tmp_path, "cpu", **SIZES) == 0
    record = json.loads((tmp_path / "table.json").read_text())
    assert record["diffusion"]["steps"] == 3 and record["reflow"]["steps"] == 2
    model, told = load_model(tmp_path / MODEL)
    flow, _ = load_model(tmp_path / FLOW)
    assert (model.schedule, model.prediction, flow.schedule, flow.prediction) == (
        VPLinear(), "eps", RectifiedFlow(), "flow"
    )  # fmt: skip
    assert told["step"] == 3 and next(model.parameters()).dtype == torch.float32
    assert (tmp_path / "diffusion.png").stat().st_size > 0
    before = (tmp_path / "diffusion" / "training.safetensors").read_bytes()
    assert mnist_diffusion.main(tmp_path, "cpu", **SIZES, stages=("diffusion",)) == 0
    assert (tmp_path / "diffusion" / "training.safetensors").read_bytes() == before
    assert "reflow" in json.loads((tmp_path / "table.json").read_text())


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="stages"):
        Settings(stages=("difusion",))
    with pytest.raises(ValueError, match="at least 1"):
        Settings(pairs=0)
