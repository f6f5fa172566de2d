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


def test_what_pandas_calls_na_is_missing_in_nullable_columns_and_in_text() -> None:
    """NA refuses to be compared, even with itself."""
    frame = visits().assign(
        pulse=pd.array([70, 60, 72, None, 61], dtype="Int64"),
        ward=pd.array(["x", None, "x", "x", None], dtype="string"),
        smoker=pd.array([True, None, True, True, None], dtype="boolean"),
    )
    series = IrregularSeries.from_frame(frame, "patient", "hour", ["pulse", "sugar"], ["ward", "smoker"])
    plain = IrregularSeries.from_frame(visits(), "patient", "hour", ["pulse", "sugar"])
    static = np.array([["x", True], [None, None]], dtype=object)
    assert series == IrregularSeries(plain.values, plain.times, static)
    assert series.values[0].dtype == np.float64
    for ids in (pd.array(["b", None, "b", "b", "a"], dtype="string"), np.array([0, "NaT", 0, 0, 1], "M8[ns]")):
        with pytest.raises(ValueError, match="the id column has missing entries"):
            IrregularSeries.from_frame(visits().assign(patient=ids), "patient", "hour", "pulse")


def test_numbers_kept_as_objects_are_numbers_and_dates_are_text() -> None:
    frame = visits().assign(age=pd.Series([40, 50.5, 40, 40, 50.5], dtype=object))
    series = IrregularSeries.from_frame(frame, "patient", "hour", "pulse", "age")
    assert series.static is not None and series.static.tolist() == [[40.0], [50.5]]
    frame["age"] = np.array(["2026-01-01", "2026-01-02", "2026-01-01", "2026-01-01", "2026-01-02"], "M8[ns]")
    dated = IrregularSeries.from_frame(frame, "patient", "hour", "pulse", "age").static
    assert dated is not None and all(str(entry).startswith("2026-01-0") for entry in dated.ravel())


def test_columns_are_called_by_their_own_names_numbers_too() -> None:
    numbered = visits().set_axis(range(5), axis=1)
    assert IrregularSeries.from_frame(numbered, 0, 1, 2) == IrregularSeries.from_frame(  # type: ignore[arg-type]
        visits(), "patient", "hour", "pulse"
    )
    with pytest.raises(ValueError, match=r"no column '0': it has 0, 1, 2, 3, 4"):
        IrregularSeries.from_frame(numbered, "0", "1", "2")
    with pytest.raises(ValueError, match="2 columns called 'pulse': give each a name of its own"):
        doubled = pd.concat([visits(), visits()[["pulse"]]], axis=1)
        IrregularSeries.from_frame(doubled, "patient", "hour", "pulse")
    with pytest.raises(ValueError, match=r"no column 'patient': it is in the index: call df.reset_index\(\)"):
        IrregularSeries.from_frame(visits().set_index("patient"), "patient", "hour", "pulse")
    with pytest.raises(ValueError, match="df is a dict: give a data frame"):
        IrregularSeries.from_frame({}, "patient", "hour", "pulse")


@pytest.mark.parametrize("wrong", [pd.date_range("2026-01-01", periods=5), np.full(5, 1j)])
def test_readings_that_are_no_numbers_are_refused_and_not_cast(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"column 'pulse' is not numeric: it holds (dates|complex numbers)"):
        IrregularSeries.from_frame(visits().assign(pulse=wrong), "patient", "hour", "pulse")
