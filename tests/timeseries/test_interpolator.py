"""The interpolator: it beats the mean and the last value, reads both sides, and leaves readings as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sciode.data import IrregularSeries, Standardizer, drop
from sciode.timeseries import ChannelMean, IrregularInterpolator, LastValue
from sciode.timeseries.interpolator import hidden
from tests.timeseries.made import sines

FAST: dict[str, Any] = {"hidden": 16, "epochs": 22, "copies": 2, "steps": 25, "n_samples": 4, "device": "cpu"}


def make(**changes: Any) -> IrregularInterpolator:
    """An interpolator that trains in seconds."""
    return IrregularInterpolator(**(FAST | changes))


def pairs(count: int, seed: int) -> IrregularSeries:
    """Sines with a second channel, -2 times the first one plus 100, of which half of the readings are missing."""
    series = sines(count, seed, noise=0.1)
    both = series.replace_values([np.concatenate([v, 100 - 2 * v], axis=1) for v in series.values])
    return drop(both, 0.3, seed)


@pytest.fixture(scope="module")
def fitted() -> IrregularInterpolator:
    return make().fit(pairs(50, seed=0))


def test_it_beats_the_mean_and_the_last_value(fitted: IrregularInterpolator) -> None:
    train, test = pairs(50, seed=0), pairs(30, seed=1)
    mean, last = (model(task="interpolate").fit(train).score(test) for model in (ChannelMean, LastValue))
    assert mean < 0.02
    assert fitted.score(test) > max(mean, last) + 0.3


def test_a_reading_on_either_side_changes_the_answer(fitted: IrregularInterpolator) -> None:
    series = sines(1, seed=2).times[0][:9], np.tile([0.0, 100.0], (9, 1))
    middle = [(series[0][4] + series[0][5]) / 2]
    plain = fitted.predict(IrregularSeries([series[1]], [series[0]]), middle)
    for place in (0, 3, 6, 8):
        moved = series[1].copy()
        moved[place, 0] += 1
        assert abs(fitted.predict(IrregularSeries([moved], [series[0]]), middle) - plain).max() > 1e-6


def test_what_is_hidden_is_wanted_and_nothing_else_is_lost() -> None:
    series = pairs(7, seed=3)
    for unit in ("time", "reading"):
        found = hidden(series, 0.3, 0, unit)
        for number, given, wanted in zip(found.source, found.given, found.wanted, strict=True):
            known = {
                (t, c, v)
                for one in (given, wanted)
                for t, row in zip(one.times[0], one.values[0], strict=True)
                for c, v in enumerate(row)
                if not np.isnan(v)
            }
            whole = series[[number]]
            assert known == {
                (t, c, v)
                for t, row in zip(whole.times[0], whole.values[0], strict=True)
                for c, v in enumerate(row)
                if not np.isnan(v)
            }
            assert given.times[0][[0, -1]].tolist() == whole.times[0][[0, -1]].tolist()
        lost = sum(int((~np.isnan(v)).sum()) for v in found.wanted.values)
        assert 0.15 < lost / sum(int((~np.isnan(v)).sum()) for v in series.values) < 0.35


def test_hidden_values_enter_the_target_and_nothing_else(fitted: IrregularInterpolator) -> None:
    found = hidden(pairs(5, seed=4), 0.3, 0, "reading")
    moved = found._replace(wanted=found.wanted.replace_values([7 - v for v in found.wanted.values]))
    plain, altered = fitted._told(found), fitted._told(moved)
    for name, tensor in plain.items():
        assert tensor.nan_to_num().equal(altered[name].nan_to_num()) == (name != "target"), name


def test_imputation_fills_gaps_and_leaves_readings_alone(fitted: IrregularInterpolator) -> None:
    complete = sines(20, seed=5, noise=0.0)
    complete = complete.replace_values([np.concatenate([v, 100 - 2 * v], axis=1) for v in complete.values])
    holes = drop(complete, 0.4, 0)
    filled = fitted.impute(holes)
    assert filled.missing_rate == 0
    for before, after in zip(holes.values, filled.values, strict=True):
        np.testing.assert_array_equal(after[~np.isnan(before)], before[~np.isnan(before)])
    gaps = [np.isnan(v) for v in holes.values]
    errors = np.concatenate([(f - c)[g] for f, c, g in zip(filled.values, complete.values, gaps, strict=True)])
    guessed = np.concatenate([(c - np.array([0, 100]))[g] for c, g in zip(complete.values, gaps, strict=True)])
    assert (errors**2).mean() < 0.3 * (guessed**2).mean()


def test_bands_hold_what_they_say() -> None:
    """One hidden reading of each of 400 series: the binomial standard error at 0.9 is 0.015; four are allowed."""
    interpolator = make(epochs=25).fit(sines(80, seed=0))
    series = sines(400, seed=6)
    rng = np.random.default_rng(0)
    places = [int(rng.integers(1, len(t) - 1)) for t in series.times]
    given = IrregularSeries(
        [np.delete(v, k, axis=0) for v, k in zip(series.values, places, strict=True)],
        [np.delete(t, k) for t, k in zip(series.times, places, strict=True)],
    )
    times = [t[[k]] for t, k in zip(series.times, places, strict=True)]
    truth = np.array([v[k, 0] for v, k in zip(series.values, places, strict=True)])
    lower, upper = interpolator.predict_interval(given, times, 0.9)
    held = ((lower[:, 0, 0] < truth) & (truth < upper[:, 0, 0])).mean()
    assert abs(held - 0.9) < 4 * np.sqrt(0.09 / 400), held


def test_scales_are_learnt_from_the_series_that_train_and_few_series_hide_what_validates() -> None:
    series = pairs(12, seed=7)
    train, held, seen = make()._parts(series, None)
    assert len(seen) == 10 and not {t.tobytes() for t in seen.times} & {t.tobytes() for t in held.given.times}
    assert make(epochs=1).fit(series).standardizer_ == Standardizer.fit(seen)
    train, held, seen = make()._parts(series[:2], None)
    told = [
        set(zip(np.repeat(t, 2).tolist(), v.ravel().tolist(), strict=True))
        for t, v in zip(held.wanted.times, held.wanted.values, strict=True)
    ]
    for number, clock, value in zip(train.source, train.wanted.times, train.wanted.values, strict=True):
        shown = {
            pair
            for pair in zip(np.repeat(clock, 2).tolist(), value.ravel().tolist(), strict=True)
            if pair[1] == pair[1]
        }
        assert shown and not shown & told[number]
    assert make(epochs=1).fit(series[:1]).predict(series[:1]).shape == (1, len(series.times[0]), 2)


def test_times_outside_are_refused_and_own_times_are_the_default(fitted: IrregularInterpolator) -> None:
    series = pairs(3, seed=8)
    assert fitted.predict(series).shape == (3, series.lengths.max(), 2)
    assert np.isnan(fitted.predict(series)[int(series.lengths.argmin()), -1]).all()
    with pytest.raises(ValueError, match="use IrregularForecaster"):
        fitted.predict(series, [1e3])
    one = IrregularSeries([[[0.5, np.nan]]], [[7.0]])
    assert np.isfinite(fitted.predict(one, [7.0])).all()
    with pytest.raises(ValueError, match="hide"):
        make().fit(one)


def test_hidden_values_can_be_given_as_they_are(fitted: IrregularInterpolator) -> None:
    found = hidden(pairs(12, seed=9), 0.3, 0, "reading")
    assert fitted.score(found.given, found.wanted) > 0.3
    assert np.isfinite(make(epochs=1).fit(found.given, found.wanted).score(found.given, found.wanted))
    with pytest.raises(ValueError, match="y has 2 series"):
        fitted.score(found.given, found.wanted[:2])
