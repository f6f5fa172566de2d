"""Random dropping: how much of a series may be lost before a model fails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .series import IrregularSeries


def drop(
    series: IrregularSeries,
    rate: float,
    seed: int,
    unit: Literal["time", "reading"] = "reading",
    index: Sequence[int] | NDArray[np.integer] | None = None,
) -> IrregularSeries:
    """Set floor(L * rate) random positions of each series to NaN; the clock stays.

    ``unit="time"`` loses whole time points: the same positions in all channels (the stand-alone torch-ists of Oh, Lim
    and Kim, ICLR 2024). ``unit="reading"`` draws positions for each channel on its own (the copy inside their
    Stable-Neural-SDEs). Positions are drawn among all L points, so on data that already has gaps a drawn point may
    be one that was missing before.

    Nothing is lost entirely: a series keeps a time point with a reading, and with ``unit="reading"`` a channel that
    had a reading keeps one. Where the draw would take the last, the reading drawn last stays.

    Args:
        series: the collection; it is not changed.
        rate: share to drop, in [0, 1). The paper's table has 0, 0.3, 0.5 and 0.7.
        seed: a non-negative int. What series i loses is a function of (seed, identity of i) alone.
        unit: "time" or "reading".
        index: the identity of each series, [n] non-negative ints; None = 0 .. n - 1. With it, a subset or a
            permutation loses what it would have lost in the whole:
            ``drop(series[rows], rate, seed, unit, index=rows) == drop(series, rate, seed, unit)[rows]``.

    Raises:
        ValueError: rate outside [0, 1), negative seed, unknown unit, index of another length.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate is {rate}: give the share to drop, 0 <= rate < 1")
    if seed < 0:
        raise ValueError(f"seed is {seed}: give a non-negative int")
    if unit not in ("time", "reading"):
        raise ValueError(f"unit is {unit!r}: give 'time' (whole time points) or 'reading' (single readings)")
    identity = list(range(len(series)) if index is None else index)
    if len(identity) != len(series):
        raise ValueError(f"index has {len(identity)} entries and there are {len(series)} series: give one for each")
    lossy = _drop_times if unit == "time" else _drop_readings
    return series.replace_values(
        [
            lossy(value, rate, np.random.default_rng([seed, int(i)]))
            for value, i in zip(series.values, identity, strict=True)
        ]
    )


def _drop_times(value: NDArray[np.floating], rate: float, rng: np.random.Generator) -> NDArray[np.floating]:
    kept = value.copy()
    kept[_lost(np.asarray(~np.isnan(value).all(axis=1)), rate, rng)] = np.nan
    return kept


def _drop_readings(value: NDArray[np.floating], rate: float, rng: np.random.Generator) -> NDArray[np.floating]:
    kept = value.copy()
    for channel in range(value.shape[1]):
        kept[_lost(~np.isnan(value[:, channel]), rate, rng), channel] = np.nan
    return kept


def _lost(observed: NDArray[np.bool_], rate: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """floor(L * rate) random positions, less the one needed to keep something observed."""
    # The slack makes 100 * 0.29 (28.999999999999996 in binary) mean 29.
    count = min(math.floor(observed.size * rate + 1e-9), observed.size - 1)
    lost = rng.permutation(observed.size)[:count]
    readings = np.flatnonzero(observed[lost])
    if readings.size and readings.size == observed.sum():
        lost = np.delete(lost, readings[-1])
    return lost
