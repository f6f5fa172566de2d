"""The benchmark of samplers on a U-Net, in small: rows are kept, budgets are evaluations, the floor is a floor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sciode.bench import samplers_mnist
from sciode.bench.digit_judge import trained_judge
from sciode.bench.samplers_mnist import COARSER, FLOOR, REFERENCE
from sciode.bench.samplers_mnist_tables import over_seeds
from sciode.diffusion import VPLinear
from sciode.diffusion.networks import Preconditioned, build, save_model

SMALL: dict[str, Any] = {
    "samples": 6, "paired": 3, "reference": 40, "budgets": (2, 4), "seeds": (0,), "ems_images": 4, "ems_points": 4,
    "judge_steps": 2, "names": ("ddim", "edm-heun", "dpm-v3 lowered, middle", "rk-rk4"), "peers": (),
}  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    network = build("unet-digits", width=8, heads=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.05 * torch.randn(p.shape, generator=generator)
    save_model(tmp_path / "model.safetensors", Preconditioned(network, VPLinear(), deviation=0.6), record={"step": 1})
    return tmp_path / "model.safetensors"


def test_rows_are_made_once_and_hold_what_is_compared(
    shared_data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert samplers_mnist.main(tmp_path / "out", "cpu", checkpoint=checkpoint, **SMALL) == 0
    record = json.loads((tmp_path / "out" / "samplers_mnist.json").read_text())
    rows = {row["name"]: row for row in record["rows"]}
    assert set(rows) == {FLOOR, REFERENCE, COARSER, *SMALL["names"]}
    assert rows["rk-rk4"]["budgets"]["2"] is None and rows["rk-rk4"]["budgets"]["4"] is not None
    assert over_seeds(record["rows"], "rk-rk4", "error", 2) == []
    cell = rows["ddim"]["budgets"]["4"]
    assert {"error", "sliced_wasserstein", "mmd", "classifier_frechet", "label_accuracy"} == set(cell)
    assert rows[COARSER]["error"] < cell["error"] and "label_accuracy" not in rows[FLOOR]
    assert "ddim" in capsys.readouterr().out and (tmp_path / "out" / "samplers_mnist.png").stat().st_size > 0
    monkeypatch.setattr(samplers_mnist, "_row", None)
    assert samplers_mnist.main(tmp_path / "out", "cpu", checkpoint=checkpoint, **SMALL) == 0
    with pytest.raises(ValueError, match="no sampler"):
        samplers_mnist.main(tmp_path / "out", "cpu", only="nothing", checkpoint=checkpoint)


def test_the_judge_learns_what_it_is_shown() -> None:
    """Pictures that are one brightness each: two classes that any classifier tells apart."""
    labels = torch.arange(40) % 2
    images = (labels * 1.6 - 0.8).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    judge = trained_judge(images, labels, steps=40, batch=16)
    assert bool((judge(images).argmax(1) == labels).all()) and judge.features(images).shape == (40, 64)
