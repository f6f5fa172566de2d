"""A contest: rows once, settings by validation, what diverges is said, and who is held against whom."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sciode.experiments import contest
from sciode.experiments.contest import GRID, SDES, Anchored, Contest, Entry, Measure, Part, Run, Settings, standings
from sciode.timeseries import MODELS

ERROR = Measure("error", "error")
SIZES: dict[str, Any] = {"models": ("lnsde", "grud"), "rates": (0.0, 0.5), "seeds": (0, 1), "trials": 2}


class Sums(Contest):
    """Errors that are sums: of the rate, the seed and what a setting is worth; on the test part it is worth minus that.

    GRU-D's second seed diverges at the second rate if `spoil` is set.
    """

    title, rate, measures = "Sums", "lost", (ERROR, Measure("twice", "twice the error"))
    rivals: Mapping[str, Any] = {"zero": ({},)}
    spoil = False
    made_runs: list[tuple[Any, ...]] = []  # noqa: RUF012
    together: list[int] = []  # noqa: RUF012

    def case(self, rate: float) -> Any:
        return None

    def estimator(self, model: str, run: Run) -> Any:
        return None

    def fit(self, model: str, rate: float, runs: Sequence[Run]) -> list[Any]:
        for seed, _ in runs:
            if self.spoil and (model, rate, seed) == ("grud", 0.5, 1):
                raise FloatingPointError("training failed: loss nan")
        worth = {"lnsde": 1.0, "grud": 2.0, "zero": 4.0}[model] + rate
        self.made_runs.extend((model, rate, seed, *setting.values()) for seed, setting in runs)
        self.together.append(len(runs))
        return [
            (worth + seed + 10 * (setting.get("anchor") == "none"), 100 * setting.get("lr", 0.0))
            for seed, setting in runs
        ]

    def judge(self, fitted: Any, rate: float, part: Part) -> dict[str, float]:
        error = fitted[0] + (fitted[1] if part == "validation" else -fitted[1])
        return {"error": error, "twice": 2 * error}

    def facts(self) -> str:
        return "no data"


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> type[Sums]:
    monkeypatch.setattr(Sums, "made_runs", [])
    monkeypatch.setattr(Sums, "together", [])
    monkeypatch.setattr(Sums, "spoil", False)
    return Sums


def row(model: str, rate: float, seed: int, value: float | None) -> dict[str, Any]:
    key = {"model": model, "rate": rate, "seed": seed, "setting": {}, "train_seconds": 1.0}
    return key | ({"note": "diverged: nan"} if value is None else {"test": {"error": value}})


def test_each_run_is_made_once_and_trials_are_rows_of_the_table(sums: type[Sums], tmp_path: Path) -> None:
    assert contest.run(sums, Settings, tmp_path, "cpu", SIZES) == 0
    # Two models with 2 settings at the first cell and 3 cells more, one rival without settings.
    assert len(sums.made_runs) == len(set(sums.made_runs)) == 2 * (2 + 3) + 4
    # A model's two settings side by side, what its first rate still lacks, then both seeds of the second one.
    assert sorted(sums.together) == [1] * 4 + [2] * 5
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    contest.run(sums, Settings, tmp_path, "cpu", SIZES)
    assert len(sums.made_runs) == 14 and (tmp_path / "rows.jsonl").read_text().splitlines() == lines
    contest.run(sums, Settings, tmp_path, "cpu", SIZES | {"seeds": (0, 1, 2)})
    assert len(sums.made_runs) == 14 + 3 * 2
    contest.run(sums, Settings, tmp_path, "cpu", SIZES | {"epochs": 7})
    assert len(sums.made_runs) == 20 + 14


def test_validation_chooses_the_setting_though_another_is_better_in_the_test(sums: type[Sums], tmp_path: Path) -> None:
    contest.run(sums, Settings, tmp_path, "cpu", SIZES)
    record = json.loads((tmp_path / "table.json").read_text())
    low, high = sorted(setting["lr"] for setting in GRID[:2])
    for standing in record["standings"]:
        if standing["model"] in MODELS:
            assert standing["setting"] == {"lr": low}
            # In the test the other one would have been better, by 100 (high - low).
            base = {"lnsde": 1.0, "grud": 2.0}[standing["model"]]
            assert standing["figures"][0] == pytest.approx([base - 100 * low, base + 1 - 100 * low])
    assert high > low


def test_a_run_that_diverged_is_in_the_rows_and_in_the_table(
    sums: type[Sums], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sums, "spoil", True)
    contest.run(sums, Settings, tmp_path, "cpu", SIZES)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [r["note"] for r in rows if "note" in r] == ["diverged: training failed: loss nan"]
    assert "grud: 1 of 4 runs diverged" in capsys.readouterr().out
    found = {s["model"]: s for s in json.loads((tmp_path / "table.json").read_text())["standings"]}
    assert found["grud"]["diverged"] == 1 and found["grud"]["ratio"] is None
    assert [len(values) for values in found["grud"]["figures"]] == [2, 1]
    # A baseline with a run that diverged is no bar: the rival is.
    assert found["lnsde"]["ratio"] == pytest.approx((1.75 - 0.3) / 4.75)


def test_a_figure_that_is_not_finite_is_a_run_that_diverged(sums: type[Sums], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "judge", lambda self, fitted, rate, part: {"error": math.nan, "twice": 0.0})
    assert sums(Settings(**SIZES)).made(Entry("lnsde"), 0.0, [Run(0)])[0]["note"] == "diverged: a figure is not finite"


def test_ratios_are_to_the_baseline_of_the_best_mean_and_to_the_best_one_at_each_rate() -> None:
    values = {"last": (4.0, 4.0), "grud": (1.0, 6.0), "ncde": (2.0, 3.0), "nsde": (0.1, 0.1), "lnsde": (1.5, 1.5)}
    rows = [
        row(model, rate, 0, value) for model, two in values.items() for rate, value in zip((0, 1), two, strict=True)
    ]
    found = {s.model: s for s in standings(rows, (ERROR,), (0, 1))}
    # ncde has the best mean of those that are no SDE (2.5), grud is best at rate 0, ncde at rate 1.
    assert found["lnsde"].ratio == pytest.approx(1.5 / 2.5)
    assert found["lnsde"].worst == pytest.approx(max(1.5 / 1.0, 1.5 / 3.0))
    assert found["ncde"].ratio == 1.0 and found["nsde"].ratio == pytest.approx(0.04)


def test_each_model_takes_part_with_each_anchor_and_is_held_against_those_of_the_same(
    sums: type[Sums], tmp_path: Path
) -> None:
    anchors = ("line", "none")
    contest.run(sums, Anchored, tmp_path, "cpu", SIZES | {"trials": 1, "anchors": anchors})
    found = {(s["model"], s["anchor"]): s for s in json.loads((tmp_path / "table.json").read_text())["standings"]}
    assert set(found) == {("zero", None), *((m, a) for m in ("lnsde", "grud") for a in anchors)}
    # What an anchor is worth here is 10; a learning rate makes errors smaller by 100 times itself. The rival has 4.75.
    gain = 100 * GRID[0]["lr"]
    assert found["lnsde", "line"]["ratio"] == pytest.approx((1.75 - gain) / (2.75 - gain))
    assert found["lnsde", "none"]["ratio"] == pytest.approx((11.75 - gain) / (12.75 - gain))
    assert [Entry(*key).label for key in found][-2:] == ["lnsde, anchor none", "grud, anchor none"]


def test_a_rival_is_a_baseline_of_all_that_are_told_something() -> None:
    values = {("last", None): 1.0, ("grud", "line"): 2.0, ("lnsde", "line"): 3.0, ("ncde", "none"): 8.0}
    rows = [row(model, 0, 0, value) | {"anchor": anchor} for (model, anchor), value in values.items()]
    rows.append(row("lnsde", 0, 0, 4.0) | {"anchor": "none"})
    ratios = {(s.model, s.anchor): s.ratio for s in standings(rows, (ERROR,), (0,))}
    assert ratios["lnsde", "line"] == 3.0 and ratios["grud", "line"] == 2.0
    assert ratios["lnsde", "none"] == 0.5 and ratios["last", None] == 1.0


def test_a_group_of_which_one_run_breaks_is_made_one_by_one(sums: type[Sums], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "spoil", True)
    rows = sums(Settings(**SIZES)).made(Entry("grud"), 0.5, [Run(0), Run(1), Run(2)])
    assert ["note" in row for row in rows] == [False, True, False]


def test_every_model_takes_part_and_its_family_says_whether_it_is_an_sde(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().models == tuple(MODELS)
    noisy = {name for name in MODELS if MODELS[name].family in ("stable SDE", "SDE")}
    assert set(SDES) == noisy == {"lnsde", "lsde", "gsde", "nsde", "latentsde"}


def test_where_more_is_better_the_difference_is_told() -> None:
    gain = Measure("error", "area", "higher")
    rows = [row("boosting", 0, 0, 0.8), row("grud", 0, 0, 0.7), row("lnsde", 0, 0, 0.75)]
    found = {s.model: s for s in standings(rows, (gain,), (0,))}
    assert found["lnsde"].ratio == found["lnsde"].worst == pytest.approx(-0.05)
    assert found["boosting"].worst == pytest.approx(0.1)


def test_means_over_rates_are_of_seeds_that_ended_well_at_all_of_them() -> None:
    rows = [row("lnsde", 0, 0, 1.0), row("lnsde", 1, 0, 3.0), row("lnsde", 0, 1, 5.0), row("lnsde", 1, 1, None)]
    (found,) = standings(rows, (ERROR,), (0, 1))
    assert found.mean["error"] == [2.0] and found.diverged == 1 and found.ratio is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ("lnsd",)}, "there is no lnsd"),
        ({"seeds": (1, 1)}, "seeds: give some, each once"),
        ({"rates": ()}, "rates: give some"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"anchors": ("lines",)}, "anchors: give some of line"),
        ({"anchors": ()}, "anchors: give some of line"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Anchored(**changes)


def test_one_name_or_number_stands_for_a_list_of_one() -> None:
    settings = Settings(models="lnsde", rates=0, seeds=3)  # type: ignore[arg-type]
    assert (settings.models, settings.rates, settings.seeds) == (("lnsde",), (0.0,), (3,))
