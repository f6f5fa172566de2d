"""The forecaster: it beats the last value, never looks ahead, and its bands hold what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sciode.data import Covariates, IrregularSeries, Standardizer
from sciode.timeseries import ChannelMean, IrregularForecaster, LastValue
from tests.timeseries.made import ornstein, sines

FAST: dict[str, Any] = {
    "hidden": 16,
    "epochs": 22,
    "ahead": 6,
    "history": 20,
    "stride": 3,
    "steps": 25,
    "n_samples": 4,
    "batch_size": 64,
}


def make(**changes: Any) -> IrregularForecaster:
    """A forecaster that trains in seconds."""
    options: dict[str, Any] = {**FAST, "device": "cpu", **changes}
    return IrregularForecaster(**options)


@pytest.fixture(scope="module")
def fitted() -> IrregularForecaster:
    return make().fit(sines(40, seed=0))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_beats_the_last_value_and_the_mean_on_noisy_sines(seed: int) -> None:
    """By 0.45 in R², half of what there is: noise of variance 0.04 on a signal of 0.5 leaves 0.93 to the best."""
    train, test = sines(40, seed=seed), sines(30, seed=100 + seed)
    best = max(model(ahead=6).fit(train).score(test) for model in (LastValue, ChannelMean))
    assert best < 0.05
    assert make(random_state=seed, epochs=40).fit(train).score(test) > best + 0.45


def test_what_comes_after_the_cut_changes_no_forecast_by_a_single_bit(fitted: IrregularForecaster) -> None:
    series = sines(8, seed=3)
    other = series.replace_values([np.concatenate([v[:-6], 1e3 - 7 * v[-6:]]) for v in series.values])
    plain, altered = fitted._judged(series, None), fitted._judged(other, None)
    times = plain.wanted.padded()[1]
    np.testing.assert_array_equal(fitted.predict(plain.given, times), fitted.predict(altered.given, times))
    assert fitted.score(series) != fitted.score(other)


def test_in_training_the_future_of_a_window_enters_its_target_and_nothing_else(fitted: IrregularForecaster) -> None:
    series = sines(4, seed=4)
    pairs = fitted._cut(series)
    moved = pairs._replace(wanted=pairs.wanted.replace_values([3 - v for v in pairs.wanted.values]))
    plain, altered = fitted._told(pairs), fitted._told(moved)
    assert plain.keys() == altered.keys() >= {"control", "values", "features", "target"}
    for name, tensor in plain.items():
        assert tensor.nan_to_num().equal(altered[name].nan_to_num()) == (name != "target"), name
    for past, future in zip(pairs.given.times, pairs.wanted.times, strict=True):
        assert past[-1] < future[0]


def test_later_times_asked_for_change_no_earlier_forecast(fitted: IrregularForecaster) -> None:
    series = sines(5, seed=5)
    soon = np.stack([t[-1] + np.array([0.3, 0.9]) for t in series.times])
    late = np.concatenate([soon, soon[:, -1:] + 2.5], axis=1)
    np.testing.assert_allclose(fitted.predict(series, late)[:, :2], fitted.predict(series, soon), rtol=1e-4, atol=1e-5)


def test_a_forecast_depends_neither_on_other_series_nor_on_empty_time_points(fitted: IrregularForecaster) -> None:
    series = sines(6, seed=6)
    together = fitted.predict(series)
    np.testing.assert_allclose(fitted.predict(series[[4, 1]]), together[[4, 1]], rtol=1e-4, atol=1e-5)
    gaps = [(t[:-1] + t[1:]) / 2 for t in series.times]
    clocks = [np.insert(t, np.arange(1, len(t)), g) for t, g in zip(series.times, gaps, strict=True)]
    holes = [np.insert(v, np.arange(1, len(v)), np.nan, axis=0) for v in series.values]
    times = [t[-1] + np.array([0.5, 1.0]) for t in series.times]
    np.testing.assert_array_equal(fitted.predict(IrregularSeries(holes, clocks), times), fitted.predict(series, times))


def test_scales_are_learnt_from_the_series_that_train() -> None:
    train, held = sines(12, seed=0), sines(4, seed=1)
    wild = held.replace_values([1e3 * v for v in held.values])
    plain, other = (make(epochs=1).fit(train, validation=v) for v in (held, wild))
    assert plain.standardizer_ == other.standardizer_ == Standardizer.fit(train) and plain.grid_ == other.grid_
    alone = make(epochs=1)
    parts, validation, seen = alone._parts(train, None)
    assert not set(parts.source) & set(validation.source)
    assert seen == train[np.unique(parts.source)]
    assert alone.fit(train).standardizer_ == Standardizer.fit(seen)


def test_few_series_are_split_in_time_and_nothing_told_in_validation_was_seen() -> None:
    train, held, seen = make(stride=1)._parts(sines(1, seed=0), None)
    first = min(clock[0] for clock in held.wanted.times)
    assert max(clock[-1] for clock in (*train.wanted.times, *seen.times)) < first
    forecaster = make(epochs=2, stride=1).fit(sines(1, seed=0))
    assert forecaster.predict(sines(1, seed=0)).shape == (1, 6, 1)


def test_intervals_cover_what_they_say_where_the_law_is_known() -> None:
    """Ornstein-Uhlenbeck: one reading of each of 600 series; the binomial standard error at 0.9 is 0.012, at 0.5 0.020.

    Four of them are allowed: two for the test's own luck, two for the error of a fit to 200 short series.
    """
    forecaster = make(ahead=3, history=8, stride=1, epochs=25, steps=12).fit(ornstein(200, seed=0))
    series = ornstein(600, seed=1)
    given = IrregularSeries([v[:-2] for v in series.values], [t[:-2] for t in series.times])
    times = [t[-1:] for t in series.times]
    truth = np.stack([v[-1:] for v in series.values])
    widths = {}
    for coverage in (0.5, 0.9):
        lower, upper = forecaster.predict_interval(given, times, coverage)
        held = ((lower < truth) & (truth < upper)).mean()
        assert abs(held - coverage) < 4 * np.sqrt(coverage * (1 - coverage) / 600), (coverage, held)
        widths[coverage] = (upper - lower)[:, 0, 0]
    lead = np.array([t[-1] - t[-3] for t in series.times])
    exact = 2 * 1.6449 * 2.0 * np.sqrt(1 - np.exp(-2 * lead))
    assert np.corrcoef(widths[0.9], exact)[0, 1] > 0.7
    assert abs(widths[0.9].mean() / exact.mean() - 1) < 0.15
    draws = forecaster.sample(given, times, n=64)
    assert draws.shape == (64, 600, 1, 1)
    inside = (draws > lower) & (draws < upper)
    assert abs(inside.mean() - 0.9) < 0.02


def test_times_are_shared_or_each_series_own_and_lie_after_the_end(fitted: IrregularForecaster) -> None:
    series = sines(3, seed=7)
    last = max(t[-1] for t in series.times)
    shared = fitted.predict(series, [last + 1, last + 2])
    own = fitted.predict(series, [[last + 1, last + 2], [last + 1], [last + 1, np.nan]])
    assert shared.shape == own.shape == (3, 2, 1)
    assert np.isnan(own[1:, 1]).all() and np.isfinite(own[:, 0]).all()
    np.testing.assert_allclose(own[:, 0], shared[:, 0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="use IrregularInterpolator"):
        fitted.predict(series, [1.0])
    with pytest.raises(ValueError, match=r"give \[Q\]"):
        fitted.predict(series, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="in the unit of the series"):
        fitted.predict(series, [1e6])
    with pytest.raises(ValueError, match="finite"):
        fitted.predict(series, [np.nan])


def test_futures_can_be_given_as_they_are(fitted: IrregularForecaster) -> None:
    series = sines(12, seed=8)
    given = IrregularSeries([v[:-6] for v in series.values], [t[:-6] for t in series.times])
    future = IrregularSeries([v[-6:] for v in series.values], [t[-6:] for t in series.times])
    assert fitted.score(given, future) == pytest.approx(fitted.score(series), abs=1e-5)
    assert make(epochs=1).fit(given, future).score(given, future) < 1
    with pytest.raises(ValueError, match="before its last reading"):
        fitted.score(series, future)
    with pytest.raises(ValueError, match="y has 3 series"):
        fitted.score(given, future[:3])


def test_a_series_of_one_point_is_forecast_but_teaches_nothing(fitted: IrregularForecaster) -> None:
    one = IrregularSeries([[[0.5]]], [[7.0]])
    assert np.isfinite(fitted.predict(one, [7.5, 9.0])).all() and fitted.predict(one).shape == (1, 6, 1)
    with pytest.raises(ValueError, match="no series has a reading"):
        make().fit(one)


def test_static_features_reach_the_forecast() -> None:
    """Half of the series jump up by 3 after their history, the others down: only the static text tells which."""
    rng = np.random.default_rng(0)
    kinds = np.array([["up"], ["down"]] * 30, dtype=object)
    values = [
        np.r_[rng.normal(0, 0.1, 6), (3 if k == "up" else -3) + rng.normal(0, 0.1, 3)][:, None] for k in kinds[:, 0]
    ]
    series = IrregularSeries(values, static=kinds)
    forecaster = make(ahead=3, history=6, shortest=6, stride=1, steps=8, epochs=120).fit(series)
    assert forecaster.covariates_ == Covariates((("down", "up"),))
    assert forecaster.score(series) > 0.9
    unseen = IrregularSeries(values[:1], static=np.array([["sideways"]], dtype=object))
    assert np.isfinite(forecaster.predict(unseen)).all()
