"""Recorded training steps without a card: a stand-in for its graphs replays what was recorded, one by one."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sciode.training import Batch, FitOptions, Staged, isolated_rng
from sciode.training.fit import _train
from sciode.training.recorded import RecordedSteps
from sciode.training.run import Run, open_run

OPTIONS = FitOptions(epochs=4, batch_size=16, lr=1e-2, schedule="cosine")
X = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
DATA = {"x": X, "y": X[:, :1] - 2.0 * X[:, 1:2]}


class Noisy(Staged):
    """Squared error, with noise from the seed."""

    def inputs(self, model: nn.Module, batch: Batch, seed: int) -> dict[str, Tensor]:
        noise = torch.randn(batch["x"].shape, generator=torch.Generator().manual_seed(seed))
        return {"x": batch["x"] + 0.01 * noise, "y": batch["y"]}

    def value(self, model: nn.Module, inputs: Any) -> Tensor:
        return (model(inputs["x"]) - inputs["y"]).square().mean()


class Stream:
    def wait_stream(self, other: Any) -> None:
        """Nothing runs beside anything here."""


class Replayed:
    """What a graph does: the same operations on the same tensors."""

    def __init__(self, steps: RecordedSteps, inputs: Any, count: int) -> None:
        self.steps, self.inputs, self.count = steps, inputs, count

    def replay(self) -> None:
        self.steps._move(self.inputs, self.count)


def captured(self: Any, key: Any, leaves: list[Any], structure: Any, count: int) -> bool:
    whole = [x.clone() for x in leaves]
    self.graphs[key] = Replayed(self, pytree.tree_unflatten(whole, structure), count), whole
    return True


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(RecordedSteps, "_captured", captured)


def opened() -> Run:
    with isolated_rng(0):
        model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    run = open_run(model, DATA, DATA, OPTIONS, None)
    run.optimizer = torch.optim.AdamW(model.parameters(), OPTIONS.lr, weight_decay=OPTIONS.weight_decay, fused=True)
    return run


def test_replayed_steps_are_those_taken_one_by_one(card: None) -> None:
    """Four epochs of batches of 12 and 13: two graphs, each with inputs of its own."""
    plain, run = opened(), opened()
    steps = RecordedSteps(run, Noisy(), OPTIONS, cautious=False)
    run.optimizer.param_groups[0]["capturable"] = False  # a CPU's optimizer cannot be
    both: tuple[tuple[Run, Any], ...] = ((plain, None), (run, steps))
    for epoch in range(4):
        plain.optimizer.param_groups[0]["lr"] = 1e-2 * [1.0, 0.8535534, 0.5, 0.1464466][epoch]
        expected, found = (_train(one, Noisy(), DATA, OPTIONS, epoch, own) for one, own in both)
        assert found == pytest.approx(expected, rel=1e-5)
    assert len(steps.graphs) == 2
    for one, other in zip(run.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_no_step_is_taken_from_the_first_on_that_would_spoil_the_weights(card: None) -> None:
    run = opened()
    steps = RecordedSteps(run, Noisy(), OPTIONS, cautious=False)
    run.optimizer.param_groups[0]["capturable"] = False
    steps.begin(0)
    steps.step(DATA, 0, 50)
    before = [one.detach().clone() for one in run.model.parameters()]
    for x in (torch.full_like(X, torch.nan), X, X, X):
        steps.step({**DATA, "x": x}, 0, 50)
    assert all(torch.equal(one, other) for one, other in zip(before, run.model.parameters(), strict=True))
    assert math.isnan(steps.mean(50))
    assert len(steps.graphs) == 1
