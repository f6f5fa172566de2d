"""scikit-learn's splitters split series and never rows."""

from __future__ import annotations

import numpy as np
import pytest

from sciode.data import IrregularSeries

sklearn = pytest.importorskip("sklearn", reason="scikit-learn comes with the lab extra")

from sklearn.base import BaseEstimator, ClassifierMixin  # noqa: E402 - after the check that it is there
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, train_test_split  # noqa: E402


def labelled() -> tuple[IrregularSeries, np.ndarray]:
    """Ten series of unequal length whose constant value is their position; the label is its parity."""
    return IrregularSeries([np.full((2 + i % 3, 1), float(i)) for i in range(10)]), np.arange(10) % 2


class Parity(ClassifierMixin, BaseEstimator):
    """Predicts from the value of each series; refuses anything but whole series."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset

    def fit(self, X: IrregularSeries, y: np.ndarray) -> Parity:
        assert isinstance(X, IrregularSeries) and len(X) == len(y)
        assert all(int(value[0, 0]) % 2 == label for value, label in zip(X.values, y, strict=True))
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: IrregularSeries) -> np.ndarray:
        return np.array([(int(value[0, 0]) + self.offset) % 2 for value in X.values])


def test_train_test_split_keeps_series_with_their_labels() -> None:
    X, y = labelled()
    train, test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
    assert isinstance(train, IrregularSeries) and isinstance(test, IrregularSeries)
    found = [int(value[0, 0]) for value in (*train.values, *test.values)]
    assert sorted(found) == list(range(10))
    assert [i % 2 for i in found] == [*y_train, *y_test]


def test_cross_validation_and_grid_search_run_on_whole_series() -> None:
    X, y = labelled()
    assert cross_val_score(Parity(), X, y, cv=StratifiedKFold(5)).tolist() == [1.0] * 5
    search = GridSearchCV(Parity(), {"offset": [0, 1]}, cv=2).fit(X, y)
    assert search.best_params_ == {"offset": 0} and search.best_score_ == 1.0
