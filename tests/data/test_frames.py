"""Series from a long data frame."""

from __future__ import annotations

import numpy as np
import pytest

from sciode.data import IrregularSeries

pd = pytest.importorskip("pandas", reason="pandas comes with the lab extra")


def visits():
    return pd.DataFrame(
        {
            "patient": ["b", "a", "b", "b", "a"],
            "hour": [2.5, 0.0, 0.5, 1.0, 3.0],
            "pulse": [70, 60, 72, np.nan, 61],
            "sugar": [np.nan, 5.0, np.nan, 6.0, np.nan],
            "age": [40, 50, 40, 40, 50],
        }
    )


def test_rows_are_grouped_by_first_appearance_and_sorted_by_time() -> None:
    series = IrregularSeries.from_frame(visits(), "patient", "hour", ["pulse", "sugar"], static="age")
    b = [[72, np.nan], [np.nan, 6], [70, np.nan]]
    a = [[60, 5], [61, np.nan]]
    assert series == IrregularSeries([b, a], [[0.5, 1.0, 2.5], [0.0, 3.0]], [[40.0], [50.0]])
    assert series.static is not None
    assert visits().groupby("patient", sort=False)["age"].first().tolist() == series.static[:, 0].tolist()


def test_the_order_of_the_rows_within_a_series_does_not_matter() -> None:
    straight = IrregularSeries.from_frame(visits(), "patient", "hour", "pulse")
    shuffled = IrregularSeries.from_frame(visits().iloc[[0, 4, 3, 1, 2]], "patient", "hour", "pulse")
    assert straight == shuffled


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, ("patient", "hours", "pulse"), "no column 'hours': did you mean 'hour'"),
        ({}, ("patient", "hour", []), "at least one channel"),
        ({"hour": [2.5, 0, 0.5, 0.5, 3]}, ("patient", "hour", "pulse"), "series 'b' has two rows at time 0.5"),
        ({"hour": [2.5, 0, np.nan, 0.5, 3]}, ("patient", "hour", "pulse"), "missing or infinite times"),
        ({"hour": pd.date_range("2026-01-01", periods=5)}, ("patient", "hour", "pulse"), "holds dates"),
        ({"pulse": ["fast"] * 5}, ("patient", "hour", "pulse"), "'pulse' is not numeric"),
        ({"pulse": [1, np.nan, 1, 1, np.nan]}, ("patient", "hour", "pulse"), "series 'a' has no reading"),
        ({"patient": ["b", None, "b", "b", "a"]}, ("patient", "hour", "pulse"), "missing entries"),
        ({"age": [40, 50, 41, 40, 50]}, ("patient", "hour", "pulse", "age"), "changes within series 'b'"),
    ],
)
def test_a_frame_that_makes_no_sense_is_refused_with_the_mend(change, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        IrregularSeries.from_frame(visits().assign(**change), *arguments)


def test_a_frame_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        IrregularSeries.from_frame(visits().iloc[:0], "patient", "hour", "pulse")
