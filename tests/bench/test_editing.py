"""The benchmark of editing: what it compares, and that images are split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sciode.bench import editing as bench
from sciode.bench.digit_denoiser import DigitDenoiser, digits, trained
from sciode.bench.editing import Curve


def _curve(method: str, distance: tuple[float, ...], accuracy: tuple[float, ...], seed: int = 0) -> Curve:
    return Curve(seed, "judge", "noise", method, distance, accuracy, 0.5)


def test_accuracies_are_compared_at_equal_distance_alone() -> None:
    other = _curve("sdedit", (0.1, 0.3), (0.8, 0.4))
    assert bench.advantage(_curve("code", (0.2,), (0.7,)), other) == pytest.approx(0.1)
    assert bench.advantage(_curve("code", (0.2, 0.9), (0.7, 0.0)), other) == pytest.approx(0.1)
    assert bench.advantage(_curve("code", (0.9,), (1.0,)), other) is None
    # Between the input, right half of the time, and the other's first.
    assert bench.advantage(_curve("code", (0.05,), (0.75,)), other) == pytest.approx(0.1)


def test_settings_are_chosen_by_the_mean_over_corruptions() -> None:
    found = [_curve("sdedit", (0.1, 0.3), (0.5, 0.5))]
    found += [_curve(bench.code_name(*s), (0.2,), (0.6 if s == (3, 0.01) else 0.4,)) for s in bench.SETTINGS]
    assert bench.chosen(found, bench.SETTINGS) == (3, 0.01)


def test_a_few_steps_of_training_denoise_better_than_none() -> None:
    data = digits()
    assert {len(data.train), len(data.test)} == {1297, 500} and float(data.train.abs().max()) == 1.0
    losses = []
    for steps in (1, 150):
        net = trained(data.train, steps, width=64)
        generator = bench.torch.Generator().manual_seed(5)
        z = bench.torch.randn(data.test.shape, generator=generator)
        t = bench.torch.full((500,), 0.3)
        alpha, sigma = (float(f(0.3)) for f in (bench.SCHEDULE.alpha, bench.SCHEDULE.sigma))
        losses.append(float((net(alpha * data.test + sigma * z, t) - z).square().mean()))
    assert losses[1] < 0.8 * losses[0]


def test_the_file_holds_curves_of_images_that_chose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeded
) -> None:
    with seeded(0):
        net = DigitDenoiser(32).requires_grad_(False)
    monkeypatch.setattr(bench, "SEEDS", (0,))
    monkeypatch.setattr(bench, "SETTINGS", ((0, 0.05),))
    monkeypatch.setattr(bench, "_STEPS", 2)
    monkeypatch.setattr(bench, "LEVELS", (0.1, 0.3))
    monkeypatch.setattr(bench, "trained", lambda images, steps, seed: net)
    assert bench.main(tmp_path) == 0
    record = json.loads((tmp_path / "editing_cpu.json").read_text())
    assert {curve["part"] for curve in record["curves"]} == {"judge"}
    assert {v["corruption"] for v in record["verdicts"]} == {*bench.CORRUPTIONS, "all"}
