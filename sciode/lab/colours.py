"""What colours stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["colour_limits"]


def colour_limits(values: NDArray[Any]) -> tuple[float, float]:
    """The ends of a scale for values: theirs; about zero where they have both signs; 1 apart for a constant.

    What is missing does not count. Raises ValueError where nothing is there.
    """
    there = values[np.isfinite(values)]
    if not there.size:
        raise ValueError("none of the values is a finite number: there is nothing to choose colours by")
    low, high = float(there.min()), float(there.max())
    if low < 0.0 < high:
        size = max(-low, high)
        return -size, size
    return (low, high) if high > low else (low - 0.5, high + 0.5)
