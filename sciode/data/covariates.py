"""Static features as numbers that a network can take, learnt from the training series alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .series import IrregularSeries


@dataclass(frozen=True)
class Covariates:
    """What each static column becomes: a standardised number with a flag, or one column a category.

    A numeric column gives two: (x - mean) / scale with 0 where it is missing, and 1 where it is missing. A column of
    text gives one for each category of training and a last one, "unseen", for any other category or a missing one.

    Args:
        columns: for each static column (mean, scale), or the tuple of its categories.
    """

    columns: tuple[tuple[float, float] | tuple[str, ...], ...]

    @classmethod
    def fit(cls, series: IrregularSeries) -> Covariates:
        """Learn from the TRAINING series only; no columns if they have no static features."""
        if series.static is None:
            return cls(())
        return cls(tuple(_learnt(column) for column in series.static.T))

    @property
    def width(self) -> int:
        """Columns of the encoded table."""
        return sum(len(column) + 1 if _is_text(column) else 2 for column in self.columns)

    def transform(self, series: IrregularSeries) -> NDArray[np.float64] | None:
        """Return the encoded table [n, width], or None if there are no static features.

        Raises ValueError if the features are not those of training: another number, or text where numbers were.
        """
        found = 0 if series.static is None else series.static.shape[1]
        if found != len(self.columns):
            raise ValueError(f"the series have {found} static features and the training series had {len(self.columns)}")
        if series.static is None:
            return None
        pairs = enumerate(zip(self.columns, series.static.T, strict=True))
        return np.concatenate([_encoded(number, known, column) for number, (known, column) in pairs], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, ready for JSON."""
        return {"columns": [list(column) for column in self.columns]}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Sequence[Sequence[Any]]]) -> Covariates:
        """The inverse of :meth:`to_dict`."""
        return cls(tuple(tuple(column) for column in saved["columns"]))


def _is_text(column: tuple[Any, ...]) -> bool:
    return not column or isinstance(column[0], str)


def _learnt(column: NDArray[Any]) -> tuple[float, float] | tuple[str, ...]:
    text = sorted({str(entry) for entry in column.tolist() if isinstance(entry, str)})
    if text:
        return tuple(sorted({*text, *(str(e) for e in column.tolist() if not isinstance(e, str) and e == e)}))
    seen = column.astype(np.float64)
    seen = seen[~np.isnan(seen)]
    if not seen.size:
        return 0.0, 1.0
    scale = float(seen.std())
    return float(seen.mean()), scale if scale > 1e-12 * np.abs(seen).max() else 1.0


def _encoded(number: int, known: tuple[Any, ...], column: NDArray[Any]) -> NDArray[np.float64]:
    entries = column.tolist()
    if _is_text(known):
        places = {category: place for place, category in enumerate(known)}
        return np.eye(len(known) + 1)[[places.get(str(entry), len(known)) for entry in entries]]
    if any(isinstance(entry, str) for entry in entries):
        raise ValueError(f"static feature {number} holds text, and held numbers in training")
    values = (np.array(entries, dtype=np.float64) - known[0]) / known[1]
    return np.stack([np.nan_to_num(values), np.isnan(values)], axis=1)
