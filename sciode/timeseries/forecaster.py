"""`IrregularForecaster`: values after a series' end, with bands, from what went before and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciode.data import IrregularSeries, windows
from sciode.timeseries.controls import FARTHEST
from sciode.timeseries.estimator import SeriesLike, as_series, whole
from sciode.timeseries.regression import PathEstimator
from sciode.timeseries.values import Pairs, Times, check_aligned, own_times, without_empty_points

_WINDOWS = 2048  # about as many training windows does a fit make by itself
_FEW = 5  # fewer series than this are split by time


@dataclass(kw_only=True, eq=False, repr=False)
class IrregularForecaster(PathEstimator):
    """Forecast irregular series by a stable neural SDE that follows their past and then goes on alone.

    Training cuts each series at many places into a history and the `ahead` time points that follow. The model sees the
    history alone: standardised, joined to a causal path that stays constant after its last reading. Its state at any
    later time is read as a Gaussian for each channel. Predictions mix noise draws and ensemble members, and validation
    corrects the width of the bands. There is no look-ahead: what comes after a cut enters the loss and nothing else.

    Parameters: those of `SequenceEstimator`, and
    ----------
    ahead: time points of the future to learn, and that `score` sets aside. Later times can be asked for, untaught.
    history: the most time points of the past that are read, in training and prediction; None = all.
    shortest: the fewest time points of the past in training.
    stride: time points between the cuts of one series; None: so that there are about 2000 in all.

    `fit(X)` leaves out series of fewer than `shortest + ahead` time points. With fewer than 5 series the last windows
    of each validate, and what trains ends before they begin. `fit(X, y)` takes futures as they are given. `score(X)`
    forecasts the last `ahead` time points of every series longer than that from the points before. `predict(X)` without
    times goes on with each series' own median time step, `ahead` times. Times must lie after the series' last reading.

    Attributes after `fit`: `n_channels_in_`, `standardizer_`, `covariates_`, `grid_`, `models_`, `histories_`,
    `calibration_` [C], the validation's correction of the standard deviations.
    """

    hidden: int = 32
    lr: float = 1e-2
    ahead: int = 10
    history: int | None = 100
    shortest: int = 2
    stride: int | None = None

    def _options(self) -> Any:
        for name in ("ahead", "shortest"):
            whole(getattr(self, name), name, 1)
        for name in ("history", "stride"):
            whole(getattr(self, name), name, 1, may_be_none=True)
        return super()._options()

    def _cut(self, series: IrregularSeries) -> Pairs:
        """Cut training windows."""
        shortest = self.shortest if self.history is None else min(self.shortest, self.history)
        cuts = int(np.maximum(series.lengths - self.ahead - shortest + 1, 0).sum())
        stride = self.stride or max(math.ceil(cuts / _WINDOWS), 1)
        found = windows(series, self.history, self.ahead, stride, shortest)
        return Pairs(without_empty_points(found.history), found.future, found.source)

    def _pairs(self, series: IrregularSeries, y: Any, seed: int) -> Pairs:
        return self._cut(series) if y is None else self._following(series, y)

    def _following(self, series: IrregularSeries, y: Any) -> Pairs:
        """Check that futures y follow their series."""
        given, wanted = self._past(series), as_series(y)
        check_aligned(given, wanted)
        for number, (past, future) in enumerate(zip(given.times, wanted.times, strict=True)):
            if future[0] <= past[-1]:
                raise ValueError(f"y of series {number} begins at {future[0]:g}, before its last reading {past[-1]:g}")
        return Pairs(given, wanted, np.arange(len(given)))

    def _past(self, series: IrregularSeries) -> IrregularSeries:
        """Return the part of series that is read: the last `history` time points with a reading."""
        read = without_empty_points(series)
        if self.history is None or int(read.lengths.max()) <= self.history:
            return read
        values = [value[-self.history :] for value in read.values]
        return IrregularSeries(values, [clock[-self.history :] for clock in read.times], read.static)

    def _parts(self, series: IrregularSeries, y: Any) -> tuple[Pairs, Pairs, IrregularSeries]:
        pairs = self._pairs(series, y, 0)
        sources = np.unique(pairs.source)
        if len(sources) < _FEW:
            return self._in_time(series, pairs)
        chosen = np.random.default_rng(self.random_state).permutation(sources)
        held = chosen[: max(round(len(sources) * self.validation_fraction), 1)]
        rows = np.isin(pairs.source, held)
        seen = series[np.setdiff1d(np.arange(len(series)), held)]
        train, held_pairs = _rows(pairs, ~rows), _rows(pairs, rows)
        if y is not None:
            seen = _one_after_another(train)
        return train, held_pairs, seen

    def _in_time(self, series: IrregularSeries, pairs: Pairs) -> tuple[Pairs, Pairs, IrregularSeries]:
        """Let the last windows of each series validate and those whose future ends before them train."""
        train, held = np.zeros(len(pairs.source), bool), np.zeros(len(pairs.source), bool)
        for number in np.unique(pairs.source):
            mine = np.flatnonzero(pairs.source == number)
            count = max(round(len(mine) * self.validation_fraction), 1)
            begins = pairs.wanted.times[mine[-count]][0]
            held[mine[-count:]] = True
            train[[k for k in mine[:-count] if pairs.wanted.times[k][-1] < begins]] = True
        if not train.any():
            raise ValueError(
                f"{len(series)} series are too few and too short to set some aside: give longer ones, a shorter "
                "`ahead`, or validation="
            )
        kept = _rows(pairs, train)
        last = {int(s): kept.wanted.times[k][-1] for k, s in enumerate(kept.source)}
        cut = [(s, series.times[s] <= end) for s, end in last.items()]
        static = None if series.static is None else series.static[list(last)]
        seen = IrregularSeries(
            [series.values[s][rows] for s, rows in cut], [series.times[s][rows] for s, rows in cut], static
        )
        return kept, _rows(pairs, held), seen

    def _asked(self, X: SeriesLike, times: Times) -> tuple[IrregularSeries, NDArray[np.float64]]:
        series = self._past(self._known(X))
        if times is None:
            return series, next_times(series, self.ahead, self.grid_.duration / self.grid_.steps)
        clock = own_times(times, len(series))
        for number, (past, asked) in enumerate(zip(series.times, clock, strict=True)):
            if (asked <= past[-1]).any():
                raise ValueError(
                    f"series {number} is read up to {past[-1]:g} and times ask for {np.nanmin(asked):g}: a forecaster "
                    "tells what comes after; for times inside a series use IrregularInterpolator"
                )
            if np.nanmax(asked, initial=past[-1]) - past[0] > FARTHEST * self.grid_.duration:
                raise ValueError(
                    f"series {number}: times ask for {np.nanmax(asked):g}, over {FARTHEST} times as far from its "
                    f"start as training went ({self.grid_.duration:g}): are they in the unit of the series?"
                )
        return series, clock

    def _judged(self, X: SeriesLike, y: Any) -> Pairs:
        series = self._known(X)
        return self._following(series, y) if y is not None else last_cut(series, self.ahead)


def last_cut(series: IrregularSeries, ahead: int) -> Pairs:
    """Return each series without its last `ahead` time points, and these."""
    found = windows(series, None, ahead, last=True)
    return Pairs(found.history, found.future, found.source)


def next_times(series: IrregularSeries, ahead: int, step: float) -> NDArray[np.float64]:
    """Return `ahead` times after each series' end, its own median time step apart (`step` if it has one point)."""
    steps = [float(np.median(np.diff(clock))) if len(clock) > 1 else step for clock in series.times]
    ends = np.array([clock[-1] for clock in series.times])
    return ends[:, None] + np.array(steps)[:, None] * np.arange(1, ahead + 1, dtype=np.float64)


def _rows(pairs: Pairs, rows: NDArray[np.bool_]) -> Pairs:
    return Pairs(pairs.given[rows], pairs.wanted[rows], pairs.source[rows])


def _one_after_another(pairs: Pairs) -> IrregularSeries:
    """Return histories and futures joined."""
    both = zip(pairs.given.values, pairs.wanted.values, strict=True)
    clocks = zip(pairs.given.times, pairs.wanted.times, strict=True)
    return IrregularSeries(
        [np.concatenate(pair) for pair in both], [np.concatenate(pair) for pair in clocks], pairs.given.static
    )
