"""The benchmark of editing 8 x 8 digits: that images are split, and what its file holds."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from sciode.bench import editing as bench
from sciode.bench import restoring
from sciode.bench.restoring import BOUNDS, Curve, pixel_range, verdicts
from sciode.diffusion.networks import Preconditioned, build
from sciode.lab.scans import SCHEDULE, scans


def test_bounds_of_pixels_hold_what_digits_have() -> None:
    data = scans()
    low, high = pixel_range(data.train)
    inside = ((data.test >= low) & (data.test <= high)).float().mean()
    assert float(inside) > 0.97 and float((high - low).min()) < 0.1 and float((high - low).max()) == 2.0


def test_the_file_holds_what_chose_and_what_was_judged_and_verdicts_of_the_latter_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Preconditioned(build("mlp-digits", classes=0, width=32, depth=1), SCHEDULE).requires_grad_(False)
    monkeypatch.setattr(restoring, "BOUNDS", BOUNDS[:2])
    for name, value in (("SEEDS", (0,)), ("CLIMBS", bench.CLIMBS[:1]), ("_STEPS", 2), ("LEVELS", (0.1, 0.3))):
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(bench, "denoiser", lambda rows, **options: SimpleNamespace(network=net))
    assert bench.main(tmp_path) == 0
    record = json.loads((tmp_path / "editing_cpu.json").read_text())
    assert {curve["part"] for curve in record["curves"]} == {"choose", "judge"}
    told = [(v["corruption"], v["way"]) for v in record["verdicts"]]
    assert {c for c, _ in told} <= {*bench.CORRUPTIONS, "all"} and told and len(told) == len(set(told))
    assert [(v.corruption, v.way) for v in verdicts([Curve(**c) for c in record["curves"]])] == told
