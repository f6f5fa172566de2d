"""The forecasting table: runs in one part only, the same losses for all, nothing told of the future."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sciode.experiments import hopper_forecast
from sciode.experiments.contest import Run
from sciode.experiments.hopper_forecast import HopperForecast, Settings
from sciode.timeseries import MODELS

SIZES: dict[str, Any] = {
    "models": ("lnsde", "grud"), "rates": (0.0, 0.5), "seeds": (0,), "trials": 1, "epochs": 1, "samples": 2,
    "hidden": 4, "euler": 20, "engine": "eager", "stride": 1,
}  # fmt: skip
RUNS = 20


def array() -> np.ndarray:
    """20 runs of 61 time points: two windows each."""
    rng = np.random.default_rng(0)
    return np.cumsum(rng.normal(size=(RUNS, 61, 14)), axis=1).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCIODE_DATA", str(tmp_path))
    (tmp_path / "mujoco").mkdir()
    write(tmp_path, array())
    return tmp_path


def write(folder: Path, runs: np.ndarray) -> None:
    np.save(folder / "mujoco" / "hopper_100x100x14.npy", runs)


def task(**changes: Any) -> HopperForecast:
    return HopperForecast(Settings(**{**SIZES, **changes}))


def fitted(model: str, rate: float) -> Any:
    return task().fit(model, rate, [Run(0)])[0]


def test_the_table_is_made_and_goes_on_where_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = folder / "out"
    assert hopper_forecast.main(out, "cpu", **SIZES) == 0
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    models = [(m, a) for m in ("lnsde", "grud") for a in ("line", "linear", "none")]
    entries = [("mean", None), ("last", None), ("linear", None), *models]
    assert {(r["model"], r["anchor"], r["rate"]) for r in rows} == {(*entry, r) for entry in entries for r in (0, 0.5)}
    assert len(rows) == 18 and all(np.isfinite(r["test"]["mse"]) for r in rows)
    assert (out / "rates.png").stat().st_size > 0
    monkeypatch.setattr(HopperForecast, "fit", None)
    assert hopper_forecast.main(out, "cpu", **SIZES) == 0


def test_a_run_is_in_one_part_and_every_part_in_the_order_of_the_runs(folder: Path) -> None:
    parts = task().parts(0.0)
    train, validation, test = (set(parts[name].source.tolist()) for name in ("train", "validation", "test"))
    assert train == set(range(14)) and validation == {14, 15, 16} and test == {17, 18, 19}


def test_whole_time_points_are_lost_and_targets_never_are(folder: Path) -> None:
    parts = task().parts(0.5)
    for windows in parts.values():
        lost = np.isnan(np.stack(windows.history.values))
        assert (lost.all(-1) == lost.any(-1)).all() and (lost.any(-1).sum(1) == 25).all()
        assert all(not np.isnan(value).any() and len(value) == 10 for value in windows.future.values)


def test_losses_are_the_same_for_every_model_and_seed(folder: Path) -> None:
    one, other = task(models=("lnsde",), seeds=(0,)), task(models=("grud",), seeds=(4,))
    for part in ("train", "validation", "test"):
        assert one.parts(0.5)[part].history == other.parts(0.5)[part].history


def test_scales_are_those_of_the_training_runs(folder: Path) -> None:
    runs = array()
    plain = [fitted(model, 0.5) for model in ("lnsde", "mean")]
    runs[14:] *= 100.0
    write(folder, runs)
    spoiled = [fitted(model, 0.5) for model in ("lnsde", "mean")]
    for before, after in zip(plain, spoiled, strict=True):
        assert before.standardizer_ == after.standardizer_
    runs = array()
    runs[0] *= 100.0
    write(folder, runs)
    assert fitted("lnsde", 0.5).standardizer_ != plain[0].standardizer_


@pytest.mark.parametrize("model", [*MODELS, "last", "linear"])
def test_another_future_changes_no_prediction(folder: Path, model: str) -> None:
    """The last window's history ends where the last 10 time points begin: these are altered in the test runs."""
    made = fitted(model, 0.5)
    before = task().parts(0.5)["test"]
    runs = array()
    runs[17:, -10:] = 1e3
    write(folder, runs)
    after = task().parts(0.5)["test"]
    assert before.future != after.future
    last = np.flatnonzero([clock[-1] == 50 for clock in before.history.times])
    assert len(last) == 3
    clock = before.future.padded()[1]
    plain, altered = (made.predict(windows.history, clock) for windows in (before, after))
    assert np.array_equal(plain[last], altered[last])
    assert np.isfinite(plain).all()


def test_the_score_is_the_mean_squared_error_in_the_arrays_own_units(folder: Path) -> None:
    contest = task()
    fitted = contest.fit("last", 0.0, [Run(0)])[0]
    windows = contest.parts(0.0)["test"]
    errors = [
        (future - history[-1]) ** 2
        for history, future in zip(windows.history.values, windows.future.values, strict=True)
    ]
    assert contest.judge(fitted, 0.0, "test")["mse"] == pytest.approx(float(np.mean(errors)), rel=1e-6)


def test_seeds_that_train_side_by_side_are_those_that_train_alone(folder: Path) -> None:
    contest = task(epochs=2, anchors=("none",))
    runs = [Run(seed, {"lr": lr, "anchor": "none"}) for seed, lr in ((0, 1e-2), (1, 1e-3))]
    for run, mine in zip(runs, contest.fit("gsde", 0.5, runs), strict=True):
        (alone,) = contest.fit("gsde", 0.5, [run])
        for own, other in zip(mine.history_.epochs, alone.history_.epochs, strict=True):
            assert own.train_loss == pytest.approx(other.train_loss, rel=1e-5)
            assert own.validation_loss == pytest.approx(other.validation_loss, rel=1e-4)
        for part in ("validation", "test"):
            told = [contest.judge(fitted, 0.5, part)["mse"] for fitted in (mine, alone)]
            assert told[0] == pytest.approx(told[1], rel=1e-3)


def test_the_linear_rival_beats_the_last_value_where_channels_drive_one_another(folder: Path) -> None:
    """Runs that turn: x' = y, y' = -x in the first two channels, the others at rest, three hundredths a time point."""
    rng = np.random.default_rng(1)
    phase = rng.uniform(0, 2 * np.pi, (RUNS, 1)) + 0.03 * np.arange(61)
    runs = np.ones((RUNS, 61, 14), np.float32)
    runs[..., 0], runs[..., 1] = np.sin(phase), np.cos(phase)
    write(folder, runs)
    contest = task()
    errors = {
        name: contest.judge(contest.fit(name, 0.5, [Run(0)])[0], 0.5, "test")["mse"] for name in ("last", "linear")
    }
    assert errors["linear"] < 0.1 * errors["last"]
