"""`IrregularInterpolator`: values at any time inside a series, given the others, with bands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciode.data import IrregularSeries, drop
from sciode.timeseries.estimator import SeriesLike, as_series, whole
from sciode.timeseries.regression import PathEstimator
from sciode.timeseries.values import Pairs, Times, check_aligned, own_times, without_empty_points
from sciode.training import derive_seed

_FEW = 5  # fewer series than this validate by readings of their own


@dataclass(kw_only=True, eq=False, repr=False)
class IrregularInterpolator(PathEstimator):
    """Interpolate irregular series by two stable neural SDEs, one that reads them forwards and one backwards.

    Training hides a part of the readings, whole time points and single readings in turn, and asks for them. Both
    states at a time, the straight line between the neighbouring readings and the distances to these are read as a
    Gaussian for each channel. Predictions mix noise draws and members, and validation corrects the width of the bands.

    Parameters: those of `SequenceEstimator`, and
    ----------
    hide: share of the readings hidden in training, in (0, 1). Good values: as much as will be missing in use.
    copies: how often each series is used, each time with other readings hidden.

    Series of which nothing can be hidden (one time point) teach nothing. With fewer than 5 series, hidden readings of
    each validate, which training never sees. `fit(X, y)` takes the hidden values as they are given, times inside their
    series. `score(X)` hides `hide` of the readings of X. `predict(X)` without times answers at the series' own times.
    Times must lie within the series' first and last ones.

    Attributes after `fit`: as of `IrregularForecaster`.
    """

    hidden: int = 32
    lr: float = 1e-2
    batch_size: int = 32
    hide: float = 0.3
    copies: int = 4

    both_ways = True

    def _options(self) -> Any:
        whole(self.copies, "copies", 1)
        if not 0 < self.hide < 1:
            raise ValueError(f"hide must be in (0, 1), got {self.hide!r}")
        return super()._options()

    def _pairs(self, series: IrregularSeries, y: Any, seed: int) -> Pairs:
        if y is not None:
            return self._inside(series, y)
        seeds = [derive_seed(self.random_state, 7, seed, copy) for copy in range(self.copies)]
        units = [unit for unit, _ in zip(["time", "reading"] * self.copies, seeds, strict=False)]
        return _together([hidden(series, self.hide, s, unit) for s, unit in zip(seeds, units, strict=True)])

    def _inside(self, series: IrregularSeries, y: Any) -> Pairs:
        given, wanted = without_empty_points(series, ends=True), as_series(y)
        check_aligned(given, wanted)
        _check_inside(given, wanted.padded()[1])
        return Pairs(given, wanted, np.arange(len(given)))

    def _parts(self, series: IrregularSeries, y: Any) -> tuple[Pairs, Pairs, IrregularSeries]:
        if len(series) < _FEW and y is None:
            held = hidden(series, self.validation_fraction, derive_seed(self.random_state, 8), "reading")
            return self._pairs(held.given, None, 0), held, held.given
        if y is not None:
            check_aligned(series, as_series(y))
        chosen = np.random.default_rng(self.random_state).permutation(len(series))
        count = max(round(len(series) * self.validation_fraction), 1)
        if count >= len(series):
            raise ValueError(f"{len(series)} series are too few to set some aside: pass validation=(X, y)")
        parts = []
        for seed, rows in enumerate((np.sort(chosen[count:]), np.sort(chosen[:count]))):
            parts.append(self._pairs(series[rows], None if y is None else as_series(y)[rows], seed))
        return parts[0], parts[1], series[np.sort(chosen[count:])]

    def _asked(self, X: SeriesLike, times: Times) -> tuple[IrregularSeries, NDArray[np.float64]]:
        known = self._known(X)
        series = without_empty_points(known, ends=True)
        if times is None:
            return series, known.padded()[1]
        clock = own_times(times, len(series))
        _check_inside(series, clock)
        return series, clock

    def _judged(self, X: SeriesLike, y: Any) -> Pairs:
        series = self._known(X)
        return self._inside(series, y) if y is not None else hidden(series, self.hide, self.random_state, "reading")

    def impute(self, X: SeriesLike) -> IrregularSeries:
        """Return the series with the expected value where a reading is missing; readings stay as they are."""
        series = as_series(X)
        expected = self.predict(series)
        filled = [
            np.where(np.isnan(value), own[: len(value)], value)
            for value, own in zip(series.values, expected, strict=True)
        ]
        return series.replace_values(filled)


def hidden(series: IrregularSeries, share: float, seed: int, unit: Any) -> Pairs:
    """Hide a share of the readings ("time": whole time points); those are wanted, the rest is given.

    Series of which nothing could be hidden are left out; ValueError if that leaves none.
    """
    # A seed of its own: `drop` of the same seed, which may have made the gaps, would pick the gaps again.
    rest = drop(series, share, derive_seed(seed, 9), unit)
    values, times, kept = [], [], []
    for number, (value, left, clock) in enumerate(zip(series.values, rest.values, series.times, strict=True)):
        lost = np.isnan(left) & ~np.isnan(value)
        rows = lost.any(axis=1)
        if rows.any():
            kept.append(number)
            values.append(np.where(lost, value, np.nan)[rows])
            times.append(clock[rows])
    if not kept:
        raise ValueError("no series is long enough to hide a part of it: give longer series, or a larger share to hide")
    return Pairs(without_empty_points(rest[kept], ends=True), IrregularSeries(values, times), np.array(kept))


def _together(parts: list[Pairs]) -> Pairs:
    def joined(series: list[IrregularSeries]) -> IrregularSeries:
        static = None if series[0].static is None else np.concatenate([s.static for s in series])  # type: ignore[misc]
        return IrregularSeries([v for s in series for v in s.values], [t for s in series for t in s.times], static)

    source = np.concatenate([part.source for part in parts])
    return Pairs(joined([part.given for part in parts]), joined([part.wanted for part in parts]), source)


def _check_inside(series: IrregularSeries, clock: NDArray[np.float64]) -> None:
    for number, (own, asked) in enumerate(zip(series.times, clock, strict=True)):
        if (asked < own[0]).any() or (asked > own[-1]).any():
            raise ValueError(
                f"series {number} spans {own[0]:g} to {own[-1]:g} and times ask for {np.nanmin(asked):g} to "
                f"{np.nanmax(asked):g}: for times after its end use IrregularForecaster"
            )
