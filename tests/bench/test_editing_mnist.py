"""The benchmark of editing on MNIST, in small: who is judged on what, and that nothing is made twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sciode.bench import editing_mnist as bench
from sciode.bench import restoring
from sciode.bench.restoring import BOUNDS
from sciode.diffusion import VPLinear
from sciode.diffusion.networks import Preconditioned, build, save_model

SMALL: dict[str, Any] = {
    "seeds": (1, 2), "choosing": 4, "judged": 3, "steps": 1, "judge_steps": 1, "levels": (0.2,),
}  # fmt: skip


def test_settings_are_chosen_on_other_images_than_those_that_are_judged(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = build("unet-digits", width=8, heads=2)
    save_model(tmp_path / "model.safetensors", Preconditioned(network, VPLinear(), deviation=0.6), record={"step": 1})
    monkeypatch.setattr(restoring, "BOUNDS", BOUNDS[3:])
    monkeypatch.setattr(bench, "CORRUPTIONS", {name: bench.CORRUPTIONS[name] for name in ("blur", "noise")})
    monkeypatch.setattr(bench, "CLIMBS", ((2, 0.02),))
    options: dict[str, Any] = {**SMALL, "checkpoint": tmp_path / "model.safetensors"}
    assert bench.main(tmp_path / "out", "cpu", **options) == 0
    record = json.loads((tmp_path / "out" / "editing_mnist.json").read_text())
    parts = {(curve["part"], curve["seed"]) for curve in record["curves"]}
    assert parts == {("choose", 0), ("judge", 1), ("judge", 2)}
    assert record["verdicts"] and {v["corruption"] for v in record["verdicts"]} <= {*bench.CORRUPTIONS, "all"}
    assert "above" in capsys.readouterr().out
    monkeypatch.setattr(restoring, "sdedit", None)
    monkeypatch.setattr(restoring, "code", None)
    assert bench.main(tmp_path / "out", "cpu", **options) == 0
    assert len(list((tmp_path / "out").glob("curves-*.jsonl"))) == 1
    # Other levels, or weights, are other curves: they are made, here by nothing.
    with torch.no_grad():
        next(network.parameters()).add_(1.0)
    save_model(tmp_path / "other.safetensors", Preconditioned(network, VPLinear(), deviation=0.6), record={"step": 1})
    for other in ({"levels": (0.3,)}, {"checkpoint": tmp_path / "other.safetensors"}):
        with pytest.raises(TypeError):
            bench.main(tmp_path / "out", "cpu", **{**options, **other})
