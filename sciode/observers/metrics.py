"""How well a flow is told: at sensors and between them, at frames that were read and between them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Errors", "drift", "split_errors"]


class Errors(NamedTuple):
    """Mean squared errors, of all channels in units of their deviation. In or outside of the sensors (x) and of the
    frames that training reads (t); NaN where there is no such point or frame."""

    in_x_in_t: float
    ext_x_in_t: float
    in_x_ext_t: float
    ext_x_ext_t: float

    @property
    def ext_x(self) -> float:
        """Between the sensors, at the frames that are read: the figure to compare by."""
        return self.ext_x_in_t


def split_errors(
    found: NDArray[np.floating],
    truth: NDArray[np.floating],
    sensors: NDArray[np.bool_],
    frames: NDArray[np.bool_],
    deviation: NDArray[np.floating] | float = 1.0,
) -> Errors:
    """Errors of found [T, N, c]: sensors [N] says which points are read, frames [T] which times.

    deviation: of each channel [c]. Truths that are NaN do not count. Raises ValueError for shapes that do not fit.
    """
    if found.shape != truth.shape or truth.ndim != 3 or (len(frames), len(sensors)) != truth.shape[:2]:
        raise ValueError(
            f"fields are [T, N, c] with sensors [N] and frames [T], got {found.shape}, {truth.shape}, "
            f"{sensors.shape} and {frames.shape}"
        )
    square = ((found - truth) / deviation) ** 2

    def mean(t: NDArray[np.bool_], x: NDArray[np.bool_]) -> float:
        part = square[t][:, x]
        part = part[np.isfinite(truth[t][:, x])]
        return float(part.mean()) if part.size else float("nan")

    return Errors(mean(frames, sensors), mean(frames, ~sensors), mean(~frames, sensors), mean(~frames, ~sensors))


def drift(
    found: NDArray[np.floating], truth: NDArray[np.floating], weights: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """How far each channel's mean over the points is from the true one, root mean square over times [c].

    Mean vorticity of a periodic box and mean height of shallow water are conserved. weights [N]: of the points' areas,
    None: all alike.
    """
    share = np.full(truth.shape[1], 1.0) if weights is None else np.asarray(weights, dtype=np.float64)
    share = share / share.sum()
    gap = np.einsum("tnc,n->tc", found - truth, share)
    return np.sqrt((gap**2).mean(0))
