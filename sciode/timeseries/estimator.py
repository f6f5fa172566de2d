"""What scikit-learn asks of an estimator, without importing scikit-learn."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sciode.data import IrregularSeries
from sciode.data.checks import checked_labels

SeriesLike = IrregularSeries | NDArray[Any] | Sequence[NDArray[Any]]


class Estimator(ABC):
    """Abstract. Parameters are the keyword arguments of `__init__`, stored unchanged, as `sklearn.clone` expects."""

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name; `deep` is scikit-learn's and changes nothing here."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name and return self; ValueError for an unknown name."""
        known = self._parameter_names()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(known)}")
            setattr(self, name, value)
        return self

    @abstractmethod
    def __sklearn_tags__(self) -> Any:
        """Return what scikit-learn wants to know of the estimator's kind."""

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = {k: v for k, v in self.get_params().items() if repr(v) != repr(defaults[k].default)}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in changed.items())})"


def classifier_tags() -> Any:
    """Return scikit-learn's tags of a classifier of series, for its `__sklearn_tags__` protocol."""
    return _tags("classifier")


def regressor_tags() -> Any:
    """Return scikit-learn's tags of an estimator of values of series, for its `__sklearn_tags__` protocol."""
    return _tags("regressor")


def _tags(kind: str) -> Any:
    try:
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags
    except ImportError as error:
        raise ImportError('scikit-learn is missing: pip install "sciode[lab]"') from error
    classifies = kind == "classifier"
    return Tags(
        estimator_type=kind,
        target_tags=TargetTags(required=classifies),
        classifier_tags=ClassifierTags() if classifies else None,
        regressor_tags=None if classifies else RegressorTags(),
        input_tags=InputTags(two_d_array=False, three_d_array=True, allow_nan=True),
    )


def as_series(X: SeriesLike) -> IrregularSeries:
    """Return X as IrregularSeries: one already, or aeon's layout, an array [case, channel, time] or a list of arrays.

    Raises ValueError for anything else, and what IrregularSeries raises (no series, a series without any reading).
    """
    if isinstance(X, IrregularSeries):
        return X
    if isinstance(X, np.ndarray) or (isinstance(X, Sequence) and not isinstance(X, str)):
        return IrregularSeries.from_array(X)
    raise ValueError(
        f"X must be IrregularSeries or an array [case, channel, time], got {type(X).__name__}: a long data frame is "
        "read by IrregularSeries.from_frame(df, id, time, values)"
    )


def as_labels(y: Any, count: int) -> NDArray[Any]:
    """Return y as an array [count]; ValueError for another shape, missing labels, or some without a common order."""
    if np.shape(y) != (count,):
        raise ValueError(f"y has shape {np.shape(y)}: give one label for each of the {count} series")
    return checked_labels(y, "y")


def whole(value: Any, name: str, least: int, may_be_none: bool = False) -> None:
    """ValueError unless a parameter is a whole number of at least `least`."""
    if value is None and may_be_none:
        return
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an int >= {least}{' or None' if may_be_none else ''}, got {value!r}")


def plain(value: Any) -> Any:
    """Return a parameter as JSON has it: numpy's numbers, of which searches are full, as Python's."""
    return value.item() if isinstance(value, np.generic) else value
