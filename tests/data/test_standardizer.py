"""Standardisation by what was observed in training."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciode.data import IrregularSeries, Standardizer, drop


def wild(seed: int = 0) -> IrregularSeries:
    rng = np.random.default_rng(seed)
    shift, size = np.array([0.0, 1e6, -3.0]), np.array([1.0, 1e-2, 1e4])
    return IrregularSeries([rng.normal(shift, size, size=(n, 3)) for n in (5, 17, 9)])


@given(st.integers(0, 50), st.floats(0, 0.9))
def test_observed_training_readings_become_mean_zero_and_variance_one(seed, rate) -> None:
    series = drop(wild(seed), rate, seed)
    z = np.concatenate(Standardizer.fit(series).transform(series).values)
    assert np.allclose(np.nanmean(z, axis=0), 0, atol=1e-7)
    assert np.allclose(np.nanstd(z, axis=0), 1, atol=1e-7)
    assert np.array_equal(np.isnan(z), np.isnan(np.concatenate(series.values)))


def test_gaps_count_for_nothing() -> None:
    observed = IrregularSeries([[[1.0], [3.0]]])
    with_gaps = IrregularSeries([[[1.0], [np.nan], [3.0], [np.nan]]])
    assert Standardizer.fit(with_gaps) == Standardizer.fit(observed) == Standardizer((2.0,), (1.0,))


@given(st.integers(0, 50))
def test_inverse_undoes_transform(seed) -> None:
    series = wild(seed)
    scaler = Standardizer.fit(series)
    back = scaler.inverse(scaler.transform(series))
    for a, b in zip(back.values, series.values, strict=True):
        assert np.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("constant", [0.0, 5.0, 0.1, 1e9 + 0.1])
def test_a_channel_that_does_not_vary_becomes_zero(constant) -> None:
    series = IrregularSeries([np.full((7, 1), constant), np.full((4, 1), constant)])
    scaler = Standardizer.fit(series)
    assert scaler.scale == (1.0,)
    assert np.abs(np.concatenate(scaler.transform(series).values)).max() <= 1e-12 * max(constant, 1)


def test_a_channel_never_observed_is_left_alone() -> None:
    series = IrregularSeries([[[1.0, np.nan], [2.0, np.nan]]])
    assert Standardizer.fit(series).to_dict() == {"mean": [1.5, 0.0], "scale": [0.5, 1.0]}


def test_it_survives_json_exactly() -> None:
    scaler = Standardizer.fit(wild())
    assert Standardizer.from_dict(json.loads(json.dumps(scaler.to_dict()))) == scaler


def test_float32_stays_float32() -> None:
    series = IrregularSeries([np.array([[1.0], [2.0]], dtype=np.float32)])
    assert Standardizer.fit(series).transform(series).values[0].dtype == np.float32


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="have 1 channels and the training series had 3"):
        Standardizer.fit(wild()).transform(IrregularSeries([[[1.0]]]))


@pytest.mark.parametrize(("mean", "scale"), [((), ()), ((0.0,), (1.0, 1.0)), ((0.0,), (0.0,)), ((np.nan,), (1.0,))])
def test_numbers_that_scale_nothing_are_refused(mean, scale) -> None:
    with pytest.raises(ValueError):
        Standardizer(mean, scale)
