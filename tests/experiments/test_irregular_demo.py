"""The demo keeps what was finished, writes what it promises, and draws. `sciode demo` itself runs in CI."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sciode.experiments import irregular_demo as demo
from sciode.experiments.irregular_demo import Row, run_demo
from sciode.timeseries import IrregularClassifier


class Trainings:
    """Stands for the training of a run: counts, and stops by Ctrl-C when told to."""

    def __init__(self, interrupt_at: int = 1_000) -> None:
        self.done: list[tuple[str, float, str, int]] = []
        self.interrupt_at = interrupt_at

    def __call__(self, dataset: str, missing: float, split: str, seed: int, device: str, keep: Path | None) -> Row:
        if len(self.done) == self.interrupt_at:
            raise KeyboardInterrupt
        self.done.append((dataset, missing, split, seed))
        return Row(dataset, missing, split, seed, accuracy=0.9 + 0.01 * seed, nfe=30.0, seconds=2.0)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One process, and no figure: the stand-in trains no model to draw."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(demo, "draw", lambda *_: None)
    return monkeypatch


def test_metrics_hold_one_record_a_cell(in_process: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_process.setattr(demo, "_run", Trainings())
    assert run_demo(seed=3, device="cpu", out=tmp_path) == 0
    records = json.loads((tmp_path / "metrics.json").read_text())
    cells = [(r["dataset"], r["missing"], r["split"]) for r in records]
    assert len(cells) == len(set(cells)) == 8
    for record in records:
        assert record["seeds"] == [3, 4, 5]
        assert record["accuracy_mean"] == pytest.approx(0.94) and record["accuracy_sd"] == pytest.approx(0.01)
        assert record["nfe_mean"] == 30.0 and record["seconds"] == 6.0


def test_an_interrupted_demo_trains_only_what_is_left(in_process: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second, third = Trainings(interrupt_at=7), Trainings(), Trainings()
    in_process.setattr(demo, "_run", first)
    with pytest.raises(KeyboardInterrupt):
        run_demo(device="cpu", out=tmp_path)
    in_process.setattr(demo, "_run", second)
    run_demo(device="cpu", out=tmp_path)
    assert len(first.done) == 7 and len(second.done) == 17 and not set(first.done) & set(second.done)
    in_process.setattr(demo, "_run", third)
    run_demo(device="cpu", out=tmp_path)
    assert third.done == []


def test_other_settings_or_seeds_train_again(in_process: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_process.setattr(demo, "_run", Trainings())
    run_demo(device="cpu", out=tmp_path)
    later, other = Trainings(), Trainings()
    in_process.setattr(demo, "_run", later)
    run_demo(seed=1, device="cpu", out=tmp_path)
    assert {key[3] for key in later.done} == {3}
    in_process.setattr(demo, "_run", other)
    in_process.setattr(demo, "SETTINGS", {name: {"epochs": 1} for name in demo.DATASETS})
    run_demo(device="cpu", out=tmp_path)
    assert len(other.done) == 24


def test_a_run_trains_on_its_part_and_the_figure_shows_the_saved_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(demo.SETTINGS, "BasicMotions", {"epochs": 1, "steps": 12, "hidden": 8, "batch_size": 32})
    row = demo._run("BasicMotions", 0.5, "pooled", 0, "cpu", tmp_path / "model.safetensors")
    series, labels, parts = demo._data("BasicMotions", 0.5, "pooled", 0)
    saved = IrregularClassifier.load(tmp_path / "model.safetensors", device="cpu")
    assert row.accuracy == saved.score(series[parts.test], labels[parts.test])
    assert 0.45 < series.missing_rate < 0.55
    demo.draw(tmp_path / "model.safetensors", 0, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_splits_are_disjoint_and_the_official_test_part_is_the_archive_s() -> None:
    for split in demo.SPLITS:
        _, labels, parts = demo._data("JapaneseVowels", 0.0, split, 0)
        rows = [set(part.tolist()) for part in (parts.train, parts.validation, parts.test)]
        assert set.union(*rows) == set(range(len(labels))) and sum(map(len, rows)) == len(labels)
    assert sorted(parts.test.tolist()) == list(range(270, 640))


def test_misuse_is_told_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed"):
        run_demo(seed=-1, out=tmp_path)
    with pytest.raises(ValueError, match="not available"):
        run_demo(device="nowhere", out=tmp_path)
