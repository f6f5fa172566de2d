"""A long data frame (id, time, value columns) taken apart into series."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    for name in (id, time, *value_names, *static_names):
        _check_column(df, name)
    if len(df[id]) == 0:
        raise ValueError("the frame has no rows: there is no series in it")
    ids, group = _groups(df[id].to_numpy())
    clock = _times(df[time].to_numpy(), time)
    table = np.stack([_numbers(df[name].to_numpy(), name) for name in value_names], axis=1)
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
    return [names] if isinstance(names, str) else list(names)


def _check_column(df: Any, name: str) -> None:
    columns = [str(column) for column in df.columns]
    if name not in columns:
        near = difflib.get_close_matches(name, columns, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(columns)}"
        raise ValueError(f"the frame has no column {name!r}: {hint}")


def _groups(ids: NDArray[Any]) -> tuple[list[Any], NDArray[np.int64]]:
    """Distinct ids in order of first appearance, and the position of each row's id among them."""
    place: dict[Any, int] = {}
    group = np.array([place.setdefault(name, len(place)) for name in ids.tolist()], dtype=np.int64)
    if any(name is None or name != name for name in place):
        raise ValueError("the id column has missing entries: remove those rows or give them an id")
    return list(place), group


def _times(times: NDArray[Any], name: str) -> NDArray[np.float64]:
    if times.dtype.kind in "mM" or (times.dtype == object and times.size and hasattr(times[0], "year")):
        raise ValueError(
            f"column {name!r} holds dates: turn them into numbers of a unit you choose, "
            f'e.g. (df["{name}"] - df["{name}"].min()).dt.total_seconds() / 3600'
        )
    clock = _numbers(times, name)
    if not np.isfinite(clock).all():
        raise ValueError(f"column {name!r} has missing or infinite times: remove those rows")
    return clock


def _numbers(column: NDArray[Any], name: str) -> NDArray[np.float64]:
    try:
        return column.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {name!r} is not numeric: {error}") from error


def _check_repeats(ids: list[Any], group: NDArray[np.int64], clock: NDArray[np.float64]) -> None:
    repeats = np.flatnonzero((np.diff(group) == 0) & (np.diff(clock) == 0))
    if repeats.size:
        row = int(repeats[0])
        raise ValueError(
            f"series {ids[group[row]]!r} has two rows at time {clock[row]:g}: "
            "average them first, e.g. df.groupby([id, time]).mean()"
        )


def _constant(column: NDArray[Any], name: str, ids: list[Any], cuts: NDArray[np.int64]) -> NDArray[Any]:
    """One entry a series: numbers where the column is numeric, else text with None where it is missing."""
    numeric = column.dtype.kind in "biuf"
    entries = column.astype(np.float64) if numeric else np.array([_text(entry) for entry in column], dtype=object)
    parts = np.split(entries, cuts)
    for series, part in zip(ids, parts, strict=True):
        if not all(entry == part[0] or (entry != entry and part[0] != part[0]) for entry in part):
            raise ValueError(f"static column {name!r} changes within series {series!r}: make it a channel")
    return np.array([part[0] for part in parts], dtype=entries.dtype)


def _text(entry: Any) -> Any:
    missing = entry is None or entry != entry or type(entry).__name__ in ("NAType", "NaTType")
    return None if missing else entry if isinstance(entry, str) else str(entry)
