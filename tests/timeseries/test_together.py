"""Members trained in lockstep come out as if each had been trained alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciode.data import IrregularSeries, drop, stratified
from sciode.nn import stack
from sciode.timeseries import (
    Case,
    IrregularClassifier,
    IrregularForecaster,
    IrregularInterpolator,
    fit_together,
    predict_together,
)
from sciode.timeseries.forecaster import last_cut
from sciode.timeseries.interpolator import hidden
from sciode.timeseries.sequence import SequenceEstimator
from sciode.timeseries.together import _alike, _prepared
from sciode.training import FitOptions, History, fit, fit_lockstep
from tests.timeseries.made import sines

STACKED = ("lnsde", "lsde", "gsde", "nsde", "node", "ncde", "odernn", "grud", "latentode", "latentsde")


def labelled(count: int, seed: int, lengths: tuple[int, int] = (9, 13)) -> tuple[IrregularSeries, np.ndarray]:
    """Noisy lines that rise or fall, on clocks of their own."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    values, times = [], []
    for label in labels:
        clock = np.cumsum(rng.uniform(0.5, 1.5, rng.integers(*lengths)))
        values.append(
            np.stack([(2 * label - 1) * clock / 8, np.cos(clock)], 1) + 0.3 * rng.normal(size=(len(clock), 2))
        )
        times.append(clock)
    return IrregularSeries(values, times), labels


def doubled(data: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in data.items()}


def member(seed: int = 0, **changes: Any) -> IrregularClassifier:
    settings: dict[str, Any] = {
        "hidden": 6,
        "epochs": 3,
        "batch_size": 8,
        "steps": 6,
        "n_samples": 3,
    }
    return IrregularClassifier(random_state=seed, **{**settings, **changes})


def cases(count: int) -> list[Case]:
    """Members' data: other splits and other gaps of one set."""
    series, labels = labelled(30, 0)
    found = []
    for seed in range(count):
        parts, mine = stratified(labels, seed), drop(series, 0.2 * seed, seed)
        held = mine[parts.validation], labels[parts.validation]
        found.append(Case(mine[parts.train], labels[parts.train], held))
    return found


