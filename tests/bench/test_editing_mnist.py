"""The benchmark of editing on MNIST, in small: who is judged on what, and that nothing is made twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sciode.bench import editing_mnist as bench
from sciode.bench.editing import Curve
from sciode.diffusion import VPLinear
from sciode.diffusion.networks import Preconditioned, build, save_model

SMALL: dict[str, Any] = {
    "seeds": (1,), "choosing": 4, "judged": 3, "steps": 2, "judge_steps": 1, "levels": (0.1, 0.3),
}  # fmt: skip


def _curve(method: str, distance: tuple[float, ...], accuracy: tuple[float, ...]) -> Curve:
    return Curve(0, "judge", "noise", method, distance, accuracy, 0.5)


def test_gains_are_means_at_equal_distance_alone() -> None:
    other = _curve("sdedit", (0.1, 0.3), (0.8, 0.4))
    assert bench.advantage(_curve("code", (0.2,), (0.7,)), other) == pytest.approx(0.1)
    assert bench.advantage(_curve("code", (0.2, 0.9), (0.7, 0.0)), other) == pytest.approx(0.1)
    assert bench.advantage(_curve("code", (0.9,), (1.0,)), other) is None


def test_the_setting_with_the_largest_mean_gain_is_chosen() -> None:
    found = [_curve("sdedit", (0.1, 0.3), (0.5, 0.5))]
    best = bench.SETTINGS[4]
    found += [_curve(s.name, (0.2,), (0.6 if s == best else 0.4,)) for s in bench.SETTINGS]
    assert bench.chosen(found, bench.SETTINGS) == best


def test_settings_are_chosen_on_other_images_than_those_that_are_judged(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = build("unet-digits", width=8, heads=2)
    save_model(tmp_path / "model.safetensors", Preconditioned(network, VPLinear(), deviation=0.6), record={"step": 1})
    monkeypatch.setattr(bench, "SETTINGS", (bench.Setting(0, 0.02, 1.0), bench.Setting(2, 0.02)))
    options = SMALL | {"checkpoint": tmp_path / "model.safetensors"}
    assert bench.main(tmp_path / "out", "cpu", **options) == 0
    record = json.loads((tmp_path / "out" / "editing_mnist.json").read_text())
    parts = {(curve["part"], curve["seed"]) for curve in record["curves"]}
    assert parts == {("choose", 0), ("judge", 1)}
    assert {v["corruption"] for v in record["verdicts"]} == {*bench.CORRUPTIONS, "all"}
    assert "above" in capsys.readouterr().out
    monkeypatch.setattr(bench, "sdedit", None)
    monkeypatch.setattr(bench, "code", None)
    assert bench.main(tmp_path / "out", "cpu", **options) == 0


def test_corruptions_are_seeded_and_keep_the_shape() -> None:
    x = torch.linspace(-1, 1, 3 * 784).reshape(3, 1, 28, 28)
    for name in bench.CORRUPTIONS:
        y = bench.corrupted(x, name, seed=4)
        assert y.shape == x.shape and bool((y == bench.corrupted(x, name, seed=4)).all()) and bool((y != x).any())
