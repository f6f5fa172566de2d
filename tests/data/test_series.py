"""IrregularSeries: what goes in comes out, what makes no sense is refused, and series are what is split."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sciode.data import IrregularSeries

NAN = float("nan")


@st.composite
def collections(draw: st.DrawFn) -> IrregularSeries:
    """1 to 5 series of 1 to 6 points and 1 to 3 channels, with gaps, own clocks and perhaps static features."""
    n, channels = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    values, times = [], []
    for _ in range(n):
        length = draw(st.integers(1, 6))
        number = st.floats(-1e6, 1e6) | st.just(NAN)
        value = draw(hnp.arrays(np.float64, (length, channels), elements=number))
        value[draw(st.integers(0, length - 1)), draw(st.integers(0, channels - 1))] = 1.0
        values.append(value)
        times.append(np.cumsum(draw(hnp.arrays(np.float64, length, elements=st.floats(0.5, 2.0)))))
    static = draw(st.none() | hnp.arrays(np.float64, (n, 2), elements=st.floats(-5, 5) | st.just(NAN)))
    return IrregularSeries(values, times, static)


def three() -> IrregularSeries:
    return IrregularSeries([np.arange(6.0).reshape(3, 2), [[1.0, NAN]], np.ones((2, 2))], static=[[0.0], [1.0], [NAN]])


@given(collections())
def test_padding_and_cutting_the_padding_off_gives_the_same_series(series: IrregularSeries) -> None:
    values, times = series.padded()
    assert values.shape == (len(series), series.lengths.max(), series.channels)
    assert IrregularSeries(values, times, series.static) == series


@given(collections())
def test_the_missing_rate_counts_gaps_and_not_padding(series: IrregularSeries) -> None:
    readings = np.concatenate([value.ravel() for value in series.values])
    assert series.missing_rate == np.mean(np.isnan(readings))


@given(collections(), st.data())
def test_indexing_chooses_series_in_the_order_asked_for(series: IrregularSeries, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(series) - 1), min_size=1, max_size=7))
    chosen = series[np.array(rows)]
    assert len(chosen) == len(rows)
    for position, row in enumerate(rows):
        assert chosen[position] == series[row] == series[row - len(series)]
    mask = np.isin(np.arange(len(series)), rows)
    assert series[mask] == series[sorted(set(rows))]
    assert series[:] == series == series[np.arange(len(series)), ...]


def test_without_times_the_clock_is_the_index() -> None:
    assert [clock.tolist() for clock in three().times] == [[0.0, 1.0, 2.0], [0.0], [0.0, 1.0]]


def test_one_clock_can_be_shared() -> None:
    series = IrregularSeries(np.ones((2, 3, 1)), times=np.array([0.0, 0.5, 4.0]))
    assert all(np.array_equal(clock, [0.0, 0.5, 4.0]) for clock in series.times)


def test_iteration_gives_collections_of_one() -> None:
    series = three()
    assert [len(one) for one in series] == [1, 1, 1]
    assert list(series)[2] == series[2]


def test_equality_is_of_content() -> None:
    series = three()
    assert series == three() and copy.deepcopy(series) == series and pickle.loads(pickle.dumps(series)) == series
    assert series != IrregularSeries(series.values, static=[[0.0], [1.0], [2.0]])
    assert series != IrregularSeries(series.values)
    assert series != IrregularSeries(series.values, [t + 1 for t in series.times], series.static)
    assert series != series.replace_values([v + 1 for v in series.values])
    assert series != series[:2] and series != "series"


def test_nothing_can_be_changed_from_outside() -> None:
    source = np.ones((3, 2))
    series = IrregularSeries([source])
    source[:] = 7
    assert series.values[0].max() == 1
    with pytest.raises(ValueError, match="read-only"):
        series.values[0][0, 0] = 2
    with pytest.raises(ValueError, match="read-only"):
        series[[0]].times[0][0] = 2
    with pytest.raises(AttributeError):
        series.static = None  # type: ignore[misc]


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda series: pickle.loads(pickle.dumps(series))])
def test_copies_are_read_only_too(copied: Any) -> None:
    series = copied(three())
    assert series == three()
    for array in (*series.values, *series.times, series.static):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2


def test_what_a_masked_array_masks_is_missing() -> None:
    """Its data are whatever stood there, often a mark such as -999."""
    masked = np.ma.masked_equal([[[1.0], [-999.0], [3.0]]], -999.0)
    read = IrregularSeries([[[1.0], [NAN], [3.0]]])
    assert IrregularSeries(masked) == IrregularSeries([masked[0]]) == read
    aeon = np.moveaxis(masked, 1, 2)
    assert IrregularSeries.from_array(aeon) == IrregularSeries.from_array([aeon[0]]) == read


def test_float32_stays_and_integers_become_float64() -> None:
    assert IrregularSeries(np.ones((1, 2, 1), dtype=np.float32)).padded()[0].dtype == np.float32
    assert IrregularSeries(np.ones((1, 2, 1), dtype=np.int32)).values[0].dtype == np.float64


def test_the_array_layout_is_case_channel_time() -> None:
    X = np.arange(24.0).reshape(2, 3, 4)
    series = IrregularSeries.from_array(X)
    assert (len(series), series.channels, series.lengths.tolist()) == (2, 3, [4, 4])
    assert series.values[1][2, 0] == X[1, 0, 2]
    assert IrregularSeries.from_array([X[0], X[1]]) == series
    assert IrregularSeries.from_array(X[:, 0]) == IrregularSeries.from_array(X[:, :1])


def test_it_describes_itself_in_one_line_and_in_a_notebook() -> None:
    text = repr(three())
    assert "series: 3" in text and "length: 1 to 3" in text and "static: 1" in text and "\n" not in text
    assert "<table>" in three()._repr_html_()


@pytest.mark.parametrize(
    ("values", "times", "static", "message"),
    [
        ([], None, None, "no series"),
        ([[[1.0]], np.empty((0, 1))], None, None, "series 1 is empty"),
        ([np.empty((3, 0))], None, None, "series 0 is empty"),
        ([[[1.0]], [[NAN]]], None, None, "series 1 has no reading"),
        ([[[1.0], [np.inf]]], None, None, "series 0 has infinite values"),
        ([[[1.0]], [[1.0, 2.0]]], None, None, "series 1 has 2 channels and series 0 has 1"),
        ([[1.0, 2.0]], None, None, r"x\[:, None\]"),
        (np.ones((2, 3)), None, None, "n, length, channels"),
        ([[["a"]]], None, None, "series 0 is not numeric"),
        ([[[1.0], [2.0]]], [[0.0, 0.0]], None, "point 1 .* repeats"),
        ([[[1.0], [2.0], [3.0]]], [[0.0, 2.0, 1.0]], None, "point 2 .* goes back"),
        ([[[1.0], [2.0]]], [[0.0, NAN]], None, "not finite"),
        ([[[1.0], [2.0]]], [[0.0, np.inf]], None, "not finite"),
        ([[[1.0], [2.0]]], [[0.0]], None, "give one time"),
        ([[[1.0], [2.0]]], [[0.0, 1.0], [0.0]], None, "2 time arrays and 1 series"),
        (np.ones((1, 3, 1)), np.array([[0.0, NAN, 2.0]]), None, "not finite"),
        (np.ones((1, 2, 1)), np.array([[NAN, NAN]]), None, "series 0 is empty"),
        ([[[1.0]]], None, [1.0], r"give \[1, features\]"),
        ([[[1.0]]], None, [[1.0], [2.0]], r"give \[1, features\]"),
        ([[[1.0]]], None, [[np.inf]], "infinite"),
        # Their numbers would be counts of a unit that nobody chose: days, or with another storage nanoseconds.
        ([[[1.0], [2.0]]], [np.array(["2026-01-01", "2026-01-02"], "M8[D]")], None, "times of series 0 .* holds dates"),
        ([[[1.0], [2.0]]], np.array([[1, 2]], "m8[h]"), None, "times of series 0 .* holds dates"),
        ([np.array([["2026-01-01"]], "M8[ns]")], None, None, "series 0 is not numeric: it holds dates"),
        ([[[1j]]], None, None, "real and imaginary part as two channels"),
        ([[[1.0]]], None, np.array([["2026"]], "M8[Y]"), "static is not numeric: it holds dates"),
        ([[[1.0], [2.0]]], [[-1e308, 1e308]], None, "choose a larger unit"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_mend(values: Any, times: Any, static: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IrregularSeries(values, times, static)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (np.array([True, False]), "mask has shape"),
        (np.zeros(3, dtype=bool), "no series was chosen"),
        (slice(0, 0), "no series was chosen"),
        ([], "no series was chosen"),
        ((0, 1), "one axis"),
        (1.0, "not by float64"),
        (np.array([[0]]), "one axis"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(key: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        three()[key]


def test_an_index_out_of_range_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        three()[3]


def test_numpy_is_told_that_this_is_no_array() -> None:
    with pytest.raises(TypeError, match="padded"):
        np.asarray(three())


def test_from_array_names_a_case_of_the_wrong_rank() -> None:
    with pytest.raises(ValueError, match="series 1 has shape"):
        IrregularSeries.from_array([np.ones((1, 3)), np.ones(3)])
