"""A long data frame (id, time, value columns) taken apart into series."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checks import is_missing, numbers

Parts = tuple[list[NDArray[np.float64]], list[NDArray[np.float64]], NDArray[Any] | None]


def series_from_frame(
    df: Any, id: str, time: str, values: str | Sequence[str], static: str | Sequence[str] | None
) -> Parts:
    """Split a long frame by ``id`` in order of first appearance, each part sorted by ``time``.

    Returns the values [L_i, channels] and times [L_i] of each series and static [n, features] or None.
    Errors are those of :meth:`IrregularSeries.from_frame`.
    """
    value_names, static_names = _names(values), _names(static)
    if not value_names:
        raise ValueError("values is empty: name at least one channel column")
    if not hasattr(df, "columns"):
        raise ValueError(f"df is a {type(df).__name__}: give a data frame")
    for name in (id, time, *value_names, *static_names):
        _check_column(df, name)
    if len(df[id]) == 0:
        raise ValueError("the frame has no rows: there is no series in it")
    ids, group = _groups(df[id].to_numpy())
    clock = _times(df[time].to_numpy(), time)
    table = np.stack([_channel(df[name].to_numpy(), name) for name in value_names], axis=1)
    order = np.lexsort((clock, group))
    group, clock, table = group[order], clock[order], table[order]
    _check_repeats(ids, group, clock)
    cuts = np.flatnonzero(np.diff(group)) + 1
    for name, rows in zip(ids, np.split(np.isnan(table).all(axis=1), cuts), strict=True):
        if rows.all():
            raise ValueError(f"series {name!r} has no reading at all, every value is NaN: remove it")
    columns = [_constant(df[name].to_numpy()[order], name, ids, cuts) for name in static_names]
    return np.split(table, cuts), np.split(clock, cuts), np.stack(columns, axis=1) if columns else None


def _names(names: str | Sequence[str] | None) -> list[str]:
    if names is None:
        return []
    return [names] if isinstance(names, str | int) else list(names)


def _check_column(df: Any, name: str) -> None:
    count = list(df.columns).count(name)
    if count > 1:
        raise ValueError(f"the frame has {count} columns called {name!r}: give each a name of its own")
    if not count:
        columns = [str(column) for column in df.columns]
        near = difflib.get_close_matches(str(name), columns, n=1)
        hint = f"did you mean {near[0]!r}?" if near and near[0] != str(name) else f"it has {', '.join(columns)}"
        if name in getattr(getattr(df, "index", None), "names", ()):
            hint = "it is in the index: call df.reset_index() first"
        raise ValueError(f"the frame has no column {name!r}: {hint}")


def _groups(ids: NDArray[Any]) -> tuple[list[Any], NDArray[np.int64]]:
    """Distinct ids in order of first appearance, and the position of each row's id among them."""
    place: dict[Any, int] = {}
    try:
        group = np.array([place.setdefault(name, len(place)) for name in _entries(ids)], dtype=np.int64)
    except TypeError as error:
        raise ValueError(f"the id column cannot tell series apart ({error}): give text or numbers") from error
    if any(is_missing(name) for name in place):
        raise ValueError("the id column has missing entries: remove those rows or give them an id")
    return list(place), group


def _entries(column: NDArray[Any]) -> list[Any]:
    """The entries as Python has them; dates as numpy has them, for Python would count their nanoseconds."""
    return list(column) if column.dtype.kind in "mM" else column.tolist()


def _times(times: NDArray[Any], name: str) -> NDArray[np.float64]:
    if times.dtype.kind in "mM" or (times.dtype == object and times.size and hasattr(times[0], "year")):
        raise ValueError(
            f"column {name!r} holds dates: turn them into numbers of a unit you choose, "
            f'e.g. (df["{name}"] - df["{name}"].min()).dt.total_seconds() / 3600'
        )
    clock = np.asarray(numbers(times, f"column {name!r}"), dtype=np.float64)
    if not np.isfinite(clock).all():
        raise ValueError(f"column {name!r} has missing or infinite times: remove those rows")
    return clock


def _channel(column: NDArray[Any], name: str) -> NDArray[np.float64]:
    """A channel's readings; objects as they are in nullable columns, NA among them, are numbers with NaN."""
    if column.dtype == object:
        column = np.array([np.nan if is_missing(entry) else entry for entry in column.tolist()], dtype=object)
    return np.asarray(numbers(column, f"column {name!r}"), dtype=np.float64)


def _check_repeats(ids: list[Any], group: NDArray[np.int64], clock: NDArray[np.float64]) -> None:
    repeats = np.flatnonzero((np.diff(group) == 0) & (np.diff(clock) == 0))
    if repeats.size:
        row = int(repeats[0])
        raise ValueError(
            f"series {ids[group[row]]!r} has two rows at time {clock[row]:g}: "
            "average them first, e.g. df.groupby([id, time]).mean()"
        )


def _constant(column: NDArray[Any], name: str, ids: list[Any], cuts: NDArray[np.int64]) -> NDArray[Any]:
    """One entry a series: numbers where all that is there are numbers, else text; None or NaN where it is missing."""
    plain = [None if is_missing(entry) else entry for entry in _entries(column)]
    numeric = all(entry is None or isinstance(entry, Real) for entry in plain)
    told = [entry if entry is None or numeric or isinstance(entry, str) else str(entry) for entry in plain]
    entries = np.array(told, dtype=np.float64 if numeric else object)
    parts = np.split(entries, cuts)
    for series, part in zip(ids, parts, strict=True):
        if not all(entry == part[0] or (entry != entry and part[0] != part[0]) for entry in part):
            raise ValueError(f"static column {name!r} changes within series {series!r}: make it a channel")
    return np.array([part[0] for part in parts], dtype=entries.dtype)
