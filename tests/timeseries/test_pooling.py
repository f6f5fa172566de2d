"""Read-outs that pool the latent path: by hand, blind to padding, and the same in a stack as alone."""

from __future__ import annotations

from pathlib import Path as File
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciode.data import IrregularSeries
from sciode.nn import stack
from sciode.timeseries import Batch, IrregularClassifier, build, fit_together, predict_together
from sciode.timeseries.pooling import READOUTS, Pools, grid_queries
from sciode.timeseries.readout import PathClassifier
from sciode.training import FitOptions, fit, fit_lockstep
from tests.timeseries.test_together import cases, doubled, labelled, member

DT, ROWS = 0.25, 9


def batch(ends: list[float], seed: int = 0) -> Batch:
    """Random controls of two channels; no readings, for models that read the control."""
    control = torch.randn(len(ends), ROWS, 2, generator=torch.Generator().manual_seed(seed))
    empty = torch.full((len(ends), 1, 2), torch.nan), torch.zeros(len(ends), 1, dtype=torch.float64)
    return Batch(*empty, control, DT, torch.tensor(ends, dtype=torch.float64))


def network(readout: str, seeded: Any, model: str = "lnsde") -> PathClassifier:
    with seeded(0):
        return PathClassifier(build(model, 2, 16), 3, readout).eval()


def test_pools_are_those_taken_by_hand(seeded: Any) -> None:
    with seeded(0):
        pools = Pools("pooled", 2)
    states = torch.tensor([[[1.0, -2.0], [3.0, 0.5]], [[-1.0, 4.0], [9e9, 9e9]]])
    last = torch.tensor([[2.0, 0.0], [-3.0, 2.0]])
    queries = torch.tensor([[0.0, 0.25], [0.0, torch.nan]], dtype=torch.float64)
    assert pools.lens is not None
    paths = [torch.stack([*states[0], last[0]]), torch.stack([states[1, 0], last[1]])]
    by_hand = [torch.cat([p[-1], p.mean(0), p.amax(0), pools.lens(p).tanh().mean(0)]) for p in paths]
    torch.testing.assert_close(pools(states, last, queries), torch.stack(by_hand))
    torch.testing.assert_close(Pools("mean", 2)(states, last, queries), torch.stack([p.mean(0) for p in paths]))


def test_a_sharp_lens_counts_the_share_of_positive_states(seeded: Any) -> None:
    with seeded(0):
        pools = Pools("pooled", 1)
    assert pools.lens is not None
    with torch.no_grad():
        torch.nn.init.constant_(pools.lens.weight, 1e4)
        torch.nn.init.zeros_(pools.lens.bias)
    states = torch.tensor([[[1.0], [-1.0], [-0.5], [2.0]]])
    with torch.no_grad():
        found = pools(states, torch.tensor([[0.3]]), torch.zeros(1, 4, dtype=torch.float64))
    assert found[0, -1].item() == pytest.approx(2 * 3 / 5 - 1)


def test_the_grid_stops_before_each_series_own_end() -> None:
    found = grid_queries(batch([4 * DT, 2.5 * DT, DT]))
    assert found.isfinite().sum(1).tolist() == [4, 3, 1], "0 .. 3, 0 .. 2 and 0: the end itself comes from `last`"
    np.testing.assert_allclose(found[1, :3], [0, DT, 2 * DT])


@pytest.mark.parametrize("model", ["lnsde", "ncde", "node"])
@pytest.mark.parametrize("readout", [name for name in READOUTS if name != "last"])
def test_a_short_series_is_pooled_over_its_own_length_only(model: str, readout: str, seeded: Any) -> None:
    """Beside longer series, with rows after its end altered, or with more rows laid after them."""
    net = network(readout, seeded, model)
    ends, seeds = [8 * DT, 3 * DT, 4.5 * DT], torch.tensor([4, 5, 6])
    given = batch(ends)
    control = given.path()
    altered = control.clone()
    altered[1, 4:] += 3.0
    altered[2, 6:] -= 3.0
    padded = torch.cat((control, control[:, -1:].expand(-1, 4, -1)), 1)
    with torch.no_grad():
        logits, paths = net(given, seeds)
        for other in (altered, padded):
            torch.testing.assert_close(net(given._replace(control=other), seeds)[0], logits, atol=1e-5, rtol=1e-5)
        for k, end in enumerate(ends):
            alone = given._replace(
                **{name: getattr(given, name)[k : k + 1] for name in ("values", "times", "control", "ends")}
            )
            if model != "node":  # its solver chooses steps, and goes through the same times only
                alone = alone._replace(control=alone.path()[:, : int(np.ceil(end / DT)) + 1])
            torch.testing.assert_close(net(alone, seeds[k : k + 1])[0][0], logits[k], atol=1e-5, rtol=1e-5)
    assert paths.status.tolist() == [0, 0, 0]


