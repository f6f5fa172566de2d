"""The latent ODE's table: splits that do not leak, an encoder that sees what it may, and every recipe's rows once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sciode.data import IrregularSeries, Stays
from sciode.experiments import frame
from sciode.experiments import physionet_latent_ode as physionet
from sciode.experiments.recipes import RECIPES
from sciode.training import growing

SIZES: dict[str, Any] = {
    "steps": 2, "batch": 4, "engine": "eager", "seeds": (0, 1), "tolerance": 1e-2, "minutes": 240, "strengths": (1.0,),
}  # fmt: skip


def ward(count: int = 40, spoiled: int | None = None) -> Stays:
    """Invented stays on the grid of four hours; with `spoiled`, one has a reading far beyond all others."""
    rng = np.random.default_rng(0)
    times = [np.sort(rng.choice(13, size=rng.integers(2, 9), replace=False)) * 4.0 for _ in range(count)]
    values = [np.where(rng.random((len(t), 37)) < 0.7, np.nan, rng.normal(size=(len(t), 37))) for t in times]
    for value in values:
        value[:, 0] = rng.normal(size=len(value))
    if spoiled is not None:
        values[spoiled][0, 0] = 1e4
    return Stays(IrregularSeries(values, times), np.arange(count), rng.random(count) < 0.4)


@pytest.fixture
def invented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(physionet, "stays", lambda minutes: ward())


def task_of(**changes: Any) -> physionet.PhysionetLatentOde:
    return physionet.PhysionetLatentOde(physionet.Settings(**{**SIZES, **changes}))


@pytest.mark.usefixtures("invented")
def test_every_recipe_makes_its_rows_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert physionet.main(tmp_path, "cpu", **SIZES) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == len(RECIPES) and not any("note" in row for row in rows)
    assert all(len(row["test"]["mse"]) == 2 for row in rows)
    assert (tmp_path / "pareto.png").stat().st_size > 0
    assert "vanilla" in capsys.readouterr().out
    monkeypatch.setattr(frame, "train", None)
    assert physionet.main(tmp_path, "cpu", **SIZES) == 0


@pytest.mark.usefixtures("invented")
def test_the_split_is_disjoint_whole_and_the_same_each_time() -> None:
    splits = [task_of(seeds=seeds).ward.split for seeds in ((0,), (5, 6))]
    parts = [np.concatenate([s.train, s.validation, s.test]) for s in splits]
    assert sorted(parts[0].tolist()) == list(range(40))
    assert np.array_equal(parts[0], parts[1])
    assert len(splits[0].test) == 8 and len(splits[0].validation) == 4


def test_scales_are_those_of_training_stays_and_others_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(physionet, "stays", lambda minutes: ward())
    plain = task_of().ward
    for part in ("validation", "test"):
        stay = int(getattr(plain.split, part)[0])
        monkeypatch.setattr(physionet, "stays", lambda minutes, stay=stay: ward(spoiled=stay))
        spoiled = task_of().ward
        assert np.array_equal(spoiled.low, plain.low) and np.array_equal(spoiled.range, plain.range)
        assert torch.equal(spoiled.whole["train"].values, plain.whole["train"].values)
        assert float(spoiled.whole[part].values[0, 0, 0]) == 1.0
    stay = int(plain.split.train[0])
    monkeypatch.setattr(physionet, "stays", lambda minutes: ward(spoiled=stay))
    assert float(task_of().ward.range[0]) > 1e3
    train = plain.whole["train"]
    known = train.values[train.seen]
    assert float(known.min()) == 0.0 and float(known.max()) == 1.0


def test_extremes_of_what_is_never_seen_or_never_moves() -> None:
    series = IrregularSeries([[[1.0, np.nan, 5.0], [3.0, np.nan, 5.0]]])
    low, span = physionet.extremes(series)
    assert low.tolist() == [1.0, 0.0, 5.0] and span.tolist() == [2.0, 1.0, 1.0]


@pytest.mark.usefixtures("invented")
def test_the_encoder_reads_a_share_of_the_points_that_are_there() -> None:
    half, full = task_of().ward, task_of(fed=1.0).ward
    for part in ("train", "validation", "test"):
        whole = half.whole[part].seen.any(-1).sum(1)
        assert torch.equal(half.fed[part].seen.any(-1).sum(1), whole - (whole * 0.5).floor().long())
        assert torch.equal(full.fed[part].values, full.whole[part].values)
        # Each point that is read is one of the whole: the same time, the same readings.
        for n in range(len(whole)):
            for i in range(int(half.fed[part].seen[n].any(-1).sum())):
                at = (half.whole[part].slots[n] == half.fed[part].slots[n, i]) & half.whole[part].seen[n].any(-1)
                assert int(at.sum()) == 1
                assert torch.equal(half.whole[part].values[n][at][0], half.fed[part].values[n, i])


@pytest.mark.usefixtures("invented")
def test_what_is_masked_changes_no_bit_of_a_prediction() -> None:
    task = task_of()
    model, at = task.model(), torch.arange(6).expand(2, -1)
    whole, read = task.ward.whole["train"].of(at), task.ward.fed["train"].of(at)
    solver = frame.Solver(task.settings, RECIPES[0], 0)

    def predict(charts: physionet.Charts) -> torch.Tensor:
        return model.decode(solver(model.field, model.encode(charts)[0], task.grid), whole)

    with torch.no_grad():
        plain = predict(read)
        for other in (torch.nan, 1e20):
            altered = read._replace(values=torch.where(read.seen, read.values, other))
            assert torch.equal(predict(altered), plain)
        changed = read._replace(values=torch.where(read.seen, read.values + 0.1, 0.0))
        assert not torch.equal(predict(changed), plain)


@pytest.mark.usefixtures("invented")
def test_predictions_are_those_of_the_stays_own_times() -> None:
    task = task_of(tolerance=1e-5)
    model, at = task.model(), torch.tensor([[3, 8], [8, 3]])
    whole = task.ward.whole["train"].of(at)
    z0 = 0.1 * torch.randn(2, 2, 20, generator=torch.Generator().manual_seed(0))
    solver = frame.Solver(task.settings, RECIPES[0], 0)
    with torch.no_grad():
        found = model.decode(solver(model.field, z0, task.grid), whole)
        for i in range(int(whole.seen[1, 0].any(-1).sum())):
            time = torch.tensor([0.0, float(whole.times[1, 0, i])], dtype=torch.float64)
            if time[1] > 0:
                state = solver(model.field, z0, time).ys[-1]
                torch.testing.assert_close(found[1, 0, i], model.channels(state)[1, 0], rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("invented")
def test_the_error_is_the_mean_over_readings_of_held_out_stays() -> None:
    task = task_of(batch=3)
    model = task.model()
    found = frame.tested(task, model, "test")
    whole, read = (charts["test"] for charts in (task.ward.whole, task.ward.fed))
    both = torch.arange(len(whole.times)).expand(2, -1)
    with torch.no_grad():
        mean, _ = model.encode(read.of(both))
        solver = frame.Solver(task.settings, RECIPES[0], 0)
        guess = model.decode(solver(model.field, mean, task.grid), whole.of(both))
    seen = whole.of(both).seen
    want = [float((guess[s] - whole.of(both).values[s])[seen[s]].square().mean()) for s in range(2)]
    assert found["mse"] == pytest.approx(want, rel=1e-4)


def test_the_divergence_is_let_in_after_ten_steps() -> None:
    weight = growing(0.99, 10)
    assert [weight(step) for step in (0, 5, 10)] == [0.0, 0.0, 0.0]
    assert weight(11) == pytest.approx(0.01)
    assert weight(79) == pytest.approx(1 - 0.99**69)


@pytest.mark.usefixtures("invented")
def test_before_that_the_loss_is_the_likelihood_alone() -> None:
    """The loss of equal draws rises by w(step) KL, so the difference over w is one number >= 0."""
    task = task_of()
    model, solver = task.model(), frame.Solver(task.settings, RECIPES[0], 0)
    weights = {"now": 0.0}
    task.kl_weight = lambda step: weights["now"]
    losses = []
    for weights["now"] in (0.0, 0.5, 1.0):
        losses.append(float(task.loss(model, 20, solver)[0].detach()))
    divergence = losses[2] - losses[0]
    assert divergence > 0
    assert losses[1] - losses[0] == pytest.approx(0.5 * divergence, rel=1e-2)


def test_shares_outside_zero_and_one_are_refused(tmp_path: Path) -> None:
    for fed in (0.0, 1.5):
        with pytest.raises(ValueError, match="fed: the share"):
            physionet.main(tmp_path, "cpu", fed=fed)


def test_a_few_real_stays_are_learnt_from(shared_data: Path) -> None:
    task = task_of(stays=60, minutes=60, steps=3, tolerance=1e-3)
    assert len(task.ward.whole["train"].times) == 42
    row = frame.made(task, RECIPES[0], 1.0)
    assert "note" not in row and 0 < row["test"]["mse"][0] < 1
