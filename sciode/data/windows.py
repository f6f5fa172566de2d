"""Histories and the futures that follow them: what a forecaster learns from and is judged by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .masks import drop
from .series import IrregularSeries
from .splits import in_order
from .store import get


@dataclass(frozen=True)
class Windows:
    """w pairs: `history` ends where `future` begins, on the series' own clock; `source` [w] is the series' number.

    No reading is in both: what is learnt from `history` cannot have seen `future`.
    """

    history: IrregularSeries
    future: IrregularSeries
    source: NDArray[np.int64]

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> Windows:
        """Choose windows as series are chosen."""
        return Windows(self.history[rows], self.future[rows], self.source[rows])


def windows(
    series: IrregularSeries,
    history: int | None,
    horizon: int,
    stride: int = 1,
    shortest: int | None = None,
    last: bool = False,
) -> Windows:
    """Cut every series into (history, future) pairs, `stride` time points apart, counted from the series' end.

    Args:
        series: the collection. Windows without a reading in their history or in their future are left out.
        history: the most time points a history has; None = all that went before.
        horizon: time points of a future.
        stride: time points from one cut to the next.
        shortest: the fewest time points a history has; None = `history` (only whole windows), or 1 where that is None.
        last: only the last cut of each series.

    Raises:
        ValueError: numbers below 1, or no series long enough for one window.
    """
    fewest = shortest if shortest is not None else (history or 1)
    if min(horizon, stride, fewest, 1 if history is None else history) < 1:
        raise ValueError("history, horizon, stride and shortest must be >= 1")
    pasts, futures, source = [], [], []
    for number, (value, clock) in enumerate(zip(series.values, series.times, strict=True)):
        cuts = range(len(clock) - horizon, fewest - 1, -stride)
        for cut in reversed(cuts[:1] if last else cuts):
            begin = 0 if history is None else max(cut - history, 0)
            past, future = slice(begin, cut), slice(cut, cut + horizon)
            if np.isnan(value[past]).all() or np.isnan(value[future]).all():
                continue
            pasts.append((value[past], clock[past]))
            futures.append((value[future], clock[future]))
            source.append(number)
    if not pasts:
        raise ValueError(
            f"no series has a reading in {fewest} time points and in the {horizon} that follow: "
            "give a shorter horizon or history, or longer series"
        )
    where = np.array(source)
    static = None if series.static is None else series.static[where]
    given = IrregularSeries([value for value, _ in pasts], [clock for _, clock in pasts], static)
    return Windows(given, IrregularSeries([v for v, _ in futures], [clock for _, clock in futures]), where)


def hopper(
    rate: float = 0.0, seed: int = 56789, unit: Literal["time", "reading"] = "time"
) -> tuple[Windows, Windows, Windows]:
    """Return the training, validation and test windows of the MuJoCo hopper benchmark (arXiv 2402.14989).

    50 time points, of which a share is lost, and the 10 that follow, complete; stride 1; the 100 runs are split
    70/15/15 in their order, so no run is in two parts. 41 windows a run: the authors' code leaves the last one out.

    Args:
        rate, seed, unit: of :func:`sciode.data.drop`, for the histories. The authors lose whole time points.

    Raises:
        ValueError: of :func:`sciode.data.drop`. ConnectionError: the set is not here and no source answered.
    """
    runs = IrregularSeries(np.load(get("hopper")))
    cut = windows(runs, history=50, horizon=10)
    lossy = replace(cut, history=drop(cut.history, rate, seed, unit))
    parts = in_order(len(runs))
    train, validation, test = (
        lossy[np.flatnonzero(np.isin(cut.source, rows))] for rows in (parts.train, parts.validation, parts.test)
    )
    return train, validation, test
