"""The MNIST table on real digits, a few steps of it: every recipe trains, and a finished row is never made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sciode.experiments import frame, mnist_ode
from sciode.experiments.digits import Digits
from sciode.experiments.recipes import RECIPES

SIZES: dict[str, Any] = {"steps": 2, "batch": 8, "images": 64, "tested": 16, "engine": "eager", "seeds": (0, 1)}


def test_every_recipe_makes_its_rows_once(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mnist_ode.main(tmp_path, "cpu", **SIZES) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == sum(len(recipe.weights) for recipe in RECIPES)
    assert all(len(row["test"]["accuracy"]) == 2 for row in rows)
    assert (tmp_path / "pareto.png").stat().st_size > 0
    assert "vanilla" in capsys.readouterr().out
    monkeypatch.setattr(frame, "train", None)
    assert mnist_ode.main(tmp_path, "cpu", **SIZES) == 0
    assert len(json.loads((tmp_path / "table.json").read_text())) == len(RECIPES)


def test_validation_images_are_never_trained_on(shared_data: Path) -> None:
    digits = Digits(50_000, 10_000, "cpu")
    assert len(digits.parts["train"][1]) == 50_000
    assert len(digits.parts["validation"][1]) == len(digits.parts["test"][1]) == 10_000
    first = {image.numpy().tobytes() for image in digits.parts["train"][0][:2000]}
    assert not any(image.numpy().tobytes() in first for image in digits.parts["validation"][0])


def test_images_that_choose_weights_cannot_be_asked_for_in_training(shared_data: Path) -> None:
    with pytest.raises(ValueError, match="at most 50000"):
        Digits(50_001, 100, "cpu")


def test_sizes_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sizes must be at least 1"):
        mnist_ode.main(tmp_path, "cpu", steps=0)
