"""The classification table: the same splits and gaps for every model, rows end to end, counts by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sciode.data import IrregularSeries
from sciode.experiments import uea, uea_lines, uea_tables
from sciode.experiments.rocket import filled, majority, minirocket
from sciode.experiments.uea import Settings, batch_size, part
from sciode.timeseries import predict_together

NAME = "BasicMotions"
SMALL: dict[str, Any] = {
    "sets": (NAME,), "models": ("lnsde", "ncde", "majority"), "rates": (0.0, 0.5), "seeds": (0, 1), "epochs": 2,
    "tuning_epochs": 1, "trials": 1, "slots": 6, "draws": 2, "engine": "eager",
}  # fmt: skip


def waves(count: int = 24, channels: int = 2) -> tuple[IrregularSeries, Any]:
    """Two classes of sines, of two channels and of lengths 12 to 14."""
    rng = np.random.default_rng(0)
    labels = np.array(["slow", "fast"])[np.arange(count) % 2]
    lengths = rng.integers(12, 15, count)
    speed = {"slow": 0.3, "fast": 0.9}
    values = [
        np.sin(speed[label] * np.arange(n))[:, None] + 0.1 * rng.normal(size=(n, channels))
        for label, n in zip(labels, lengths, strict=True)
    ]
    return IrregularSeries(values), labels


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tiny set in the place of one of the archive's."""
    uea.pooled.cache_clear()
    part.cache_clear()
    monkeypatch.setattr(uea, "load", lambda name: waves())
    yield
    uea.pooled.cache_clear()
    part.cache_clear()


@pytest.mark.usefixtures("small")
def test_a_table_is_made_end_to_end_and_not_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert uea.main(tmp_path, "cpu", **SMALL) == 0
    record = json.loads((tmp_path / "table.json").read_text())
    assert (tmp_path / "accuracy.png").stat().st_size > 1000
    assert [(row["model"], row["mechanic"]) for row in record["rows"]] == [
        (model, mechanic) for model in SMALL["models"] for mechanic in ("reading", "time")
    ]
    for row in record["rows"]:
        assert list(row["accuracy"]) == ["0", "0.5"] and all(len(found) == 2 for found in row["accuracy"].values())
        assert all(0 <= value <= 1 for found in row["accuracy"].values() for value in found)
        assert row["train_seconds"] >= 0 and row["diverged"] == 0
    trained = [row for row in record["rows"] if row["model"] != "majority"]
    assert all(row["members"] == 4 and row["nfe"] > 0 and row["hidden"] == uea.TRIALS[0]["hidden"] for row in trained)
    both = [row["accuracy"]["0"] for row in record["rows"] if row["model"] == "lnsde"]
    assert both[0] == both[1], "nothing is missing at rate 0, whatever would have been dropped"
    monkeypatch.setattr(uea, "fit_together", lambda *_: pytest.fail("a finished row was made again"))
    assert uea.main(tmp_path, "cpu", **{**SMALL, "models": ("majority", "ncde")}) == 0


@pytest.mark.usefixtures("small")
def test_the_better_trial_on_the_validation_part_is_chosen() -> None:
    row = uea.tuned(Settings(**{**SMALL, "trials": 2}), NAME, "lnsde")
    assert [{k: trial[k] for k in ("hidden", "lr")} for trial in row["tried"]] == list(uea.TRIALS[:2])
    best = max(row["tried"], key=lambda trial: (trial["accuracy"], -trial["loss"]))
    assert row["chosen"] == {"hidden": best["hidden"], "lr": best["lr"]}


@pytest.mark.usefixtures("small")
def test_a_line_is_a_classifier_with_its_options_and_an_ensemble_answers_by_its_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = uea_lines.Line({"model": "lnsde", "readout": "pooled", "channels": ("age",)}, 2)
    monkeypatch.setitem(uea_lines.LINES, "two", own)
    monkeypatch.setitem(uea_lines.LINES, "one", own._replace(members=1))
    settings = Settings(**{**SMALL, "models": ("one", "two")})
    drawn: list[list[Any]] = []

    def kept(*given: Any) -> Any:
        drawn.append(predict_together(*given))
        return drawn[-1]

    monkeypatch.setattr(uea, "predict_together", kept)
    alone, both = (uea.made(settings, {"hidden": 4}, NAME, model, "reading") for model in ("one", "two"))
    assert alone["members"] == 4 and both["members"] == 8 and both["nfe"] == 2 * alone["nfe"]
    for row in (alone, both):
        assert all(len(row[name]["0.5"]) == 2 for name in ("accuracy", "validation", "epochs"))
    single, pair = drawn[0], drawn[2]  # each row reads its test part, then its validation part
    labels = np.unique(waves()[1])
    for k, (rate, seed) in enumerate([("0", 0), ("0", 1), ("0.5", 0), ("0.5", 1)]):
        np.testing.assert_allclose(pair[2 * k].probabilities, single[k].probabilities, atol=1e-4)
        chance = [draws.probabilities.mean(0) for draws in pair[2 * k : 2 * k + 2]]
        answer = labels[np.sum(chance, 0).argmax(-1)]
        test = part(NAME, seed, float(rate), "reading").split.test
        assert both["accuracy"][rate][seed] == (answer == waves()[1][test]).mean()
    assert np.abs(pair[1].probabilities - pair[0].probabilities).max() > 1e-3, "members differ in their seeds"


