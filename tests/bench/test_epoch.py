"""The benchmark of a training epoch: both sides are the same equation, and one epoch changes the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sciode.bench import epoch
from sciode.bench.epoch import Workload, our_logits, same_states, torchsde_logits, trainer, workloads

pytest.importorskip("torchsde")
SMALL = Workload("small", 6, 8, 2, 2, 3)


@pytest.mark.parametrize("workload", [SMALL, *workloads()], ids=lambda workload: workload.name)
def test_torchsde_and_we_take_the_same_steps_on_the_same_increments(workload: Workload) -> None:
    assert same_states(workload) < 1e-12


def test_the_sizes_are_those_of_the_sets() -> None:
    for workload in workloads():
        batches = workload.batches()
        assert sum(len(labels) for _, labels in batches) == workload.series
        assert max(len(labels) for _, labels in batches) <= workload.batch
        assert batches[0][0].path().shape[1:] == (workload.length, workload.channels)


def test_without_noise_both_give_the_same_logits_and_gradients() -> None:
    found = []
    for logits in (our_logits("eager"), torchsde_logits):
        network = SMALL.network().eval()
        for parameter in network.backbone.fields.sigma.parameters():  # type: ignore[union-attr]
            parameter.data.zero_()
        (batch, _), *_ = SMALL.batches()
        value = logits(network, batch, 0)
        value.square().sum().backward()
        grads = [p.grad for name, p in network.named_parameters() if "sigma" not in name and "gate" not in name]
        found.append((value, grads))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_an_epoch_trains_and_leaves_the_random_streams_alone() -> None:
    state = torch.get_rng_state()
    for logits in (our_logits("eager"), torchsde_logits):
        trainer(SMALL, logits)()
    assert torch.equal(state, torch.get_rng_state())


def test_the_table_and_the_file_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    row = epoch.Row("small", 1, "torchsde", 0.2, 0.19, 0.21, 1.0, 1e-15)
    ours = epoch.Row("small", 1, "eager", 0.05, 0.05, 0.05, 4.0, 1e-15)
    judged = epoch._judged(ours, epoch.Timing(0.05, 0.05, 0.05), epoch.Timing(0.2, 0.19, 0.21))
    assert judged.met and epoch._judged(ours, epoch.Timing(0.05, 0.01, 0.09), epoch.Timing(0.2, 0.2, 0.2)).met is None
    monkeypatch.setattr(epoch, "workloads", lambda: (SMALL,))
    monkeypatch.setattr(epoch, "measure", lambda workload, count: [row, judged])
    assert epoch.main(tmp_path) == 0
    assert "2 met" in capsys.readouterr().out
    assert json.loads((tmp_path / "epoch.json").read_text())["rows"][1]["ratio"] == 4.0
