"""The benchmark of editing: what it compares, and that images are split."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from sciode.bench import editing as bench
from sciode.bench.editing import BOUNDS, CLIMBS, Curve, Setting
from sciode.diffusion.networks import Preconditioned, build
from sciode.lab.scans import SCHEDULE, scans


def _curve(method: str, distance: tuple[float, ...], accuracy: tuple[float, ...], seed: int = 0) -> Curve:
    return Curve(seed, "judge", "noise", method, distance, accuracy, 0.5)


def test_accuracies_are_compared_at_equal_distance_alone() -> None:
    other = _curve("sdedit", (0.1, 0.3), (0.8, 0.4))
    for distance, wanted in ((0.2, 0.6), (0.05, 0.65), (0.0, 0.5)):
        # Between the input, right half of the time, and the other's first.
        assert bench.at_distance(other, distance) == pytest.approx(wanted)
    assert bench.at_distance(other, 0.9) is None


def test_settings_are_chosen_by_the_best_accuracy_in_the_mean_over_corruptions() -> None:
    found = [_curve(s.name, (0.1, 0.2), (0.6 if s == BOUNDS[2] else 0.4, 0.1)) for s in BOUNDS]
    assert bench.chosen(found, BOUNDS) == BOUNDS[2]


def test_levels_are_those_that_the_other_half_chose() -> None:
    """Where accuracy on the judged half is higher at another level, it does not count."""
    part = {"seed": 0, "corruption": "noise", "before": 0.5}
    found = [
        Curve(part="choose", method="sdedit", distance=(0.1, 0.3), accuracy=(0.7, 0.2), **part),
        Curve(part="choose", method=Setting().name, distance=(0.1, 0.2), accuracy=(0.6, 0.8), **part),
        Curve(part="judge", method="sdedit", distance=(0.1, 0.3), accuracy=(0.6, 0.4), **part),
        Curve(part="judge", method=Setting().name, distance=(0.1, 0.2), accuracy=(0.9, 0.75), **part),
    ]
    first, *_ = bench.verdicts(found)
    assert (first.way, first.before, first.sdedit, first.code, first.distance) == ("chosen", 0.5, 0.6, 0.75, 0.2)
    assert first.gain == pytest.approx(0.25) and first.met


def test_names_of_settings_are_apart() -> None:
    all_of_them = [*BOUNDS, Setting(confidence=None), *(Setting(updates=n, step=e) for n, e in CLIMBS)]
    assert len({s.name for s in all_of_them}) == len(all_of_them)


def test_bounds_of_pixels_hold_what_digits_have() -> None:
    data = scans()
    low, high = bench.pixel_range(data)
    inside = ((data.test >= low) & (data.test <= high)).float().mean()
    assert float(inside) > 0.97 and float((high - low).min()) < 0.1 and float((high - low).max()) == 2.0


def test_the_file_holds_what_chose_and_what_was_judged_and_verdicts_of_the_latter_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Preconditioned(build("mlp-digits", classes=0, width=32, depth=1), SCHEDULE).requires_grad_(False)
    monkeypatch.setattr(bench, "SEEDS", (0,))
    monkeypatch.setattr(bench, "BOUNDS", BOUNDS[:2])
    monkeypatch.setattr(bench, "CLIMBS", CLIMBS[:1])
    monkeypatch.setattr(bench, "_STEPS", 2)
    monkeypatch.setattr(bench, "LEVELS", (0.1, 0.3))
    monkeypatch.setattr(bench, "denoiser", lambda rows, **options: SimpleNamespace(network=net))
    assert bench.main(tmp_path) == 0
    record = json.loads((tmp_path / "editing_cpu.json").read_text())
    assert {curve["part"] for curve in record["curves"]} == {"choose", "judge"}
    told = [(v["corruption"], v["way"]) for v in record["verdicts"]]
    assert {c for c, _ in told} <= {*bench.CORRUPTIONS, "all"} and len(told) == len(set(told))
    assert [(v.corruption, v.way) for v in bench.verdicts([Curve(**c) for c in record["curves"]])] == told
