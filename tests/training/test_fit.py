"""The loop: it learns, it stops, and a killed run continues bit for bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciode.training import (
    Batch,
    FitOptions,
    Staged,
    derive_seed,
    evaluate,
    fit,
    isolated_rng,
    learning_rate,
    load_checkpoint,
    read_json_lines,
)
from sciode.training.fit import _train, _train_ahead
from sciode.training.options import Schedule, unjudged
from sciode.training.run import Run, open_run


class Interrupt(Exception):
    """Stands for a kill."""


def network(seed: int = 0) -> nn.Module:
    """A small net with everything that makes resuming hard: BatchNorm's buffers and dropout's draws."""
    with isolated_rng(seed):
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))


def data(seed: int, size: int) -> dict[str, Tensor]:
    x = torch.randn(size, 3, generator=torch.Generator().manual_seed(seed))
    return {"x": x, "y": x[:, :1] - 2 * x[:, 1:2]}


def loss(model: nn.Module, batch: Batch, seed: int) -> Tensor:
    """Squared error with noise from the seed on the input, as a neural SDE has noise inside."""
    noise = torch.randn(batch["x"].shape, generator=torch.Generator().manual_seed(seed))
    return (model(batch["x"] + 0.01 * noise) - batch["y"]).square().mean()


TRAIN, VALIDATION = data(1, 50), data(2, 20)
OPTIONS = FitOptions(epochs=8, batch_size=16, warmup=2, lr=1e-2)


def test_it_learns_and_returns_the_weights_of_the_best_epoch() -> None:
    model = network()
    options = FitOptions(epochs=40, batch_size=16, warmup=2, lr=3e-2, patience=40)
    before = evaluate(model, loss, VALIDATION, 0)
    history = fit(model, loss, TRAIN, VALIDATION, options)
    losses = [epoch.validation_loss for epoch in history.epochs]
    best = min(losses[options.warmup :])
    assert best < 0.2 * before
    assert losses[history.best_epoch] == best
    assert evaluate(model, loss, VALIDATION, derive_seed(options.seed, 2)) == best


@pytest.mark.parametrize("killed_in", [1, 4, 7])
def test_a_killed_run_continues_bit_for_bit(tmp_path: Path, killed_in: int) -> None:
    whole, parts = network(), network()
    uninterrupted = fit(whole, loss, TRAIN, VALIDATION, OPTIONS, folder=tmp_path / "whole")
    calls = 0

    def killed(model: nn.Module, batch: Batch, seed: int) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > killed_in * 5 + 2:  # four minibatches and one validation an epoch
            raise Interrupt
        return loss(model, batch, seed)

    with pytest.raises(Interrupt):
        fit(parts, killed, TRAIN, VALIDATION, OPTIONS, folder=tmp_path / "parts")
    resumed_model = network()
    resumed = fit(resumed_model, loss, TRAIN, VALIDATION, OPTIONS, folder=tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed_model.state_dict()[name]), name
    assert [(e.train_loss, e.validation_loss) for e in resumed.epochs] == [
        (e.train_loss, e.validation_loss) for e in uninterrupted.epochs
    ]
    ends = [load_checkpoint(tmp_path / name / "checkpoint.safetensors")[0] for name in ("whole", "parts")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert [line["number"] for line in read_json_lines(tmp_path / "parts" / "log.jsonl")] == list(range(8))


def test_a_finished_run_found_in_its_folder_is_not_trained_again(tmp_path: Path) -> None:
    fit(network(), loss, TRAIN, VALIDATION, OPTIONS, folder=str(tmp_path))

    def never(model: nn.Module, batch: Batch, seed: int) -> Tensor:
        raise AssertionError("trained again")

    assert len(fit(network(), never, TRAIN, VALIDATION, OPTIONS, folder=tmp_path).epochs) == 8


@pytest.mark.parametrize("other", ["model", "data", "options"])
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, other: str) -> None:
    fit(network(), loss, TRAIN, VALIDATION, OPTIONS, folder=tmp_path)
    model = network(seed=1 if other == "model" else 0)
    train = data(3, 50) if other == "data" else TRAIN
    options = FitOptions(epochs=9, batch_size=16, warmup=2) if other == "options" else OPTIONS
    with pytest.raises(ValueError, match="another model, data or options"):
        fit(model, loss, train, VALIDATION, options, folder=tmp_path)


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to fit"):
        fit(nn.ReLU(), loss, TRAIN, VALIDATION, OPTIONS)


def test_a_non_finite_loss_ends_the_run_with_the_last_good_weights(tmp_path: Path) -> None:
    model, good = network(), network()
    calls = 0

    def poisoned(model: nn.Module, batch: Batch, seed: int) -> Tensor:
        nonlocal calls
        calls += 1
        return loss(model, batch, seed) * (float("nan") if calls == 18 else 1.0)  # the third minibatch of epoch 3

    history = fit(model, poisoned, TRAIN, VALIDATION, OPTIONS, folder=tmp_path)
    assert "non-finite loss in epoch 3" in history.stopped
    assert len(history.epochs) == 3
    assert all(value.isfinite().all() for value in model.state_dict().values())
    fit(good, loss, TRAIN, VALIDATION, FitOptions(epochs=3, batch_size=16, warmup=2, lr=1e-2))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), good.parameters(), strict=True))
    assert load_checkpoint(tmp_path / "checkpoint.safetensors")[1]["best_epoch"] == 2


def test_stopping_waits_for_the_warm_up_and_then_for_the_patience() -> None:
    def rising(model: nn.Module, batch: Batch, seed: int) -> Tensor:
        rising.value += 0.0 if model.training else 1.0  # type: ignore[attr-defined]
        return loss(model, batch, seed) * 0 + rising.value  # type: ignore[attr-defined]

    rising.value = 0.0  # type: ignore[attr-defined]
    history = fit(network(), rising, TRAIN, VALIDATION, FitOptions(epochs=50, warmup=6, patience=3))
    assert history.best_epoch == 6
    assert len(history.epochs) == 6 + 1 + 4
    assert "did not improve" in history.stopped


def test_a_large_set_is_judged_after_so_many_minibatches_a_small_one_after_so_many_epochs() -> None:
    options = FitOptions(epochs=100, batch_size=10)
    assert [unjudged(options, size) for size in (10, 40, 41, 80, 400, 5000)] == [20, 20, 16, 10, 2, 1]
    assert unjudged(FitOptions(epochs=5), 10) == 4


def test_gradients_are_clipped_after_backward() -> None:
    norms: list[float] = []

    class Watched(torch.optim.AdamW):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            norms.append(float(torch.stack([g.norm() for g in gradients if g is not None]).norm()))

    def steep(model: nn.Module, batch: Batch, seed: int) -> Tensor:
        return 1e4 * loss(model, batch, seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sciode.training.run.torch.optim.AdamW", Watched)
        fit(network(), steep, TRAIN, VALIDATION, FitOptions(epochs=1, clip=0.5))
    assert norms and all(norm == pytest.approx(0.5, rel=1e-3) for norm in norms)


def test_minibatches_visit_every_sample_once_an_epoch_in_nearly_equal_parts() -> None:
    seen: list[Tensor] = []

    def watching(model: nn.Module, batch: Batch, seed: int) -> Tensor:
        if model.training:
            seen.append(batch["number"])
        return loss(model, batch, seed)

    numbered = TRAIN | {"number": torch.arange(50)}
    fit(network(), watching, numbered, VALIDATION | {"number": torch.arange(20)}, FitOptions(epochs=2, batch_size=16))
    first, second = torch.cat(seen[:4]), torch.cat(seen[4:])
    assert [len(part) for part in seen[:4]] == [13, 13, 12, 12]
    assert torch.equal(first.sort().values, torch.arange(50)) and torch.equal(second.sort().values, torch.arange(50))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ("step", [1.0, 1.0, 0.5, 0.25]),
        ("cosine", [1.0, 0.5 + 0.5 * math.cos(0.45 * math.pi), 0.5, 0.0]),
        ("constant", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_learning_rate_is_a_function_of_the_epoch(schedule: Schedule, wanted: list[float]) -> None:
    options = FitOptions(epochs=20, lr=1.0, schedule=schedule)
    assert [learning_rate(options, epoch) for epoch in (0, 9, 10, 20)] == pytest.approx(wanted, abs=1e-15)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"clip": 0.0},
        {"schedule": "warm"},
        {"seed": -1},
        {"warmup": -1},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        FitOptions(**wrong)


def test_empty_and_unequal_data_are_refused() -> None:
    for wrong in ({"x": torch.zeros(0, 3), "y": torch.zeros(0, 1)}, {"x": torch.zeros(4, 3), "y": torch.zeros(5, 1)}):
        with pytest.raises(ValueError, match="equal first axis"):
            fit(network(), loss, wrong, VALIDATION, OPTIONS)


def ahead(model: nn.Module, faulty: int | None) -> tuple[Run, float]:
    """An epoch as on a card, on the CPU's fused optimizer; the loss of step `faulty` is no number."""
    run = open_run(model, TRAIN, VALIDATION, OPTIONS, None)
    run.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-4, fused=True)
    run.optimizer.param_groups[0]["lr"] = 1e-2
    seeds = [derive_seed(OPTIONS.seed, 1, 0, step) for step in range(4)]

    def broken(model: nn.Module, batch: Batch, seed: int) -> Tensor:
        return loss(model, batch, seed) * (math.nan if faulty is not None and seed == seeds[faulty] else 1.0)

    with isolated_rng(0):
        return run, _train_ahead(run, broken, TRAIN, OPTIONS, 0)


