"""Intensive care, interpolated: readings at the time points of a stay that were held back, from those at the others.

PhysioNet 2012, set A, 37 channels of 48 hours. At a rate of 0.6 a random 60 % of every stay's time points are read, the
rest is held back: missing (NaN), never zero. Stays are split 64/16/20 (train, validation, test), stratified by outcome;
validation chooses epochs and settings. Channels are scaled to [0, 1] by the extremes of the training stays, readings of
others beyond them are clipped to them, and errors are measured on that scale.

`held` is the mean squared error over the held-back readings of the test stays, the figure that decides. `observed` is
over all their readings, held back or read: what the stable neural SDEs' authors report, after mTAN's authors, whose
scale is that of all stays with the test's, and who pool sets A and B. Stays of one time point have nothing to hold back
and are left out.

Each sequence model takes part once an `anchor` (see `IrregularInterpolator`): told the line between the neighbouring
readings and the times to these beside its states, told a linear guess in the place of the line, or told nothing, so
that what it knows of the readings is in its states alone. What a row adds to the rivals "line" and "linear" is the
model's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sciode.data import IrregularSeries, drop, stays, stratified
from sciode.experiments import contest
from sciode.experiments.contest import Contest, Measure, Part, Run
from sciode.experiments.physionet_latent_ode import extremes
from sciode.timeseries import Case, ChannelMean, IrregularInterpolator, LastValue, LinearGuess, StraightLine
from sciode.timeseries.values import without_empty_points
from sciode.training import derive_seed

__all__ = ["Holes", "PhysionetInterpolation", "Settings", "holes", "main"]

_SPLIT_SEED = 42
_SHARES = (0.64, 0.16, 0.20)
_PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Settings(contest.Anchored):
    """rates: shares of the time points that are read. stays: how many, in the order of their ids. minutes: of a slot, a
    divisor of 2880. copies: how often a training stay is used, each time with other time points held back."""

    rates: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9)
    epochs: int = 30
    euler: int = 96
    stays: int = 4000
    minutes: int = 6
    copies: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if wrong := [rate for rate in self.rates if not 0 < rate < 1]:
            raise ValueError(f"rates: shares of time points that are read, in (0, 1), got {wrong}")


class Holes(NamedTuple):
    """Stays with a hole: given, what is read (first and last time points stay, empty); wanted, what was held back;
    whole, all readings; held, where on the padded clock of `whole` a reading was held back [n, L, C] bool."""

    given: IrregularSeries
    wanted: IrregularSeries
    whole: IrregularSeries
    held: NDArray[np.bool_]


def holes(series: IrregularSeries, rate: float, seed: int) -> Holes:
    """Hold back time points so that a share `rate` is read; stays of which nothing is held back are left out."""
    left = drop(series, 1.0 - rate, seed, unit="time")
    lost = [np.isnan(rest) & ~np.isnan(value) for rest, value in zip(left.values, series.values, strict=True)]
    kept = np.flatnonzero([gap.any() for gap in lost])
    if not len(kept):
        raise ValueError("no stay has a time point to hold back: take more stays, or shorter slots")
    whole = series[kept]
    rows = [lost[n].any(1) for n in kept]
    wanted = IrregularSeries(
        [np.where(lost[n], series.values[n], np.nan)[row] for n, row in zip(kept, rows, strict=True)],
        [series.times[n][row] for n, row in zip(kept, rows, strict=True)],
    )
    clipped = left[kept].padded()[0]
    held = np.isnan(clipped) & ~np.isnan(whole.padded()[0])
    return Holes(without_empty_points(left[kept], ends=True), wanted, whole, held)


class PhysionetInterpolation(Contest):
    """What was held back, judged by its squared error on stays that were not trained on."""

    title = "PhysioNet 2012, interpolation"
    rate = "read"
    measures = (
        Measure("held", "MSE x 1e-3 (held back)", scale=1e3, digits=2),
        Measure("observed", "MSE x 1e-3 (all observed)", scale=1e3, digits=2),
    )
    rivals: Mapping[str, Any] = {"mean": ({},), "last": ({},), "line": ({},), "linear": ({},)}

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        series, _, died = stays(settings.minutes)
        count = min(settings.stays, len(series))
        self.split = stratified(died[:count], _SPLIT_SEED, _SHARES)
        readings = IrregularSeries(series.values[:count], series.times[:count])
        self.low, self.range = extremes(readings[self.split.train])
        scaled = readings.replace_values([np.clip((v - self.low) / self.range, 0, 1) for v in readings.values])
        self.whole = {part: scaled[getattr(self.split, part)] for part in _PARTS}
        self._holes: dict[tuple[float, str], Holes] = {}
        self._cases: dict[float, Case] = {}

    def holes(self, rate: float, part: str) -> Holes:
        """A part with its holes, the same for all models and seeds; the training part `copies` times."""
        if (rate, part) not in self._holes:
            whole, copies = self.whole[part], self.settings.copies if part == "train" else 1
            place = _PARTS.index(part)
            again = IrregularSeries(whole.values * copies, whole.times * copies)
            self._holes[rate, part] = holes(again, rate, derive_seed(_SPLIT_SEED, place))
        return self._holes[rate, part]

    def case(self, rate: float) -> Case:
        """What is given and held back of the training stays, and of those that validate."""
        if rate not in self._cases:
            train, held = self.holes(rate, "train"), self.holes(rate, "validation")
            self._cases[rate] = Case(train.given, train.wanted, (held.given, held.wanted))
        return self._cases[rate]

    def estimator(self, model: str, run: Run) -> Any:
        """An interpolator."""
        if model in self.rivals:
            kind = {"mean": ChannelMean, "last": LastValue, "line": StraightLine, "linear": LinearGuess}[model]
            return kind(task="interpolate", **run.setting)
        return IrregularInterpolator(**self.settings.parameters(model, run))

    def judge(self, fitted: Any, rate: float, part: Part) -> dict[str, float]:
        """Mean squared errors, every reading alike."""
        asked = self.holes(rate, part)
        truth, clock = asked.whole.padded()
        square = (fitted.predict(asked.given, clock) - truth) ** 2
        return {"held": float(square[asked.held].mean()), "observed": float(square[~np.isnan(truth)].mean())}

    def facts(self) -> str:
        """How many stays."""
        sizes = [len(self.whole[part]) for part in _PARTS]
        return f"{sizes[0]} stays train, {sizes[1]} validate, {sizes[2]} test, slots of {self.settings.minutes} minutes"


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`; changes: fields of `Settings`. See `contest.run`."""
    return contest.run(PhysionetInterpolation, Settings, out, device, changes)
