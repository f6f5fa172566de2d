"""What a collection of series must satisfy; every refusal names the series and the mend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only copy, row-major."""
    copy = np.array(array, order="C")
    copy.flags.writeable = False
    return copy


def is_missing(entry: Any) -> bool:
    """Whether a scalar says that there is nothing: None, NaN, NaT, pandas' NA (which even refuses to be compared)."""
    return entry is None or type(entry).__name__ in ("NAType", "NaTType") or bool(entry != entry)


def numbers(array: ArrayLike, what: str) -> NDArray[Any]:
    """The array as float32, if it is that, or float64; what a masked array masks is NaN.

    Raises ValueError for what is no number: text, dates and spans of time (whose unit would be that of their storage),
    complex numbers (whose imaginary part would be lost).
    """
    try:
        found = np.asarray(array)
        if found.dtype.kind in "mM" or (found.dtype == object and found.size and hasattr(found.flat[0], "year")):
            raise ValueError("it holds dates: subtract an origin and divide by a unit you choose")
        if found.dtype.kind == "c":
            raise ValueError("it holds complex numbers: give real and imaginary part as two channels")
        found = found if found.dtype == np.float32 else found.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} is not numeric: {error}") from error
    return np.where(np.ma.getmaskarray(array), np.nan, found) if np.ma.isMaskedArray(array) else found


def checked_labels(labels: Any, what: str) -> NDArray[Any]:
    """The labels as an array; ValueError for missing ones, and for kinds that have no common order."""
    found = np.asarray(labels)
    # A list of text and NaN is an array of text, in which NaN is a class of that name.
    entries = found if isinstance(labels, np.ndarray) else np.asarray(labels, dtype=object)
    if entries.dtype.kind in "fcmM":
        missing = bool((entries != entries).any())
    else:
        missing = entries.dtype.kind == "O" and any(is_missing(entry) for entry in entries.ravel().tolist())
    if missing or (found.dtype.kind == "f" and np.isinf(found).any()):
        raise ValueError(f"{what} holds NaN, infinite or missing labels: remove those series")
    try:
        np.unique(found)
    except TypeError as error:
        raise ValueError(f"{what} holds labels without a common order ({error}): turn all into text") from error
    return found


def checked_values(values: Sequence[ArrayLike] | NDArray[Any]) -> list[NDArray[Any]]:
    """The values as arrays [L_i, channels] of float32 or float64, all of one number of channels."""
    if isinstance(values, np.ndarray) and values.ndim != 3 and values.dtype != object:
        raise ValueError(f"values has shape {values.shape}: give [n, length, channels] or a list of [length, channels]")
    checked = [numbers(value, f"series {i}") for i, value in enumerate(values)]
    if not checked:
        raise ValueError("there is no series: give at least one")
    for i, value in enumerate(checked):
        if value.ndim != 2:
            raise ValueError(f"series {i} has shape {value.shape}: give [length, channels], x[:, None] for one channel")
        if value.shape[1] != checked[0].shape[1]:
            raise ValueError(
                f"series {i} has {value.shape[1]} channels and series 0 has {checked[0].shape[1]}: "
                "every series needs the same channels, with NaN where one was not measured"
            )
    return checked


def clocks(times: Sequence[ArrayLike] | NDArray[Any] | None, lengths: list[int]) -> list[NDArray[np.float64]]:
    """One array of times [L_i] a series: an index where none is given, without the NaN that pads a common array."""
    if times is None:
        return [np.arange(n, dtype=np.float64) for n in lengths]
    if isinstance(times, np.ndarray) and times.ndim == 1 and times.dtype != object:
        times = [times] * len(lengths)
    if len(times) != len(lengths):
        raise ValueError(f"there are {len(times)} time arrays and {len(lengths)} series: give one for each series")
    own = [np.asarray(numbers(clock, f"times of series {i}"), dtype=np.float64) for i, clock in enumerate(times)]
    for i, (clock, n) in enumerate(zip(own, lengths, strict=True)):
        if clock.shape != (n,):
            raise ValueError(
                f"series {i} has {n} points and times of shape {clock.shape}: give one time for each point"
            )
    return [_without_padding(clock) for clock in own] if isinstance(times, np.ndarray) else own


def _without_padding(clock: NDArray[np.float64]) -> NDArray[np.float64]:
    observed = np.flatnonzero(~np.isnan(clock))
    return clock[: observed[-1] + 1] if observed.size else clock[:0]


def check_series(i: int, value: NDArray[Any], clock: NDArray[np.float64]) -> None:
    """Refuse what no model can use: nothing observed, infinities, a clock that does not advance."""
    if value.size == 0:
        raise ValueError(f"series {i} is empty: remove it")
    if np.isinf(value).any():
        raise ValueError(f"series {i} has infinite values: write NaN where a reading is missing")
    if np.isnan(value).all():
        raise ValueError(f"series {i} has no reading at all, every value is NaN: remove it")
    if not np.isfinite(clock).all():
        raise ValueError(f"times of series {i} are not finite: remove those points")
    with np.errstate(over="ignore"):
        span = clock[-1] - clock[0]
    if not np.isfinite(span):
        raise ValueError(f"times of series {i} go from {clock[0]:g} to {clock[-1]:g}: choose a larger unit")
    steps = np.diff(clock)
    if (steps <= 0).any():
        at = int(np.argmax(steps <= 0)) + 1
        kind = "repeats" if steps[at - 1] == 0 else "goes back"
        raise ValueError(
            f"times of series {i}: point {at} (t = {clock[at]:g}) {kind}: times must increase strictly; "
            "sort them, and average readings taken at the same time"
        )


def checked_static(static: ArrayLike | None, n: int) -> NDArray[Any] | None:
    """The static features as a read-only table [n, features], or None: float64, or object where a column holds text."""
    if static is None:
        return None
    raw = np.asarray(static)
    text = raw.dtype.kind in "OUS"
    table = _mixed(np.asarray(static, dtype=object)) if text else numbers(static, "static").astype(np.float64)
    if table.ndim != 2 or table.shape[0] != n:
        raise ValueError(f"static has shape {table.shape}: give [{n}, features], one row for each series")
    if table.dtype != object and np.isinf(table).any():
        raise ValueError("static has infinite values: write NaN where a feature is missing")
    return frozen(table)


def _mixed(table: NDArray[Any]) -> NDArray[Any]:
    """Entries as text or float, None as NaN; a float table if no text is left."""
    entries = [value if isinstance(value, str) else _number(value) for value in table.ravel().tolist()]
    mixed = np.empty(len(entries), dtype=object)
    mixed[:] = entries
    plain = not any(isinstance(value, str) for value in entries)
    return (mixed.astype(np.float64) if plain else mixed).reshape(table.shape)


def _number(value: Any) -> float:
    try:
        number = float("nan") if is_missing(value) else float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"static holds {value!r}: give numbers, text, or None where a feature is missing") from error
    if np.isinf(number):
        raise ValueError("static has infinite values: write NaN where a feature is missing")
    return number


def same_table(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    """Whether two static tables hold the same, NaN equal to NaN."""
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and all(
        a == b or (a != a and b != b) for a, b in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True)
    )
