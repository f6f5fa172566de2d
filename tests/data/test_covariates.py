"""Static features: learnt from training alone, unseen categories have a column of their own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sciode.data import Covariates, IrregularSeries


def patients(*rows: tuple) -> IrregularSeries:
    """One-point series with static features."""
    return IrregularSeries(np.zeros((len(rows), 1, 1)), static=np.array(rows, dtype=object))


TRAIN = patients((40.0, "a"), (60.0, "b"), (None, "a"))


def test_numbers_are_standardised_and_categories_get_a_column_each() -> None:
    table = Covariates.fit(TRAIN).transform(TRAIN)
    assert table is not None
    np.testing.assert_array_equal(table, [[-1, 0, 1, 0, 0], [1, 0, 0, 1, 0], [0, 1, 1, 0, 0]])
    assert Covariates.fit(TRAIN).width == 5


def test_a_category_that_training_has_not_seen_is_unseen() -> None:
    known = Covariates.from_dict(json.loads(json.dumps(Covariates.fit(TRAIN).to_dict())))
    assert known == Covariates.fit(TRAIN)
    table = known.transform(patients((50.0, "new"), (70.0, None)))
    np.testing.assert_array_equal(table, [[0, 0, 0, 0, 1], [2, 0, 0, 0, 1]])


def test_other_features_than_those_of_training_are_refused() -> None:
    known = Covariates.fit(TRAIN)
    with pytest.raises(ValueError, match="0 static features"):
        known.transform(IrregularSeries(np.zeros((2, 1, 1))))
    with pytest.raises(ValueError, match="holds text"):
        known.transform(patients(("old", "a"), ("young", "b")))


def test_series_keep_text_and_numbers_and_compare_by_content() -> None:
    again = patients((40.0, "a"), (60.0, "b"), (None, "a"))
    assert again == TRAIN and again[[1]] != TRAIN[[0]] and TRAIN[[0]] != IrregularSeries(np.zeros((1, 1, 1)))
    with pytest.raises(ValueError, match="infinite"):
        patients((np.inf, "a"))


def test_a_frame_s_text_columns_are_categories() -> None:
    pandas = pytest.importorskip("pandas")
    df = pandas.DataFrame({"id": [1, 1, 2, 3], "t": [0, 1, 0, 0], "x": [0.0, 1, 2, 3], "sex": ["f", "f", "m", None]})
    series = IrregularSeries.from_frame(df, "id", "t", "x", static="sex")
    np.testing.assert_array_equal(Covariates.fit(series).transform(series), [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
