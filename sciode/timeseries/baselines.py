"""What any forecaster or interpolator must beat, with the same methods: means, last values, lines, linear guesses."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from sciode.data import IrregularSeries, Standardizer
from sciode.timeseries.estimator import SeriesLike, as_series, regressor_tags, whole
from sciode.timeseries.forecaster import last_cut, next_times
from sciode.timeseries.interpolator import hidden
from sciode.timeseries.linear import LinearStep
from sciode.timeseries.mixture import Mixture
from sciode.timeseries.surroundings import Surroundings, surroundings
from sciode.timeseries.values import Pairs, Times, ValueEstimator, check_aligned, own_times, without_empty_points

_HELD = 6  # every sixth series chooses the ridge
Task = Literal["forecast", "interpolate"]


@dataclass(kw_only=True, eq=False, repr=False)
class Baseline(ValueEstimator):
    """Abstract. One Gaussian for every channel: a simple value, and the size of its errors in training.

    task: "forecast" or "interpolate", which says what `score` sets aside and `predict` without times answers.
    ahead, hide: as of `IrregularForecaster` and `IrregularInterpolator`. n_samples: not used. random_state: of `hide`
    and `sample`.
    """

    task: Task = "forecast"
    ahead: int = 10
    hide: float = 0.3
    n_samples: int = 1
    random_state: int = 0

    def _learn(self, pairs: Pairs, validation: Any) -> None:
        """Learn more than means; most baselines do not."""

    @abstractmethod
    def _value(self, series: IrregularSeries, clock: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the value [n, Q, C]."""

    def fit(self, X: SeriesLike, y: Any = None, validation: Any = None) -> Self:
        """Learn the channels' means and the size of the errors from series X, and return self.

        validation: series, or (X, y), of use to `LinearGuess` alone.
        """
        if self.task not in ("forecast", "interpolate"):
            raise ValueError(f'task is {self.task!r}: give "forecast" or "interpolate"')
        for name, least in (("ahead", 1), ("n_samples", 1), ("random_state", 0)):
            whole(getattr(self, name), name, least)
        series = as_series(X)
        self.standardizer_ = Standardizer.fit(series)
        self.n_channels_in_ = series.channels
        pairs = self._judged(series, y)
        self._learn(pairs, validation)
        truth, clock = pairs.wanted.padded()
        errors = self._value(without_empty_points(pairs.given), clock) - truth
        told = ~np.isnan(errors)
        square = np.where(told, errors, 0.0) ** 2
        size = np.sqrt(square.sum((0, 1)) / np.maximum(told.sum((0, 1)), 1))
        scale = np.array(self.standardizer_.scale)
        self.sigma_ = np.where(told.any((0, 1)), np.maximum(size, 1e-9 * scale), scale)
        return self

    def _mixture(self, series: IrregularSeries, clock: NDArray[np.float64], count: int) -> Mixture:
        value = np.where(np.isnan(clock)[..., None], np.nan, self._value(series, clock))
        mean = np.repeat(value[None], count, axis=0)
        return Mixture(mean, np.broadcast_to(self.sigma_, mean.shape))

    def _known(self, X: SeriesLike) -> IrregularSeries:
        if not hasattr(self, "standardizer_"):
            raise ValueError(f"this {type(self).__name__} is not fitted: call fit first")
        series = as_series(X)
        if series.channels != self.n_channels_in_:
            raise ValueError(f"X has {series.channels} channels, the baseline was fitted on {self.n_channels_in_}")
        return series

    def _asked(self, X: SeriesLike, times: Times) -> tuple[IrregularSeries, NDArray[np.float64]]:
        known = self._known(X)
        series = without_empty_points(known)
        if times is not None:
            return series, own_times(times, len(series))
        return series, next_times(series, self.ahead, 1.0) if self.task == "forecast" else known.padded()[1]

    def _judged(self, X: SeriesLike, y: Any) -> Pairs:
        series = as_series(X)
        if y is not None:
            check_aligned(series, as_series(y))
            return Pairs(series, as_series(y), np.arange(len(series)))
        if self.task == "forecast":
            return last_cut(series, self.ahead)
        return hidden(series, self.hide, self.random_state, "reading")

    def __sklearn_tags__(self) -> Any:
        return regressor_tags()


