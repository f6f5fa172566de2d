"""What every estimator of values answers, neural or not: predict, intervals, samples, R²."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sciode.data import IrregularSeries
from sciode.data.checks import numbers
from sciode.timeseries.estimator import Estimator, SeriesLike
from sciode.timeseries.mixture import Mixture
from sciode.training import derive_seed

Times = NDArray[Any] | Sequence[Any] | None


class Pairs(NamedTuple):
    """What is given and what is wanted of the same series, row by row; `source` [w] is the number of the series."""

    given: IrregularSeries
    wanted: IrregularSeries
    source: NDArray[np.int64]


class ValueEstimator(Estimator):
    """Abstract. Values at any times, as a mixture of Gaussians; a subclass says where the mixture comes from."""

    n_samples: int
    random_state: int

    @abstractmethod
    def _mixture(self, series: IrregularSeries, clock: NDArray[np.float64], count: int) -> Mixture:
        """Return `count` components for series at times clock [n, Q], NaN = none, in the data's units."""

    @abstractmethod
    def _asked(self, X: SeriesLike, times: Times) -> tuple[IrregularSeries, NDArray[np.float64]]:
        """Return the series as the model reads them and the times [n, Q]; ValueError for those it cannot answer."""

    @abstractmethod
    def _judged(self, X: SeriesLike, y: Any) -> Pairs:
        """Return what `score` gives and what it wants to be told."""

    def _count(self) -> int:
        """Return how many components a prediction mixes."""
        return self.n_samples

    def predict(self, X: SeriesLike, times: Times = None) -> NDArray[np.float64]:
        """Return the expected values [n, Q, C] in the data's units.

        times: [Q], the same for all series; or [n, Q] or a list of n arrays, each series' own on its own clock (NaN, or
        a shorter array: none; the answer is NaN there). None: times that suggest themselves, see the class.
        """
        series, clock = self._asked(X, times)
        return self._mixture(series, clock, self._count()).centre()

    def predict_interval(
        self, X: SeriesLike, times: Times = None, coverage: float = 0.9
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (lower, upper), each [n, Q, C]: the central interval that holds a new reading with this probability.

        Noise draws, ensemble and the noise of a single reading are all in it. Each interval is for one reading alone,
        not for a whole path. Raises ValueError for coverage outside (0, 1).
        """
        if not 0 < coverage < 1:
            raise ValueError(f"coverage is {coverage}: give a probability in (0, 1)")
        mixture = self._mixture(*self._asked(X, times), self._count())
        return mixture.quantile(0.5 - coverage / 2), mixture.quantile(0.5 + coverage / 2)

    def sample(self, X: SeriesLike, times: Times = None, n: int = 100) -> NDArray[np.float64]:
        """Return n possible readings [n, n_series, Q, C], a Brownian path and observation noise each.

        Along one draw the path is common to all times; the noise of single readings is independent.
        """
        if n < 1:
            raise ValueError(f"n must be >= 1, got {n}")
        mixture = self._mixture(*self._asked(X, times), n)
        return mixture.sample([derive_seed(self.random_state, 6, k) for k in range(n)])

    def score(self, X: SeriesLike, y: SeriesLike | None = None) -> float:
        """Return R², the mean over channels of 1 - (squared errors) / (squared deviations from the channel's mean).

        y: the values to be told, series by series, as IrregularSeries with their times; None = the estimator sets a
        part of X aside, see the class. Channels that do not vary there do not count; ValueError if none does.
        """
        pairs = self._judged(X, y)
        truth, times = pairs.wanted.padded()
        errors = self.predict(pairs.given, times) - truth
        observed = ~np.isnan(truth)
        count = np.maximum(observed.sum((0, 1)), 1)
        centre = np.where(observed, truth, 0.0).sum((0, 1)) / count
        squares = np.where(observed, errors, 0.0) ** 2
        spread = (np.where(observed, truth - centre, 0.0) ** 2).sum((0, 1))
        varied = spread > 1e-24 * np.maximum(np.where(observed, truth, 0.0) ** 2, 0.0).sum((0, 1))
        if not varied.any():
            raise ValueError("no channel varies in what is to be predicted: R² has no meaning there")
        return float((1 - squares.sum((0, 1))[varied] / spread[varied]).mean())


def check_aligned(given: IrregularSeries, wanted: IrregularSeries) -> None:
    """ValueError unless `wanted`, what y says, has one entry of the same channels for each series that is given."""
    if len(wanted) != len(given) or wanted.channels != given.channels:
        raise ValueError(
            f"y has {len(wanted)} series of {wanted.channels} channels, X {len(given)} of {given.channels}: give the "
            "values that are to be told of each series, NaN where a channel was not read"
        )


def own_times(times: Any, count: int) -> NDArray[np.float64]:
    """Return times as [n, Q], NaN = none, from [Q], [n, Q] or a list of n arrays.

    Raises ValueError for another shape, infinities, or nothing asked for at all.
    """
    if isinstance(times, str) or not np.iterable(times):
        raise ValueError(f"times is {times!r}: give [Q], or [{count}, Q], or a list of {count} arrays")
    if isinstance(times, np.ndarray) and times.dtype != object:
        clock = np.asarray(numbers(times, "times"), dtype=np.float64)
        clock = np.tile(clock, (count, 1)) if clock.ndim == 1 else clock
    else:
        rows = [np.asarray(numbers(row, "times"), dtype=np.float64) for row in times]
        if rows and all(row.ndim == 0 for row in rows):
            return own_times(np.array(rows), count)
        clock = np.full((len(rows), max((row.size for row in rows), default=0)), np.nan)
        for place, row in zip(clock, rows, strict=True):
            if row.ndim != 1:
                raise ValueError(f"times hold an array of shape {row.shape}: give one axis for each series")
            place[: row.size] = row
    if clock.ndim != 2 or len(clock) != count:
        raise ValueError(f"times have shape {clock.shape}: give [Q], or [{count}, Q], or a list of {count} arrays")
    if not np.isfinite(clock).any() or np.isinf(clock).any():
        raise ValueError("times must be finite, NaN for none, and at least one must be asked for")
    return clock


def without_empty_points(series: IrregularSeries, ends: bool = False) -> IrregularSeries:
    """Return series without time points at which nothing was read; `ends` keeps the first and the last."""
    values, times = [], []
    for value, clock in zip(series.values, series.times, strict=True):
        kept = np.asarray(~np.isnan(value).all(axis=1))
        if ends:
            kept[[0, -1]] = True
        values.append(value[kept])
        times.append(clock[kept])
    return IrregularSeries(values, times, series.static)
