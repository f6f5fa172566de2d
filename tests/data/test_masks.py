"""Random dropping: how much goes, what stays, and that only (seed, series) decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciode.data import IrregularSeries, drop

UNITS = pytest.mark.parametrize("unit", ["time", "reading"])
RATES = st.floats(0, 1, exclude_max=True)


def complete(lengths: list[int], channels: int = 3) -> IrregularSeries:
    rng = np.random.default_rng(0)
    return IrregularSeries([rng.normal(size=(n, channels)) for n in lengths])


@UNITS
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4), rate=RATES, seed=st.integers(0, 2**40))
def test_each_channel_loses_the_floor_of_length_times_rate(unit, lengths, rate, seed) -> None:
    series = complete(lengths)
    lossy = drop(series, rate, seed, unit)
    for before, after in zip(series.values, lossy.values, strict=True):
        gone = np.isnan(after)
        assert (gone.sum(axis=0) == min(int(len(before) * rate + 1e-9), len(before) - 1)).all()
        assert np.array_equal(after[~gone], before[~gone])
    assert all(np.array_equal(a, b) for a, b in zip(series.times, lossy.times, strict=True))
    assert series == complete(lengths)


def test_a_rate_written_in_decimals_means_what_it_says() -> None:
    assert np.isnan(drop(complete([100], 1), 0.29, 0).values[0]).sum() == 29


def test_whole_time_points_go_in_all_channels_at_once() -> None:
    gone = np.isnan(drop(complete([50]), 0.5, 3, "time").values[0])
    assert (gone.all(axis=1) == gone.any(axis=1)).all()


def test_single_readings_go_in_each_channel_on_its_own() -> None:
    gone = np.isnan(drop(complete([50]), 0.5, 3, "reading").values[0])
    assert not np.array_equal(gone[:, 0], gone[:, 1])


@UNITS
@given(rows=st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True), rate=RATES, seed=st.integers(0, 100))
def test_the_batch_and_its_order_do_not_matter(unit, rows, rate, seed) -> None:
    series = complete([5, 9, 12, 9, 9, 30])
    assert drop(series[rows], rate, seed, unit, index=rows) == drop(series, rate, seed, unit)[rows]


@UNITS
def test_the_same_seed_gives_the_same_gaps_and_another_seed_others(unit) -> None:
    series = complete([30, 30])
    assert drop(series, 0.5, 7, unit) == drop(series, 0.5, 7, unit)
    assert drop(series, 0.5, 7, unit) != drop(series, 0.5, 8, unit)
    first, second = (np.isnan(value) for value in drop(series, 0.5, 7, unit).values)
    assert not np.array_equal(first, second)


@given(rate=RATES, seed=st.integers(0, 1000))
def test_a_series_with_gaps_never_loses_everything(rate, seed) -> None:
    sparse = np.full((20, 2), np.nan)
    sparse[4, 0], sparse[9, 1], sparse[11, 1] = 1.0, 2.0, 3.0
    series = IrregularSeries([sparse])
    assert np.isfinite(drop(series, rate, seed, "time").values[0]).any()
    assert np.isfinite(drop(series, rate, seed, "reading").values[0]).any(axis=0).all()


def test_every_position_is_equally_likely_to_go() -> None:
    n, length, rate = 4000, 8, 0.5
    gone = np.stack([np.isnan(v[:, 0]) for v in drop(complete([length] * n, 1), rate, 1).values])
    # Each frequency is a mean of n draws of variance 1/4; 5 standard errors for 8 positions at once.
    assert np.abs(gone.mean(axis=0) - rate).max() < 5 * 0.5 / np.sqrt(n)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 1.0, "seed": 0}, "share to drop"),
        ({"rate": -0.1, "seed": 0}, "share to drop"),
        ({"rate": float("nan"), "seed": 0}, "share to drop"),
        ({"rate": 0.5, "seed": -1}, "non-negative"),
        ({"rate": 0.5, "seed": 0, "unit": "channel"}, "'time'"),
        ({"rate": 0.5, "seed": 0, "index": [1, 2]}, "index has 2 entries"),
    ],
)
def test_bad_arguments_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        drop(complete([4]), **arguments)
