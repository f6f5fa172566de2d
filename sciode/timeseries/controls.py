"""From series on their own clocks to controls on one fixed grid, all at once and before training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciode.data import IrregularSeries
from sciode.solvers.interpolants import HermitePath

_AT_ONCE = 256  # series whose paths are made together: a path holds a dozen numbers for every reading
FARTHEST = 100
"""Durations of training that a grid may be long: that many steps are still solved in seconds and held in memory."""


class Controls(NamedTuple):
    """Control paths on the model's grid: `values` [n, N + 1, C] float32 at the times k dt; `ends` [n] float64."""

    values: Tensor
    ends: Tensor


@dataclass(frozen=True)
class ControlGrid:
    """The model's clock: each series starts at 0, `duration` of the data's time is `horizon`, an Euler step is `dt`.

    duration: the longest training series' last time minus its first, in the data's unit.
    steps: Euler steps in `duration`; dt = horizon / steps.
    horizon: the model's time for `duration`; a bounded drift can move the state by at most this much.
    """

    duration: float
    steps: int
    horizon: float = 1.0

    @property
    def dt(self) -> float:
        """The Euler step in the model's time."""
        return self.horizon / self.steps

    @classmethod
    def of(cls, series: IrregularSeries, steps: int | None = None, horizon: float = 1.0) -> ControlGrid:
        """Return the grid of training series: by default steps as long as the median gap between time points.

        But no more of them than the most time points of a series: bursts of readings are not resolved.
        """
        duration = max(float(clock[-1] - clock[0]) for clock in series.times)
        gaps = np.concatenate([np.diff(clock) for clock in series.times])
        most = int(series.lengths.max()) - 1
        usual = round(min(duration / float(np.median(gaps)), most)) if gaps.size else 1
        return cls(duration or 1.0, steps or max(usual, 1), horizon)

    @property
    def rate(self) -> float:
        """The model's time for one unit of the data's."""
        return self.horizon / self.duration

    def clock(self, times: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return data times [n, T] in the model's time, in which each series begins (start [n]) at 0."""
        return (times - start[:, None]) * self.rate

    def controls(self, series: IrregularSeries, until: float = 0.0) -> Controls:
        """Return the Hermite paths of (standardised) series at the grid times.

        A series stops at its own last time, but not before one step, so that one with a single time point is a state
        too. Series longer than the training's get as many more steps as they need. After its last reading a path is
        constant; the grid reaches at least `until`, in the model's time.

        Raises ValueError for a series that lasts over 100 times as long as the longest of training.
        """
        for number, own in enumerate(series.times):
            if own[-1] - own[0] > FARTHEST * self.duration:
                raise ValueError(
                    f"series {number} lasts {own[-1] - own[0]:g}, over {FARTHEST} times as long as the longest of "
                    f"training ({self.duration:g}): are its times in the same unit?"
                )
        values, times = series.padded()
        clock = torch.from_numpy(self.clock(times, times[:, 0]))
        ends = clock.nan_to_num(nan=0.0).amax(1).clamp(min=self.dt)
        count = max(math.ceil(max(float(ends.max()), until) / self.dt * (1 - 1e-10)), 1)
        grid = torch.arange(count + 1, dtype=torch.float64) * self.dt
        parts = zip(torch.from_numpy(values).split(_AT_ONCE), clock.split(_AT_ONCE), strict=True)
        paths = [HermitePath(own.double(), times).evaluate(grid).float() for own, times in parts]
        return Controls(torch.cat(paths), ends)