@dataclass(kw_only=True, eq=False, repr=False)
class LastValue(Baseline):
    """The channel's last reading at or before the time asked for; the mean over training where there is none.

    Its band is Gaussian, as wide as the errors in training were. Parameters: see `Baseline`.
    """

    def _value(self, series: IrregularSeries, clock: NDArray[np.float64]) -> NDArray[np.float64]:
        found = []
        for value, own, asked in zip(series.values, series.times, clock, strict=True):
            place = np.where(np.isnan(value), -1, np.arange(len(own))[:, None])
            last = np.maximum.accumulate(np.concatenate([np.full((1, series.channels), -1), place]))
            row = last[np.searchsorted(own, np.nan_to_num(asked), side="right")]
            read = np.take_along_axis(value, np.maximum(row, 0), axis=0)
            found.append(np.where(row >= 0, read, np.array(self.standardizer_.mean)))
        return np.stack(found)


@dataclass(kw_only=True, eq=False, repr=False)
class ChannelMean(Baseline):
    """The channel's mean over the training series, whatever the series and the time. Parameters: see `Baseline`."""

    def _value(self, series: IrregularSeries, clock: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.broadcast_to(np.array(self.standardizer_.mean), (*clock.shape, series.channels)).copy()


@dataclass(kw_only=True, eq=False, repr=False)
class StraightLine(Baseline):
    """The straight line between the channel's readings before and after the time asked for; for task "interpolate".

    Where there are readings on one side only the nearest, where there is none the mean over training. Parameters: see
    `Baseline`; in a forecast the line is the last reading.
    """

    task: Task = "interpolate"

    def _value(self, series: IrregularSeries, clock: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.empty((*clock.shape, series.channels))
        for i, (value, own, asked) in enumerate(zip(series.values, series.times, np.nan_to_num(clock), strict=True)):
            for channel, mean in enumerate(self.standardizer_.mean):
                read = ~np.isnan(value[:, channel])
                found[i, :, channel] = np.interp(asked, own[read], value[read, channel]) if read.any() else mean
        return found


@dataclass(kw_only=True, eq=False, repr=False)
class LinearGuess(Baseline):
    """One Euler step of a linear equation from the nearest readings, learnt by least squares (see `LinearStep`).

    What the channels linearly say of one another; every sixth series chooses the ridge if no validation is given.
    Parameters: see `Baseline`.
    """

    def _learn(self, pairs: Pairs, validation: Any) -> None:
        self.reach_ = max(
            float(max(told[-1], own[-1]) - own[0])
            for told, own in zip(pairs.wanted.times, pairs.given.times, strict=True)
        )
        if validation is None:
            rows = np.arange(len(pairs.source))
            held = rows[::_HELD] if len(rows) >= _HELD else rows
            train = np.setdiff1d(rows, held) if len(rows) >= _HELD else rows
            parts = [(pairs.given[mine], pairs.wanted[mine]) for mine in (train, held)]
        else:
            other: Any = validation if isinstance(validation, tuple) else (validation, None)
            judged = self._judged(*other)
            parts = [(pairs.given, pairs.wanted), (judged.given, judged.wanted)]
        told = []
        for given, wanted in parts:
            target, clock = self.standardizer_.transform(wanted).padded()
            told.append((self._near(without_empty_points(given), clock), torch.from_numpy(target)))
        self.step_ = LinearStep.fit(*told)

    def _near(self, series: IrregularSeries, clock: NDArray[np.float64]) -> Surroundings:
        values, times = self.standardizer_.transform(series).padded()
        start = times[:, :1]
        own, asked = (torch.from_numpy((x - start) / self.reach_) for x in (times, clock))
        return surroundings(torch.from_numpy(values), own, asked, 1.0)

    def _value(self, series: IrregularSeries, clock: NDArray[np.float64]) -> NDArray[np.float64]:
        guess = self.step_(self._near(series, clock)).double().numpy()
        return guess * np.array(self.standardizer_.scale) + np.array(self.standardizer_.mean)
