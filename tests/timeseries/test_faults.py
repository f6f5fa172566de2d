"""Data at their worst: every fault is refused with its mend, or answered as documented, by every kind of model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sciode.data import IrregularSeries
from sciode.solvers import Status
from sciode.timeseries import (
    Batch,
    ControlGrid,
    IrregularClassifier,
    IrregularForecaster,
    IrregularInterpolator,
    LastValue,
    build,
)
from sciode.timeseries.baselines import Baseline
from sciode.timeseries.estimator import Estimator
from sciode.timeseries.regression import PathEstimator
from sciode.timeseries.sequence import SequenceEstimator
from sciode.timeseries.values import ValueEstimator
from sciode.training import load_checkpoint
from tests.timeseries.made import sines

FAST: dict[str, Any] = {"hidden": 8, "epochs": 1, "steps": 12, "n_samples": 2, "device": "cpu", "batch_size": 16}
OWN: dict[type, dict[str, Any]] = {
    IrregularClassifier: {},
    IrregularForecaster: {"ahead": 3},
    IrregularInterpolator: {"copies": 1},
}
KINDS, NAN = list(OWN), float("nan")
MODELS = ["lnsde", "grud", "latentode"]  # driven by a control path, by the values, by an encoder of them
SERIES = sines(10, seed=0)


def make(kind: type, **changes: Any) -> Any:
    return kind(**(FAST | OWN[kind] | changes))


def fit(estimator: Any, series: Any) -> Any:
    """With two classes in turn where classes are learnt."""
    return estimator.fit(series, *([np.arange(len(series)) % 2] if type(estimator) is IrregularClassifier else []))


def answer(estimator: Any, series: Any) -> NDArray[Any]:
    """What is told of the series; beyond the ends of short ones, nothing is."""
    if type(estimator) is IrregularClassifier:
        return estimator.predict_proba(series)
    found = estimator.predict(series)
    if type(estimator) is IrregularInterpolator and isinstance(series, IrregularSeries):
        found = found[~np.isnan(series.padded()[1])]
    return found


def among(*extra: tuple[Any, Any]) -> IrregularSeries:
    """The series and more of them, (values [L], times [L])."""
    values = [np.array(value, dtype=float)[:, None] for value, _ in extra]
    return IrregularSeries([*SERIES.values, *values], [*SERIES.times, *(np.array(clock) for _, clock in extra)])


def one(values: Any, times: Any = None) -> IrregularSeries:
    return IrregularSeries([np.array(values, dtype=float)[:, None]], None if times is None else [np.array(times)])


@pytest.fixture(scope="module")
def fitted() -> Callable[..., Any]:
    """Estimators by kind and model, each trained once."""
    shelf: dict[Any, Any] = {}

    def of(kind: type, model: str) -> Any:
        if (kind, model) not in shelf:
            shelf[kind, model] = fit(make(kind, model=model), SERIES)
        return shelf[kind, model]

    return of


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing at all": (list, "there is no series: give at least one"),
    "all NaN": (lambda: np.full((10, 1, 5), NAN), "series 0 has no reading at all, every value is NaN: remove it"),
    "infinite": (lambda: np.full((10, 1, 5), np.inf), "series 0 has infinite values: write NaN where"),
    "a time twice": (lambda: among(([0.0, 1.0], [1.0, 1.0])), r"point 1 \(t = 1\) repeats.*average readings"),
    "time backwards": (lambda: among(([0.0, 1.0], [1.0, 0.5])), r"point 1 \(t = 0.5\) goes back.*sort them"),
    "a time that is NaN": (lambda: among(([0.0, 1.0], [1.0, NAN])), "times of series 10 are not finite: remove"),
    "squares overflow": (lambda: among(([0.0, 1e300], [0.0, 1.0])), "channel 0 has a reading of size 1e.300"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", REFUSED)
def test_faulty_series_are_refused_in_training(kind: type, fault: str) -> None:
    series, says = REFUSED[fault]
    with pytest.raises(ValueError, match=says):
        fit(make(kind), series())


REFUSED_LATER: dict[str, tuple[Callable[[], Any], str]] = {
    **{fault: REFUSED[fault] for fault in REFUSED if fault != "squares overflow"},
    "another number of channels": (lambda: np.zeros((2, 3, 9)), "X has 3 channels, the .* was fitted on 1"),
    "a mark for missing": (lambda: one([0.1, 1e30]), "series 0 reads 1e.30 in channel 0.*write NaN if it is a mark"),
    "single precision": (lambda: np.full((2, 1, 5), 3e38, np.float32), "series 0 reads 3e.38 in channel 0"),
    "another unit of time": (lambda: one([0.1, 0.2], [0.0, 3.6e6]), "lasts 3.6e.06, over 100 times.*same unit"),
    "static features unheard of": (
        lambda: IrregularSeries(SERIES.values, SERIES.times, np.zeros((10, 1))),
        "the series have 1 static features and the training series had 0",
    ),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_faulty_series_are_refused_in_prediction(kind: type, model: str, fitted: Any) -> None:
    estimator = fitted(kind, model)
    for series, says in REFUSED_LATER.values():
        with pytest.raises(ValueError, match=says):
            answer(estimator, series())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_thin_but_sound_is_answered(kind: type, model: str, fitted: Any) -> None:
    """One point, two, points with nothing read at the ends, points very close, any origin of time."""
    estimator = fitted(kind, model)
    for series in (
        one([0.3], [5.0]),
        one([0.3, 0.1], [0.0, 0.5]),
        one([NAN, 0.5, NAN]),
        one([0.1, 0.2, 0.3], [0.0, 1e-9, 1.0]),
        IrregularSeries(SERIES.values, [clock + 2.0**30 for clock in SERIES.times]),
    ):
        assert np.isfinite(answer(estimator, series)).all()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_training_takes_thin_series_among_others(kind: type, model: str) -> None:
    train = among(([0.5], [1.0]), ([NAN, NAN, 0.5, NAN, 0.2, 0.3, 0.3], np.arange(7.0)))
    assert np.isfinite(answer(fit(make(kind, model=model), train), SERIES)).all()


def test_series_of_one_point_can_be_classified_and_teach_the_others_nothing() -> None:
    points = IrregularSeries(np.linspace(-1, 1, 10).reshape(10, 1, 1))
    assert np.isfinite(answer(fit(make(IrregularClassifier), points), points)).all()
    with pytest.raises(ValueError, match="no series has a reading in 2 time points and in the 3 that follow"):
        fit(make(IrregularForecaster), points)
    with pytest.raises(ValueError, match="no series is long enough to hide a part of it"):
        fit(make(IrregularInterpolator), points)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", MODELS)
def test_what_is_missing_is_no_zero(kind: type, model: str) -> None:
    """Readings around 1000 with gaps: were a gap a zero of the data, it would lie 100 deviations below, and the answer
    to a series would hang on whether a row without any reading is there."""
    far = SERIES.replace_values([10.0 * value + 1000.0 for value in SERIES.values])
    estimator = fit(make(kind, model=model), far)
    clock, value = np.arange(0.0, 8.0), 1000.0 + np.array([3.0, -4, 5, 8, -9, 2, 1, 6])
    holed = np.where(np.isin(np.arange(8), (2, 3, 5)), NAN, value)
    sparse = one(value[~np.isnan(holed)], clock[~np.isnan(holed)])
    holes, points = answer(estimator, one(holed, clock)), answer(estimator, sparse)
    if kind is IrregularInterpolator:
        assert np.abs(holes - 1000).max() < 100
        holes = holes[~np.isnan(holed)]
    np.testing.assert_allclose(holes, points, rtol=1e-4)


def test_a_path_stays_among_its_readings_across_gaps_and_beyond_them() -> None:
    series = one([NAN, NAN, 101.0, NAN, NAN, 99.0, 100.0, NAN, NAN], np.arange(9.0))
    path = ControlGrid(8.0, 80).controls(series).values[0, :, 0].numpy()
    assert np.abs(path - 100).max() < 2
    assert (path[:21] == 101).all() and (path[60:] == 100).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_channel_nobody_has_read_says_nothing(kind: type) -> None:
    """Its path is 0: where it was read in training that is its mean."""
    both = SERIES.replace_values([np.concatenate((value, np.full_like(value, NAN)), 1) for value in SERIES.values])
    assert np.isfinite(answer(fit(make(kind), both), both)).all()
    full = SERIES.replace_values([np.concatenate((value, 50 + value), 1) for value in SERIES.values])
    estimator = fit(make(kind), full)
    assert np.isfinite(answer(estimator, both)).all()
    control = estimator._inputs(both)["control"]
    assert (control[..., 1] == 0).all() and (control[..., 0] != 0).any()


def test_a_class_of_one_series_trains_and_validation_may_lack_classes() -> None:
    labels = np.array(["a"] * 9 + ["b"])
    assert make(IrregularClassifier).fit(SERIES, labels).classes_.tolist() == ["a", "b"]
    lacking = make(IrregularClassifier).fit(SERIES, ["a"] * 5 + ["b"] * 5, (SERIES[:3], ["a"] * 3))
    assert lacking.predict_proba(SERIES).shape == (10, 2)
    assert lacking.score(SERIES, ["never seen"] * 10) == 0
    with pytest.raises(ValueError, match=r"validation holds classes that X does not: \['c'\]"):
        make(IrregularClassifier).fit(SERIES, labels, (SERIES[:2], ["a", "c"]))


@pytest.mark.parametrize("kind", [IrregularForecaster, IrregularInterpolator])
def test_values_to_be_told_must_be_one_for_each_series(kind: type, fitted: Any) -> None:
    estimator = fitted(kind, "lnsde")
    for y in (SERIES[:3], among(([0.0], [99.0]))):
        for call in (make(kind).fit, estimator.score, LastValue().fit, LastValue().fit(SERIES).score):
            with pytest.raises(ValueError, match=r"y has (3|11) series of 1 channels, X 10 of 1: give the values"):
                call(SERIES, y)


@pytest.mark.parametrize(("kind", "times"), [(IrregularForecaster, [30.0, 20.0]), (IrregularInterpolator, [6.5, 6.0])])
def test_times_may_be_asked_for_in_any_order_and_twice(kind: type, times: list[float], fitted: Any) -> None:
    estimator = fitted(kind, "lnsde")
    plain = estimator.predict(SERIES, sorted(times))
    twice = estimator.predict(SERIES, [*times, times[0]])
    np.testing.assert_allclose(twice, plain[:, [1, 0, 1]], rtol=1e-6)
    for wrong in ([NAN], [np.inf]):
        with pytest.raises(ValueError, match="times must be finite"):
            estimator.predict(SERIES, wrong)


@pytest.mark.parametrize("model", ["lnsde", "nsde", "mtand", "latentode", "latentsde"])
def test_a_state_that_is_not_finite_is_a_status_and_an_error_if_wished(model: str) -> None:
    net = build(model, 1, hidden=4)
    for parameter in net.parameters():
        parameter.data.mul_(1e30)
    times = torch.arange(4.0).double().expand(2, -1)
    values = torch.tensor([[[1e15], [-1e15], [1e16], [1e15]]] * 2)
    batch = Batch(values, times, values, 1.0, torch.tensor([3.0, 3.0]).double())
    paths = net(batch, None, 0)
    assert paths.status.tolist() == [int(Status.NONFINITE)] * 2
    with pytest.raises((FloatingPointError, RuntimeError), match="NaN or infinite"):
        net(batch, None, 0, throw=True)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_diverges_ends_and_its_last_good_checkpoint_stays(
    kind: type, model: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """What was good before the weights were ruined predicts, is saved, and is what a new fit goes on from."""
    with pytest.raises(FloatingPointError, match="non-finite loss in epoch 0: lower lr or clip"):
        fit(make(kind, model=model, form="paper", lr=1e25), SERIES)
    original, epochs = kind._loss, []  # type: ignore[attr-defined]

    def ruined(self: Any, network: Any, batch: Any, seed: int) -> Any:
        if network.training and len(epochs) == 3:
            for parameter in network.parameters():
                parameter.data.mul_(1e30)
        if not network.training:
            epochs.append(1)
        return original(self, network, batch, seed)

    monkeypatch.setattr(kind, "_loss", ruined)
    with pytest.warns(RuntimeWarning, match="non-finite loss in epoch 3.*the best weights before it are kept"):
        estimator = fit(make(kind, model=model, epochs=5, checkpoint=tmp_path), SERIES)
    history = estimator.history_
    assert len(history.epochs) == 3 and "non-finite" in history.stopped
    assert np.isfinite(answer(estimator, SERIES)).all()
    tensors, _ = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert tensors and all(bool(x.isfinite().all()) for x in tensors.values() if x.is_floating_point())
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        onward = fit(make(kind, model=model, epochs=5, checkpoint=tmp_path), SERIES)
    whole = fit(make(kind, model=model, epochs=5), SERIES)
    np.testing.assert_array_equal(answer(onward, SERIES), answer(whole, SERIES))


@pytest.mark.parametrize("kind", [Estimator, SequenceEstimator, ValueEstimator, PathEstimator, Baseline])
def test_an_abstract_estimator_cannot_be_made(kind: type) -> None:
    with pytest.raises(TypeError, match="abstract"):
        kind()