@pytest.mark.usefixtures("small")
def test_an_ensemble_takes_what_the_trials_of_its_single_member_chose(tmp_path: Path) -> None:
    assert [uea_lines.single(name) for name in ("lnsde, full, x5", "lnsde, pooled", "ncde")] == [
        "lnsde, full", "lnsde, pooled", "ncde",
    ]  # fmt: skip
    changes = {"models": ("lnsde, full, x5",), "mechanics": ("time",), "epochs": 1, "rates": (0.0,)}
    uea.main(tmp_path, "cpu", **{**SMALL, **changes})
    record = json.loads((tmp_path / "table.json").read_text())
    assert [(row["model"], row["members"]) for row in record["rows"]] == [("lnsde, full, x5", 10)]
    assert [trial["model"] for trial in record["tuning"]] == ["lnsde, full"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("mechanic", ["reading", "time"])
def test_parts_are_disjoint_and_gaps_depend_on_seed_and_rate_alone(mechanic: Any) -> None:
    first, split = part(NAME, 1, 0.5, mechanic)
    rows = [getattr(split, name) for name in ("train", "validation", "test")]
    assert sorted(np.concatenate(rows).tolist()) == list(range(24)) and all(len(own) for own in rows)
    part.cache_clear()
    again = part(NAME, 1, 0.5, mechanic)
    assert again.series == first and np.array_equal(again.split.test, split.test)
    whole, complete = part(NAME, 1, 0.0, mechanic)
    assert np.array_equal(complete.test, split.test), "the split of a seed is the same at all rates"
    other, _ = part(NAME, 2, 0.5, mechanic)
    assert other != first and whole.missing_rate == 0
    for values in first.values:
        gone = np.isnan(values)
        assert gone.sum(0).tolist() == [len(values) // 2] * 2
        assert (gone[:, 0] == gone[:, 1]).all() == (mechanic == "time") or mechanic == "reading"


@pytest.mark.usefixtures("small")
def test_with_one_channel_one_row_serves_for_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uea, "load", lambda name: waves(channels=1))
    uea.main(tmp_path, "cpu", **{**SMALL, "models": ("majority",)})
    record = json.loads((tmp_path / "table.json").read_text())
    assert [row["mechanic"] for row in record["rows"]] == ["reading", "time"]
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow  # numba compiles its kernels first
def test_minirocket_tells_slow_from_fast_with_half_of_the_readings() -> None:
    pytest.importorskip("aeon")
    from sciode.data import drop

    series, labels = waves()
    gaps = drop(series, 0.5, 0)
    answer = minirocket(gaps[:16], labels[:16], gaps[16:], 14, seed=0, kernels=84)
    assert (answer == labels[16:]).mean() >= 0.75


def test_gaps_are_closed_by_lines_and_lengths_stretched() -> None:
    series = IrregularSeries([np.array([[0.0, np.nan], [np.nan, np.nan], [4.0, 1.0]]), np.array([[1.0, 2.0]] * 5)])
    found = filled(series, 5)
    np.testing.assert_allclose(found[0], [[0, 1, 2, 3, 4], [1, 1, 1, 1, 1]])
    np.testing.assert_allclose(found[1], [[1] * 5, [2] * 5])


def test_the_majority_is_the_most_frequent_label() -> None:
    assert majority(np.array(["b", "a", "b"]), 2).tolist() == ["b", "b"]


def test_batches_are_the_papers() -> None:
    assert [batch_size(n) for n in (30, 80, 200, 211, 640, 9000)] == [16, 32, 64, 64, 128, 128]


def row(set: str, model: str, low: list[float], high: list[float]) -> dict[str, Any]:
    rest = {"train_seconds": 1.0, "compile_seconds": 0.5, "nfe": 3.0, "diverged": 1, "mechanic": "time"}
    return {"set": set, "model": model, "accuracy": {"0": low, "0.7": high}, **rest}


def test_means_falls_wins_and_ties() -> None:
    rows = [
        row("a", "lnsde", [1.0, 0.8], [0.5, 0.5]),
        row("b", "lnsde", [0.6, 0.6], [0.4, 0.2]),
        row("a", "ncde", [0.8, 1.0], [0.6, 0.6]),
        row("b", "ncde", [0.5, 0.5], [0.3, 0.3]),
        row("c", "ncde", [0.1, 0.1], [0.1, 0.1]),
    ]
    tuning = [{"set": "a", "model": "lnsde", "seconds": 7.0}, {"set": "a", "model": "ncde", "seconds": 100.0}]
    found = uea_tables.summary(rows, tuning, {"all": ("a", "b", "c"), "none": ("d",)}, (0.7, 0.0))
    assert [entry["model"] for entry in found] == ["lnsde", "ncde"]
    mine = found[0]
    assert mine["accuracy"] == pytest.approx({"0": 0.75, "0.7": 0.4}) and mine["fall"] == pytest.approx(0.35)
    assert mine["against"] == {"ncde": [1, 2, 4], "nsde": None}, "a at 0 and b at 0.7 are ties"
    assert mine["seconds"] == 2.0 and mine["tuning_seconds"] == 7.0 and mine["diverged"] == 2
    assert mine["spread"]["0"] == pytest.approx(0.1 / 2**0.5)
    assert found[1]["against"] == {"ncde": None, "nsde": None}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"models": ("lnsde", "magic")}, "magic is unknown"),
        ({"mechanics": ("row",)}, "row is unknown"),
        ({"sets": ("Iris",)}, "Iris is unknown"),
        ({"rates": (1.0,)}, "must be in"),
        ({"seeds": ()}, "at least 1"),
        ({"trials": 99}, "trials: there are"),
        ({"steps": 3}, "counts epochs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=why):
        uea.main(tmp_path, "cpu", **wrong)
