"""Hopper, forecast: 10 time points from the 50 before, of which a share of whole time points is lost.

The benchmark of the stable neural SDEs' authors (arXiv 2402.14989): one array of 100 runs, cut into windows of stride 1
and split 70/15/15 in the order of the runs. Their public code (benchmark_forecasting) scales nothing, loses whole time
points of the histories, int(50 x rate) of them, never of the targets, and scores the mean squared error over all 14
channels of all 10 time points. So the units are the array's own, as they are here; they have 40 windows a run, for
the last one is left out, and we have 41. Our models see values scaled as on the training histories.

One thing differs on purpose. Their models are solved over the history alone and read the states of its last ten time
points as the forecasts of the ten that follow, each from a state ten time points older than what it tells. Here a
forecast is read from the state at the time that it is for.

Models read the history alone, by causal paths that stay constant after its last reading. Latent models encode the whole
history, and nothing after it. Each model takes part once an `anchor` (see `IrregularForecaster`): told the last reading
of each channel and its age beside its state, told a linear guess in the place of that reading, or told nothing, so that
what it knows of the readings is in its state alone. The last is how the authors' models are read; the rival "last" is
far below what any state reaches alone, and "linear" below "last".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciode.data.windows import Windows, hopper
from sciode.experiments import contest
from sciode.experiments.contest import Contest, Measure, Part, Run
from sciode.timeseries import Case, ChannelMean, IrregularForecaster, LastValue, LinearGuess

__all__ = ["HopperForecast", "Settings", "main"]

_AHEAD = 10


@dataclass(frozen=True)
class Settings(contest.Anchored):
    """rates: shares of the history's time points that are lost. stride: every how many-th training window is used."""

    rates: tuple[float, ...] = (0.0, 0.3, 0.5, 0.7)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    euler: int = 59
    batch: int = 128
    stride: int = 1


class HopperForecast(Contest):
    """Forecasts judged by the squared error of all that follows."""

    title = "Hopper, 50 time points -> 10"
    rate = "dropped"
    measures = (Measure("mse", "MSE x 1e-3", scale=1e3),)
    rivals: Mapping[str, Any] = {"mean": ({},), "last": ({},), "linear": ({},)}

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._parts: dict[float, dict[str, Windows]] = {}
        self._cases: dict[float, Case] = {}

    def parts(self, rate: float) -> dict[str, Windows]:
        """Windows of the three parts, the same for all models and seeds."""
        if rate not in self._parts:
            train, validation, test = hopper(rate)
            thinned = train[:: self.settings.stride]
            self._parts[rate] = {"train": thinned, "validation": validation, "test": test}
        return self._parts[rate]

    def case(self, rate: float) -> Case:
        """Pairs of history and future; the validation runs choose the epoch."""
        if rate not in self._cases:
            train, held = (self.parts(rate)[part] for part in ("train", "validation"))
            self._cases[rate] = Case(train.history, train.future, (held.history, held.future))
        return self._cases[rate]

    def estimator(self, model: str, run: Run) -> Any:
        """A forecaster of all 10 time points."""
        if model in self.rivals:
            return {"mean": ChannelMean, "last": LastValue, "linear": LinearGuess}[model](ahead=_AHEAD, **run.setting)
        return IrregularForecaster(ahead=_AHEAD, history=None, **self.settings.parameters(model, run))

    def judge(self, fitted: Any, rate: float, part: Part) -> dict[str, float]:
        """The mean squared error, every window, time point and channel alike."""
        asked = self.parts(rate)[part]
        truth, clock = asked.future.padded()
        return {"mse": float(((fitted.predict(asked.history, clock) - truth) ** 2).mean())}

    def facts(self) -> str:
        """How many windows."""
        sizes = [len(windows.source) for windows in self.parts(self.settings.rates[0]).values()]
        return f"{sizes[0]} windows of 70 runs train, {sizes[1]} of 15 validate, {sizes[2]} of 15 test"


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`; changes: fields of `Settings`. See `contest.run`."""
    return contest.run(HopperForecast, Settings, out, device, changes)