@pytest.mark.parametrize("model", STACKED)
def test_two_in_lockstep_are_two_alone(model: str) -> None:
    """In double precision: Adam makes steps of full length out of the rounding of a gradient that is zero."""
    members = [member(seed, model=model, regularize="kinetic" if model == "node" else ()) for seed in (1, 2)]
    data = [[doubled(part) for part in m._prepared(*case)] for m, case in zip(members, cases(2), strict=True)]
    rows = max(part["control"].shape[1] for parts in data for part in parts)
    assert all(part["control"].shape[1] == rows for parts in data for part in parts)
    networks = [m._network().double() for m in members]
    options = [
        FitOptions(epochs=6, batch_size=8, lr=lr, warmup=2, patience=0, clip=0.3, weight_decay=0.1, seed=seed)
        for seed, lr in ((5, 1e-2), (6, 3e-3))
    ]
    length = max(part["values"].shape[1] for parts in data for part in parts)
    for parts in data:
        for part in parts:
            missing = length - part["values"].shape[1]
            for name in ("values", "times"):
                tail = part[name].new_full((len(part[name]), missing, *part[name].shape[2:]), torch.nan)
                part[name] = torch.cat((part[name], tail), 1)
    stacked = stack(networks)
    loss = members[0]._losses
    together = fit_lockstep(stacked, loss, [d[0] for d in data], [d[1] for d in data], options)
    for k, (network, (train, held), own) in enumerate(zip(networks, data, options, strict=True)):
        alone = fit(network, members[0]._loss, train, held, own)
        assert together[k].best_epoch == alone.best_epoch and together[k].stopped == alone.stopped
        for mine, theirs in zip(together[k].epochs, alone.epochs, strict=True):
            assert mine.train_loss == pytest.approx(theirs.train_loss, abs=1e-6)
            assert mine.validation_loss == pytest.approx(theirs.validation_loss, abs=1e-6) and mine.lr == theirs.lr
        for name, value in network.state_dict().items():
            torch.testing.assert_close(stacked.state_dict()[name][k], value, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("model", ["lnsde", "lsde", "gsde"])
def test_the_stacked_drift_is_one_graph_to_a_compiler(model: str) -> None:
    """As the loops on a device take it: rows in one tensor, no look at a value."""
    members = [member(seed, model=model) for seed in (1, 2)]
    data = [m._prepared(*case)[0] for m, case in zip(members, cases(2), strict=True)]
    fields = stack([m._network() for m in members]).backbone.fields
    control = torch.cat([part["control"] for part in data])
    with torch.no_grad():
        tables = fields.tables(control, members[0].grid_.dt, stacked=True)
    z, t = torch.randn(len(control), 6, generator=torch.Generator().manual_seed(0)), torch.zeros(len(control), 1)
    for field in (fields.drift, fields.diffusion):
        traced = torch.compile(field, backend="eager", fullgraph=True)
        torch.testing.assert_close(traced(t, z, tables), field(t, z, tables))
    torch._dynamo.reset()


def histories_alone(monkeypatch: pytest.MonkeyPatch, make: Any) -> Any:
    monkeypatch.setattr(SequenceEstimator, "_train_together", lambda *_: False)
    return make()


@pytest.mark.parametrize("model", ["lnsde", "mtand"])
def test_an_ensemble_is_trained_in_lockstep_where_it_can_be(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    series, labels = labelled(24, 1)

    def make() -> IrregularClassifier:
        return member(3, model=model, n_models=2, epochs=1).fit(series, labels)

    together = make()
    alone = histories_alone(monkeypatch, make)
    for mine, theirs in zip(together.histories_, alone.histories_, strict=True):
        assert mine.epochs[0].train_loss == pytest.approx(theirs.epochs[0].train_loss, abs=0.02)
    first = together.histories_[0].epochs[0].train_loss
    assert first != together.histories_[1].epochs[0].train_loss
    assert together.predict_proba(series).shape == (24, 2)


def test_an_interpolators_ensemble_has_the_losses_of_its_members(monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> Any:
        return IrregularInterpolator(hidden=4, epochs=1, n_models=2, steps=5, batch_size=64, copies=1, jitter=0.1).fit(
            sines(12, 0)
        )

    together = make()
    alone = histories_alone(monkeypatch, make)
    for mine, theirs in zip(together.histories_, alone.histories_, strict=True):
        assert mine.epochs[0].train_loss == pytest.approx(theirs.epochs[0].train_loss, rel=1e-5)


def test_balanced_classes_weigh_the_same_together_and_alone() -> None:
    """Nine falling and four rising series a member."""
    few = []
    for case in cases(2):
        rising, falling = (np.flatnonzero(case.y == label) for label in (1, 0))
        rows = np.concatenate([rising[:4], falling[:9]])
        few.append(Case(case.X[rows], case.y[rows], case.held))
    told: dict[str, Any] = {"class_weight": "balanced", "label_smoothing": 0.0, "epochs": 1}
    together = [member(seed, **told) for seed in range(2)]
    losses = fit_together(together, few)
    for seed, case in enumerate(few):
        alone = member(seed, **told).fit(case.X, case.y, case.held)
        assert alone.weights_ == together[seed].weights_
        assert losses[seed].epochs[0].train_loss == pytest.approx(alone.history_.epochs[0].train_loss, rel=1e-5)
    other = Case(few[0].X[2:], few[0].y[2:], few[0].held)
    with pytest.raises(ValueError, match="weigh classes alike"):
        fit_together([member(seed, **told) for seed in range(2)], [other, few[1]])


def test_classifiers_fitted_together_have_the_losses_of_each_alone() -> None:
    given = cases(3)
    members, alone = ([member(seed, epochs=1, lr=1e-3 * (1 + seed)) for seed in range(3)] for _ in range(2))
    histories = fit_together(members, given)
    for mine, theirs, history, case in zip(members, alone, histories, given, strict=True):
        theirs.fit(*case)
        assert history == mine.history_
        assert history.epochs[0].train_loss == pytest.approx(theirs.history_.epochs[0].train_loss, rel=1e-5)
        assert mine.standardizer_ == theirs.standardizer_ and mine.grid_ == theirs.grid_


@pytest.mark.parametrize("model", ["gsde", "odernn", "mtand"])
def test_predictions_together_are_those_of_each(model: str) -> None:
    given = cases(3)
    members = [member(seed, model=model, epochs=1) for seed in range(3)]
    fit_together(members, given)
    held = [case.held[0] for case in given]
    for own, mine, draws in zip(held, members, predict_together(members, held), strict=True):
        expected = mine.predict_draws(own)
        np.testing.assert_allclose(draws.probabilities, expected.probabilities, atol=1e-5)
        np.testing.assert_array_equal(draws.nfe, expected.nfe)


def line(count: int) -> torch.nn.Module:
    """y = w x + b of several members, w = 0, 0.1, ..."""
    layers = [torch.nn.utils.skip_init(torch.nn.Linear, 1, 1) for _ in range(count)]
    with torch.no_grad():
        for k, layer in enumerate(layers):
            torch.nn.init.constant_(layer.get_parameter("weight"), 0.1 * k)
            torch.nn.init.zeros_(layer.get_parameter("bias"))
    return stack(layers)


def _fit(options: list[FitOptions], broken: int | None = None) -> tuple[History, ...]:
    """Lines y = w x through data of several members, of whom one may break in its second epoch."""
    x = torch.linspace(-1, 1, 12).unsqueeze(1)
    data = [{"x": x, "y": (k + 1) * x} for k in range(len(options))]
    calls = 0

    def losses(model: torch.nn.Module, batch: Any, seeds: Any) -> Tensor:
        nonlocal calls
        calls += model.training
        error = (model(batch["x"]) - batch["y"]).square().reshape(len(seeds), -1).mean(1)
        if broken is not None and calls > 3 and len(seeds) == len(options):
            error = error * torch.where(torch.arange(len(seeds)) == broken, torch.nan, 1.0)
        return error

    return fit_lockstep(line(len(options)), losses, data, data, options)


def test_a_member_that_breaks_leaves_the_others_alone() -> None:
    options = [FitOptions(epochs=5, batch_size=6, seed=k, warmup=0, lr=0.05) for k in range(3)]
    well, hurt = _fit(options), _fit(options, broken=1)
    assert hurt[1].stopped.startswith("non-finite loss in epoch 1") and hurt[1].best_epoch == 0
    for k in (0, 2):
        assert [e.validation_loss for e in hurt[k].epochs] == [e.validation_loss for e in well[k].epochs]
        assert len(hurt[k].epochs) == 5


def test_members_that_have_stopped_are_taken_out_and_keep_their_best_weights() -> None:
    """Of four members three do not move (lr so small), so they stop; the last goes on as if nothing had happened."""
    options = [FitOptions(epochs=8, batch_size=12, warmup=0, patience=1, seed=3, lr=lr) for lr in (1e-30,) * 3 + (0.1,)]
    found = _fit(options)
    assert [len(h.epochs) for h in found] == [3, 3, 3, 8]
    assert found[3].best_epoch == 7 and all(h.best_epoch == 0 for h in found[:3])


def test_what_may_not_differ_is_refused() -> None:
    with pytest.raises(ValueError, match="seed, lr and weight_decay may differ"):
        _fit([FitOptions(epochs=2), FitOptions(epochs=3)])
    given = cases(2)
    with pytest.raises(ValueError, match="differ in random_state"):
        fit_together([member(0), member(1, hidden=5)], given)
    with pytest.raises(ValueError, match="same `steps`"):
        longer = labelled(21, 5, (20, 22))
        case = Case(longer[0], longer[1], given[1].held)
        fit_together([member(0, steps=None), member(1, steps=None)], [given[0], case])
    with pytest.raises(ValueError, match="equally many"):
        fit_together([member(0), member(1)], [given[0], given[1]._replace(X=given[1].X[:9], y=given[1].y[:9])])
    options = [replace(FitOptions(epochs=1), seed=k) for k in range(2)]
    sets = [{"x": torch.zeros(4, 1)}, {"x": torch.zeros(5, 1)}]
    with pytest.raises(ValueError, match="equally many samples"):
        fit_lockstep(line(2), lambda *_: torch.zeros(2), sets, sets, options)
    sets = [{"x": torch.zeros(4, 1)}, {"x": torch.zeros(4, 2)}]
    with pytest.raises(ValueError, match="one shape"):
        fit_lockstep(line(2), lambda *_: torch.zeros(2), sets, sets, options)
    with pytest.raises(ValueError, match="one entry for each member"):
        fit_lockstep(line(3), lambda *_: torch.zeros(3), sets, sets, options)


VALUES: dict[Any, dict[str, Any]] = {
    IrregularForecaster: {"ahead": 3, "history": None},
    IrregularInterpolator: {},
}
"""Estimators of values, and what the tests give them beside the sizes."""


def teller(kind: Any, seed: int = 0, **changes: Any) -> Any:
    settings = {"hidden": 6, "epochs": 2, "batch_size": 16, "steps": 8, "n_samples": 2, "device": "cpu", "lr": 1e-2}
    return kind(random_state=seed, **{**settings, **VALUES[kind], **changes})


def told(kind: Any, seed: int) -> Case:
    """Twenty sines and ten that validate, of lengths that differ from seed to seed, and what is wanted of them."""
    parts = []
    for count, part in ((20, 0), (10, 1)):
        series = sines(count, 10 * seed + part)
        rest = IrregularSeries([v[: 20 + seed] for v in series.values], [t[: 20 + seed] for t in series.times])
        pairs = last_cut(rest, 3) if kind is IrregularForecaster else hidden(rest, 0.3, seed, "time")
        parts.append((pairs.given, pairs.wanted))
    (given, wanted), held = parts
    return Case(given, wanted, held)


@pytest.mark.parametrize("anchor", ["line", "none"])
@pytest.mark.parametrize("kind", list(VALUES))
@pytest.mark.parametrize("model", ["lnsde", "grud", "latentsde"])
def test_two_estimators_of_values_in_lockstep_are_two_alone(model: str, kind: Any, anchor: str) -> None:
    """In double precision, on series of other lengths, so that the shorter ones are padded."""
    members = [teller(kind, seed, model=model, anchor=anchor) for seed in (1, 2)]
    data = [[doubled(part) for part in own._prepared(*told(kind, 4 * k))] for k, own in enumerate(members)]
    assert data[0][0]["queries"].shape[1] != data[1][0]["queries"].shape[1] or kind is IrregularForecaster
    for own in members[1:]:
        own.grid_ = members[0].grid_
    networks = [own._network().double() for own in members]
    options = [
        FitOptions(epochs=3, batch_size=8, lr=lr, warmup=0, patience=0, clip=0.3, seed=seed)
        for seed, lr in ((5, 1e-2), (6, 3e-3))
    ]
    stacked = stack(networks)
    train_sets, held_sets = (_alike([parts[k] for parts in data]) for k in (0, 1))
    together = fit_lockstep(stacked, members[0]._losses, train_sets, held_sets, options)
    for k, (network, (train, held), own) in enumerate(zip(networks, data, options, strict=True)):
        alone = fit(network, members[0]._loss, train, held, own)
        assert (together[k].best_epoch, together[k].stopped) == (alone.best_epoch, alone.stopped)
        for mine, theirs in zip(together[k].epochs, alone.epochs, strict=True):
            assert mine.train_loss == pytest.approx(theirs.train_loss, abs=1e-6)
            assert mine.validation_loss == pytest.approx(theirs.validation_loss, abs=1e-6)
        for name, value in network.state_dict().items():
            torch.testing.assert_close(stacked.state_dict()[name][k], value, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", list(VALUES))
@pytest.mark.parametrize("model", ["gsde", "mtand"])
def test_estimators_of_values_fitted_together_know_what_each_learns_alone(model: str, kind: Any) -> None:
    case = told(kind, 0)
    members, alone = ([teller(kind, s, model=model, anchor="linear", epochs=1) for s in range(3)] for _ in range(2))
    histories = fit_together(members, [case] * 3)
    for mine, theirs, history in zip(members, alone, histories, strict=True):
        theirs.fit(*case)
        assert history == mine.history_
        assert history.epochs[0].train_loss == pytest.approx(theirs.history_.epochs[0].train_loss, rel=1e-5)
        assert (mine.standardizer_, mine.grid_, mine.linear_) == (theirs.standardizer_, theirs.grid_, theirs.linear_)
        assert mine.calibration_ == pytest.approx(theirs.calibration_, rel=1e-2)
        given, clock = case.held[0], case.held[1].padded()[1]
        np.testing.assert_allclose(mine.predict(given, clock), theirs.predict(given, clock), atol=1e-2)
    assert not np.allclose(members[0].predict(given, clock), members[1].predict(given, clock), atol=1e-6)


def test_members_of_one_case_share_its_tensors() -> None:
    case = told(IrregularForecaster, 0)
    other = Case(case.X, case.y, case.held)
    members = [teller(IrregularForecaster, seed) for seed in range(3)]
    one, same, apart = _prepared(members, [case, case, other])
    assert one[0] is same[0] and one[0] is not apart[0]
    padded = _alike([one[0], same[0], apart[0]])
    assert padded[0] is padded[1] and padded[0] is not padded[2]


def test_estimators_of_two_kinds_are_not_trained_together() -> None:
    cases = [told(kind, 0) for kind in VALUES]
    with pytest.raises(ValueError, match="differ in random_state"):
        fit_together([teller(kind) for kind in VALUES], cases)
    with pytest.raises(ValueError, match="differ in random_state"):
        fit_together([teller(IrregularForecaster, anchor=a) for a in ("line", "none")], cases[:1] * 2)


def test_members_of_one_case_hide_what_their_own_seeds_hide() -> None:
    """Without y an interpolator hides readings itself, each seed others: these cannot be shared."""
    case = Case(sines(12, seed=0), None, (sines(5, seed=1), None))
    members, alone = ([teller(IrregularInterpolator, s, epochs=1) for s in range(2)] for _ in range(2))
    fit_together(members, [case] * 2)
    for mine, theirs in zip(members, alone, strict=True):
        theirs.fit(*case)
        assert mine.history_.epochs[0].train_loss == pytest.approx(theirs.history_.epochs[0].train_loss, rel=1e-5)


def test_cases_that_fit_no_estimator_are_refused() -> None:
    X, labels = sines(12, seed=0), np.arange(12)
    case, three = (Case(X, labels % k, (X, labels % k)) for k in (2, 3))
    made = {"hidden": 8, "epochs": 1, "steps": 12, "device": "cpu", "batch_size": 8}
    one, other = (IrregularClassifier(**made, random_state=seed) for seed in (0, 1))
    with pytest.raises(ValueError, match="there are 2 estimators: give one case for each, not 1"):
        fit_together([one, other], [case])
    with pytest.raises(ValueError, match="an estimator stands there twice"):
        fit_together([one, one], [case, case])
    with pytest.raises(ValueError, match="tell equally many classes apart"):
        fit_together([one, other], [case, three])
    with pytest.raises(ValueError, match="give one collection of series for each, not 1"):
        predict_together([one, other], [X])
