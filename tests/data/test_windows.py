"""Windows: no reading is in a history and in its future, and the benchmark's parts share no run."""

from __future__ import annotations

import os

import numpy as np
import pytest

from sciode.data import IrregularSeries, hopper, in_order, windows


def ramps(*lengths: int) -> IrregularSeries:
    """Series whose value is their time."""
    return IrregularSeries([np.arange(n, dtype=float)[:, None] for n in lengths])


def test_a_future_follows_its_history_and_no_reading_is_in_both() -> None:
    cut = windows(ramps(9, 4), history=3, horizon=2, stride=2)
    assert cut.source.tolist() == [0, 0, 0]
    assert [clock.tolist() for clock in cut.history.times] == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    assert [clock.tolist() for clock in cut.future.times] == [[3, 4], [5, 6], [7, 8]]
    for past, future in zip(cut.history.values, cut.future.values, strict=True):
        assert past.max() < future.min()


def test_shorter_histories_where_they_are_allowed_and_only_the_last_cut() -> None:
    assert windows(ramps(5), history=3, horizon=1, shortest=1).history.lengths.tolist() == [1, 2, 3, 3]
    last = windows(ramps(5, 3), history=None, horizon=2, last=True)
    assert last.history.lengths.tolist() == [3, 1] and last.source.tolist() == [0, 1]


def test_windows_without_a_reading_are_left_out() -> None:
    value = np.array([np.nan, 1, 2, np.nan])[:, None]
    assert windows(IrregularSeries([value]), history=1, horizon=1).source.size == 1
    with pytest.raises(ValueError, match="shorter horizon"):
        windows(ramps(3), history=3, horizon=1)
    with pytest.raises(ValueError, match=">= 1"):
        windows(ramps(3), history=1, horizon=0)


def test_a_split_in_order() -> None:
    parts = in_order(20)
    assert [len(p) for p in (parts.train, parts.validation, parts.test)] == [14, 3, 3]
    assert np.array_equal(np.concatenate([parts.train, parts.validation, parts.test]), np.arange(20))
    with pytest.raises(ValueError, match="none to train"):
        in_order(1)


@pytest.mark.skipif("SCIODE_DATA" not in os.environ, reason="the hopper array is in SCIODE_DATA")
def test_the_hopper_benchmark() -> None:
    train, validation, test = hopper(rate=0.5)
    assert [len(p.source) for p in (train, validation, test)] == [70 * 41, 15 * 41, 15 * 41]
    assert not set(train.source) & set(test.source) and train.source.max() < validation.source.min()
    assert train.history.missing_rate == 0.5 and train.future.missing_rate == 0
    lost = np.isnan(np.stack(train.history.values))
    assert (lost.all(-1) == lost.any(-1)).all(), "whole time points are lost"