def test_a_card_that_is_not_waited_for_takes_the_same_steps() -> None:
    run, found = ahead(network(), None)
    plain = open_run(network(), TRAIN, VALIDATION, OPTIONS, None)
    with isolated_rng(0):
        expected = _train(plain, loss, TRAIN, OPTIONS, 0)
    assert found == pytest.approx(expected, rel=1e-6)
    for one, other in zip(run.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_card_that_is_not_waited_for_keeps_the_weights_from_before_the_fault() -> None:
    """From the faulty step on none is taken: the weights are those of an epoch that ended before it."""
    run, found = ahead(network(), 1)
    assert math.isnan(found)
    assert all(parameter.isfinite().all() for parameter in run.model.parameters())
    steps = {float(state["step"]) for state in run.optimizer.state_dict()["state"].values()}
    assert steps == {1.0}


class InStages(Staged):
    """The same loss, its noise made first."""

    def inputs(self, model: nn.Module, batch: Batch, seed: int) -> dict[str, Tensor]:
        noise = torch.randn(batch["x"].shape, generator=torch.Generator().manual_seed(seed))
        return {"x": batch["x"] + 0.01 * noise, "y": batch["y"]}

    def value(self, model: nn.Module, inputs: Any) -> Tensor:
        return (model(inputs["x"]) - inputs["y"]).square().mean()


@pytest.mark.parametrize("engine", ["eager", "auto"])
def test_a_loss_in_stages_trains_as_the_loss_itself_where_there_is_no_card(engine: str) -> None:
    whole, staged = network(), network()
    fit(whole, loss, data(0, 40), data(1, 20), FitOptions(epochs=3))
    fit(staged, InStages(), data(0, 40), data(1, 20), FitOptions(epochs=3), engine=engine)
    for one, other in zip(whole.parameters(), staged.parameters(), strict=True):
        assert torch.equal(one, other)


def test_engines_that_are_not_there_are_refused() -> None:
    for engine, said in (("capture", "needs a CUDA device"), ("captured", "capture")):
        with pytest.raises(ValueError, match=said):
            fit(network(), InStages(), data(0, 40), data(1, 20), FitOptions(epochs=1), engine=engine)
