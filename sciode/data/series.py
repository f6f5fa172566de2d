"""Series on their own clocks: the one container every model of irregular time series takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from .checks import check_series, checked_static, checked_values, clocks, frozen, same_table
from .frames import series_from_frame

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Key = SupportsIndex | slice | NDArray[Any] | Sequence[Any] | EllipsisType


@dataclass(frozen=True, init=False, eq=False, repr=False)
class IrregularSeries:
    """A collection of n series, each with its own length and its own times; NaN marks a reading that is missing.

    Series i is the pair (times[i] [L_i], values[i] [L_i, channels]). The arrays are copied and read-only, so a
    collection can be shared without fear.

    Args:
        values: n arrays [L_i, channels], or one array [n, L, channels]. float32 is kept, anything else becomes float64.
            NaN, or masked in a masked array = missing; one point a series is allowed; infinities are refused.
        times: n arrays [L_i] of float64, strictly increasing, in any unit the user likes (the same for all series),
            numbers and not dates; or one array [n, L], whose NaN end is padding and is cut off; or [L], shared by all;
            or None: 0 .. L_i - 1.
        static: [n, features], what does not change in time (age, sex, ...): numbers, or text for categories (an object
            array may hold columns of both). NaN or None = missing. None if there is nothing.

    Raises:
        ValueError: no series at all, an empty series, a series without a single reading, unequal channel counts,
            infinite values, times that are not finite and strictly increasing, lengths that disagree. The message
            names the series and the mend.
    """

    values: tuple[NDArray[np.floating], ...]
    times: tuple[NDArray[np.float64], ...]
    static: NDArray[Any] | None

    def __init__(
        self,
        values: Sequence[ArrayLike] | NDArray[Any],
        times: Sequence[ArrayLike] | NDArray[Any] | None = None,
        static: ArrayLike | None = None,
    ) -> None:
        checked = checked_values(values)
        own = clocks(times, [len(v) for v in checked])
        lengths = [len(clock) for clock in own]
        trimmed = tuple(frozen(v[:n]) for v, n in zip(checked, lengths, strict=True))
        for i, (value, clock) in enumerate(zip(trimmed, own, strict=True)):
            check_series(i, value, clock)
        self._assign(trimmed, tuple(frozen(clock) for clock in own), checked_static(static, len(trimmed)))

    def _assign(self, values: tuple[Any, ...], times: tuple[Any, ...], static: NDArray[Any] | None) -> None:
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "static", static)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up what pickle or `copy.deepcopy` kept: read-only again, which neither of them knows of."""
        self._assign(**state)
        for array in (*self.values, *self.times, *(() if self.static is None else (self.static,))):
            array.flags.writeable = False

    @classmethod
    def from_frame(
        cls, df: Any, id: str, time: str, values: str | Sequence[str], static: str | Sequence[str] | None = None
    ) -> IrregularSeries:
        """Read a long data frame: one row a reading time, one column a channel.

        Series come in the order in which their ids first appear, so that
        ``df.groupby(id, sort=False)["label"].first()`` is aligned with them; rows of a series may be in any order.

        Args:
            df: a pandas data frame (anything with ``columns`` and ``df[name].to_numpy()``).
            id: the column that says which series a row belongs to.
            time: the column of times: numbers, not dates.
            values: the channel column(s). NaN = missing.
            static: column(s) constant in each series, numbers or text (categories).

        Raises:
            ValueError: an unknown column (with the nearest name), dates as times, missing or repeated times in a
                series, a static column that changes within a series, values that are not numbers.
        """
        return cls(*series_from_frame(df, id, time, values, static))

    @classmethod
    def from_array(cls, X: NDArray[Any] | Sequence[ArrayLike]) -> IrregularSeries:
        """Read aeon's layout: one array [case, channel, time] or a list of [channel, time]; NaN = missing.

        An array [case, time] is a univariate collection. Times are 0 .. L_i - 1. Nothing is cut off at the end of a
        series: a NaN there is a missing reading like any other.
        """
        if isinstance(X, np.ndarray) and X.ndim == 2:
            return cls(X[:, :, None])
        cases = [np.asanyarray(case) for case in X]  # a masked array keeps its mask
        for i, case in enumerate(cases):
            if case.ndim != 2:
                raise ValueError(f"series {i} has shape {case.shape}: from_array takes [channel, time] for each case")
        return cls([case.T for case in cases])

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int]:
        """(n,): to scikit-learn a collection is one-dimensional, so its splitters split series and never rows."""
        return (len(self),)

    @property
    def channels(self) -> int:
        """Number of channels, the same in every series."""
        return self.values[0].shape[1]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n] number of time points of each series, missing readings included."""
        return np.array([len(v) for v in self.values], dtype=np.int64)

    @property
    def missing_rate(self) -> float:
        """Share of all readings (time points x channels) that are NaN, in [0, 1)."""
        return float(sum(int(np.isnan(v).sum()) for v in self.values) / sum(v.size for v in self.values))

    def __getitem__(self, key: Key | tuple[Any, ...]) -> IrregularSeries:
        """Choose series by an int, a slice, a boolean mask [n] or an array of ints; always a collection again.

        Raises:
            ValueError: a mask of the wrong length, an empty choice, a second index (times and channels are not axes).
            IndexError: an int out of range.
        """
        chosen = _positions(key, len(self))
        picked = object.__new__(IrregularSeries)
        static = None if self.static is None else frozen(self.static[chosen])
        picked._assign(tuple(self.values[i] for i in chosen), tuple(self.times[i] for i in chosen), static)
        return picked

    def __iter__(self) -> Iterator[IrregularSeries]:
        return (self[i] for i in range(len(self)))

    def __array__(self, *args: Any, **kwargs: Any) -> NDArray[Any]:
        raise TypeError("series of unequal clocks are not one array: use .padded(), or .values[i] and .times[i]")

    def __eq__(self, other: object) -> bool:
        """Equal content: same values (NaN equals NaN), times and static features."""
        if not isinstance(other, IrregularSeries):
            return NotImplemented
        if len(self) != len(other):
            return False
        same_static = same_table(self.static, other.static)
        same_times = all(np.array_equal(a, b) for a, b in zip(self.times, other.times, strict=True))
        same_values = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(self.values, other.values, strict=True))
        return bool(same_static and same_times and same_values)

    __hash__ = None  # type: ignore[assignment]

    def replace_values(self, values: Sequence[ArrayLike]) -> IrregularSeries:
        """The same clocks and static features with other values, [L_i, channels'] each."""
        return IrregularSeries(values, self.times, self.static)

    def padded(self) -> tuple[NDArray[np.floating], NDArray[np.float64]]:
        """All series in two arrays: values [n, L_max, channels] and times [n, L_max], NaN after each series' end.

        ``IrregularSeries(*series.padded(), series.static) == series``.
        """
        longest = int(self.lengths.max())
        values = np.full((len(self), longest, self.channels), np.nan, dtype=np.result_type(*self.values))
        times = np.full((len(self), longest), np.nan)
        for i, (value, clock) in enumerate(zip(self.values, self.times, strict=True)):
            values[i, : len(value)] = value
            times[i, : len(clock)] = clock
        return values, times

    def _facts(self) -> dict[str, str]:
        shortest, longest = int(self.lengths.min()), int(self.lengths.max())
        first, last = min(c[0] for c in self.times), max(c[-1] for c in self.times)
        facts = {
            "series": str(len(self)),
            "channels": str(self.channels),
            "length": str(longest) if shortest == longest else f"{shortest} to {longest}",
            "times": f"{first:g} to {last:g}",
            "missing": f"{100 * self.missing_rate:.3g} %",
        }
        return facts if self.static is None else {**facts, "static": str(self.static.shape[1])}

    def __repr__(self) -> str:
        return f"IrregularSeries({', '.join(f'{name}: {fact}' for name, fact in self._facts().items())})"

    def _repr_html_(self) -> str:
        cells = "".join(f"<tr><th>{name}</th><td>{fact}</td></tr>" for name, fact in self._facts().items())
        return f"<table><caption>IrregularSeries</caption>{cells}</table>"


def _positions(key: Key | tuple[Any, ...], n: int) -> NDArray[np.int64]:
    """The chosen series as an array of positions; ``[key, ...]`` is how scikit-learn indexes whatever has a shape."""
    if isinstance(key, tuple):
        if len(key) != 2 or key[1] is not Ellipsis:
            raise ValueError(
                "a collection has one axis, its series: read times and channels from .times[i], .values[i]"
            )
        key = key[0]
    index = np.asarray(key) if not isinstance(key, slice) and key is not Ellipsis else None
    if index is not None and index.dtype == bool and index.shape != (n,):
        raise ValueError(f"the mask has shape {index.shape}: give one flag for each of the {n} series")
    if index is not None and index.size and index.dtype != bool and not np.issubdtype(index.dtype, np.integer):
        raise ValueError(f"series are chosen by int, slice, boolean mask or ints, not by {index.dtype}")
    if index is not None and index.size == 0:
        raise ValueError("no series was chosen: a collection has at least one")
    chosen = np.atleast_1d(np.arange(n)[key if index is None else index])  # type: ignore[index]
    if chosen.ndim != 1 or chosen.size == 0:
        raise ValueError("no series was chosen: a collection has at least one, and its index has one axis")
    return chosen