@pytest.mark.parametrize("readout", [name for name in READOUTS if name != "last"])
def test_what_happens_on_the_way_is_read_and_learns(readout: str, seeded: Any) -> None:
    """The gradient of the pools reaches every control row up to the series' end, and none after it."""
    net = network(readout, seeded)
    net.head = torch.nn.Sequential()  # what the head reads
    given = batch([8 * DT, 3 * DT])
    control = given.path().requires_grad_()
    net(given._replace(control=control), torch.tensor([1, 2]))[0].square().sum().backward()
    assert control.grad is not None
    moved = control.grad.abs().sum(-1) > 0
    assert moved[0, :-1].all() and moved[1, :3].all() and not moved[1, 4:].any()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_the_order_of_samples_does_not_matter(seeded: Any) -> None:
    net, given = network("pooled", seeded), batch([8 * DT, 3 * DT, 4.5 * DT, DT])
    order, seeds = torch.tensor([2, 0, 3, 1]), torch.tensor([7, 8, 9, 10])
    parts = {name: getattr(given, name)[order] for name in ("values", "times", "control", "ends")}
    with torch.no_grad():
        torch.testing.assert_close(net(given._replace(**parts), seeds[order])[0], net(given, seeds)[0][order])


def lengthened(parts: list[dict[str, Tensor]]) -> None:
    """Give values and times of all parts one length."""
    length = max(part["values"].shape[1] for part in parts)
    for part in parts:
        for name in ("values", "times"):
            tail = part[name].new_full(
                (len(part[name]), length - part[name].shape[1], *part[name].shape[2:]), torch.nan
            )
            part[name] = torch.cat((part[name], tail), 1)


@pytest.mark.parametrize("model", ["lnsde", "ncde"])
def test_two_pooled_in_lockstep_are_two_alone(model: str) -> None:
    changes: dict[str, Any] = {"model": model, "readout": "pooled", "channels": ("rises", "age", "mirror")}
    members = [member(seed, **changes) for seed in (1, 2)]
    data = [[doubled(part) for part in m._prepared(*case)] for m, case in zip(members, cases(2), strict=True)]
    lengthened([part for parts in data for part in parts])
    networks = [m._network().double() for m in members]
    options = [FitOptions(epochs=3, batch_size=8, lr=1e-2, warmup=1, patience=0, seed=seed) for seed in (5, 6)]
    stacked = stack(networks)
    together = fit_lockstep(stacked, members[0]._losses, [d[0] for d in data], [d[1] for d in data], options)
    for k, (net, (train, held), own) in enumerate(zip(networks, data, options, strict=True)):
        alone = fit(net, members[0]._loss, train, held, own)
        for mine, theirs in zip(together[k].epochs, alone.epochs, strict=True):
            assert mine.train_loss == pytest.approx(theirs.train_loss, abs=1e-6)
        for name, value in net.state_dict().items():
            torch.testing.assert_close(stacked.state_dict()[name][k], value, atol=1e-6, rtol=1e-6)


def test_predictions_together_are_those_of_each_pooled_classifier() -> None:
    given = cases(3)
    members = [member(seed, readout="pooled", channels=("rises",), epochs=1) for seed in range(3)]
    fit_together(members, given)
    held = [case.held[0] for case in given]
    for own, mine, draws in zip(held, members, predict_together(members, held), strict=True):
        np.testing.assert_allclose(draws.probabilities, mine.predict_draws(own).probabilities, atol=1e-5)


def test_saved_and_loaded_it_predicts_the_same(tmp_path: File) -> None:
    series, labels = labelled(24, 1)
    fitted = member(readout="pooled", channels=("rises", "age"), epochs=1, n_models=2).fit(series, labels)
    fitted.save(tmp_path / "model.safetensors")
    loaded = IrregularClassifier.load(tmp_path / "model.safetensors", device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(series), fitted.predict_proba(series))
    assert loaded.get_params() == {**fitted.get_params(), "device": "cpu"} and loaded.channels_ == fitted.channels_


def bumps(count: int, seed: int) -> tuple[IrregularSeries, np.ndarray]:
    """A bump at a random place, upwards or downwards, and then long silence; half of the readings of 40 are missing."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    clock = np.arange(40)
    bump = np.exp(-0.5 * ((clock - rng.uniform(3, 12, (count, 1))) / 1.5) ** 2) * (2 * labels[:, None] - 1)
    values = bump + 0.05 * rng.normal(size=bump.shape)
    values[rng.random(values.shape) < 0.5] = np.nan
    return IrregularSeries(values[..., None]), labels


def test_a_bump_long_ago_is_seen_by_the_pooled_readout() -> None:
    train, test = bumps(48, 0), bumps(40, 1)
    how: dict[str, Any] = {"hidden": 12, "epochs": 20, "batch_size": 16, "lr": 2e-2, "steps": 39, "n_samples": 4}
    assert IrregularClassifier(readout="pooled", **how).fit(*train).score(*test) >= 0.9


def test_misuse_is_refused() -> None:
    series, labels = labelled(24, 1)
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"readout": "first"}, "readout must be one of last, mean, pooled, got 'first'"),
        ({"channels": ("speed",)}, "channels: speed is unknown; there are rises, age, mirror"),
        ({"channels": ("rises",), "model": "odernn"}, "'odernn' does not read: pass channels="),
    )
    for changes, message in wrong:
        with pytest.raises(ValueError, match=message):
            member(**changes).fit(series, labels)
    with pytest.raises(ValueError, match="readout must be one of"):
        Pools("first", 3)
