"""Estimators of values on a sequence model: a Gaussian read off its state at every time that is asked for."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sciode.data import IrregularSeries
from sciode.nn import mlp, rowwise
from sciode.timeseries.estimator import SeriesLike, as_series, regressor_tags
from sciode.timeseries.linear import LinearStep
from sciode.timeseries.mixture import Mixture
from sciode.timeseries.model import Batch, Paths, SequenceModel
from sciode.timeseries.sequence import Data, SequenceEstimator, drawn_seeds
from sciode.timeseries.surroundings import Surroundings, surroundings
from sciode.timeseries.values import Pairs, ValueEstimator
from sciode.training import FitOptions

Anchor = Literal["line", "linear", "none"]
_HALF_LOG = 0.5 * math.log(2 * math.pi)
_FLOOR = 1e-3  # smallest standard deviation, in units of the channel's own
_NINETY = 1.6448536269514722  # a Gaussian has 90 % within this many standard deviations
_ENOUGH = 20  # validation readings of a channel from which its bands are corrected
_FACTORS = (0.1, 10.0)  # how far validation may correct the standard deviations


class PathRegressor(nn.Module):
    """States of one or two sequence models at the queries, and what surrounds these, to Gaussians:

        mean = g ⊙ line + m(z, surroundings),   σ = floor + softplus(s(z, surroundings))

    with learned gates g in (0, 1), one a channel, which begin at `trust`: what the line alone is worth. Without trust
    (None) the states alone are read: mean = m(z), σ = floor + softplus(s(z)).
    The second model, if there is one, reads the series backwards.
    """

    reads_rowwise = ("gate",)

    def __init__(
        self, ahead: SequenceModel, back: SequenceModel | None, channels: int, trust: Tensor | None = None
    ) -> None:
        super().__init__()
        self.ahead, self.back = ahead, back
        width = ahead.hidden + (0 if back is None else back.hidden) + (0 if trust is None else 3 * channels)
        self.head = mlp([width, ahead.hidden, ahead.hidden, 2 * channels], nn.SiLU)
        if trust is not None:
            nn.init.zeros_(self.head[-1].get_parameter("weight"))  # training begins at the anchor itself
        self.gate = None if trust is None else nn.Parameter(trust.logit())

    def forward(
        self, ways: list[tuple[Batch, Tensor]], features: Tensor | None, seed: int | Tensor, **options: Any
    ) -> tuple[Tensor, Tensor, list[Paths]]:
        """Return (mean, σ) [B, Q, C] and the paths.

        ways: (batch, queries) forwards, and backwards if it has that. features: of `surroundings`; None without trust.
        """
        models = [self.ahead] if self.back is None else [self.ahead, self.back]
        paths = [model(*way, seed, **options) for model, way in zip(models, ways, strict=True)]
        known = [path.states for path in paths] + ([] if features is None else [features])
        mean, spread = self.head(torch.cat(known, -1)).chunk(2, -1)
        if self.gate is not None and features is not None:
            line = features[..., : mean.shape[-1]]
            mean = mean + rowwise(self.gate, line, 1).sigmoid() * line
        return mean, _FLOOR + F.softplus(spread), paths


@dataclass(kw_only=True, eq=False, repr=False)
class PathEstimator(SequenceEstimator, ValueEstimator):
    """Abstract. What the forecaster and the interpolator share; they differ in what is given and what is wanted.

    Training lowers the negative log-likelihood and keeps the epoch of least squared error on the validation data.

    Parameters: those of `SequenceEstimator`, and
    ----------
    anchor: what the answer holds on to. "line": the head is told the straight line between the neighbouring readings
        (in a forecast the last reading) and the times to these, and learns what to add to a share of it; "linear": the
        same with the best linear guess in the place of the line, fitted beforehand (`LinearStep`); "none": it reads the
        states alone, so that a score says what the model itself knows of the readings.
    """

    anchor: Anchor = "line"

    both_ways = False

    _MAKE = (*SequenceEstimator._MAKE, "anchor")

    @abstractmethod
    def _pairs(self, series: IrregularSeries, y: Any, seed: int) -> Pairs:
        """Return what is given and wanted of training or validation series."""

    @abstractmethod
    def _parts(self, series: IrregularSeries, y: Any) -> tuple[Pairs, Pairs, IrregularSeries]:
        """Return (training, validation) pairs and the readings that scales may be learnt from."""

    def fit(self, X: SeriesLike, y: Any = None, validation: Any = None) -> Self:
        """Train on series X [n], and return self.

        y: None: the estimator sets apart what is to be told, see the class. Or the values that it shall tell,
        IrregularSeries with one entry for each series of X. validation: series, or (X, y), that select the epoch and
        calibrate the bands; None = a part of X.

        Raises ValueError for series that leave nothing to learn or to select by, or bad parameters;
        FloatingPointError if the loss was not finite in the first epoch.
        """
        data = self._prepared(X, y, validation)
        self._train(*data)
        self._complete(data[1])
        return self

    def _prepared(self, X: SeriesLike, y: Any, validation: Any) -> tuple[Data, Data]:
        """Learn the scales, the grid and what the line is worth; return what trains and what validates."""
        self._options()
        series = as_series(X)
        if validation is None:
            train, held, seen = self._parts(series, y)
        else:
            other = validation if isinstance(validation, tuple) else (validation, None)
            train, held = self._pairs(series, y, 0), self._pairs(as_series(other[0]), other[1], 1)
            seen = series
            if held.given.channels != series.channels:
                held_channels = held.given.channels
                raise ValueError(f"X has {series.channels} channels and the validation series have {held_channels}")
        self._scale(seen, _joined(train))
        device = self._device()
        told = [self._told(pairs) for pairs in (train, held)]
        self.linear_ = None
        if self.anchor == "linear":
            self.linear_ = LinearStep.fit(*((_near(part), part["target"]) for part in told))
        told = [self._anchored(part) for part in told]
        self.trust_ = () if self.anchor == "none" else _worth_of_the_line(told[0])
        train_data, held_data = ({name: x.to(device) for name, x in part.items()} for part in told)
        return train_data, held_data

    def _complete(self, held: Data) -> None:
        self.calibration_ = self._calibrated(held)

    def _options(self) -> FitOptions:
        if self.anchor not in get_args(Anchor):
            raise ValueError(f"anchor must be one of {', '.join(get_args(Anchor))}, got {self.anchor!r}")
        return super()._options()

    def _new_network(self) -> PathRegressor:
        back = self._backbone() if self.both_ways else None
        trust = torch.tensor(self.trust_) if self.trust_ else None
        return PathRegressor(self._backbone(), back, self.n_channels_in_, trust)

    def _queried(self, series: IrregularSeries, clock: NDArray[np.float64]) -> Data:
        """Return what the network reads to answer at times clock [n, Q], NaN = none."""
        start = np.array([own[0] for own in series.times])
        queries = torch.from_numpy(self.grid_.clock(clock, start))
        data = self._inputs(series, float(queries.nan_to_num(nan=0.0).max()))
        data["queries"] = queries
        if self.anchor != "none":
            near = surroundings(data["values"], data["times"], queries, self.grid_.horizon)
            data["features"] = near.features()
        if self.both_ways:
            mirrored = IrregularSeries(
                [value[::-1] for value in series.values], [own[-1] - own[::-1] for own in series.times], series.static
            )
            last = data["times"].nan_to_num(nan=0.0).amax(1, keepdim=True)
            back = self._inputs(mirrored)
            data |= {f"back_{name}": back[name] for name in ("values", "times", "control")}
            data["back_queries"] = (last - queries).clamp(min=0.0)
        return data

    def _anchored(self, data: Data) -> Data:
        """Put the linear guess, if there is one, in the line's place."""
        if self.linear_ is None:
            return data
        near = _near(data)
        return data | {"features": near._replace(line=self.linear_(near)).features()}

    def _told(self, pairs: Pairs) -> Data:
        """Return `_queried` data with the standardised values that are wanted, NaN = not told."""
        target, clock = self.standardizer_.transform(pairs.wanted).padded()
        return self._queried(pairs.given, clock) | {"target": torch.from_numpy(target).float()}

    def _ways(self, data: Any, seeds: Sequence[int] | None) -> list[tuple[Batch, Tensor]]:
        ways = [(self._batch(data), data["queries"])]
        if self.both_ways:
            ways.append((self._batch(data, "back_"), data["back_queries"]))
        return ways if seeds is None else [(self._jittered(batch, seeds), queries) for batch, queries in ways]

    def _losses(self, model: nn.Module, batch: Any, seeds: Sequence[int]) -> Tensor:
        """Return each member's mean negative log-likelihood of the told readings, with penalties and KL.

        Out of training it is the mean squared error, in the channels' variances, that is told.
        """
        ways, members = self._ways(batch, seeds if model.training else None), len(seeds)
        draws = drawn_seeds(seeds, ways[0][0])
        mean, sigma, paths = model(ways, batch.get("features"), draws, **self._solver(model.training))
        target = batch["target"]
        told = ~target.isnan()
        error = target.nan_to_num(nan=0.0) - mean
        # Bands are corrected after training; a likelihood would choose the epoch by how little they had been trusted.
        lost = sigma.log() + 0.5 * (error / sigma) ** 2 + _HALF_LOG if model.training else error**2
        total, count = (x.reshape(members, -1).sum(1) for x in (torch.where(told, lost, 0.0), told))
        loss = total / count.clamp(min=1)
        return loss + sum(self._extra_loss(path, members) for path in paths)

    def _components(self, data: Data, count: int) -> tuple[Tensor, Tensor]:
        """Return (mean, σ) [S, n, Q, C] of every draw, standardised."""

        def read(network: PathRegressor, part: Data, seeds: Tensor) -> tuple[Tensor, Tensor]:
            options = self._solver(training=False) | {"throw": True}
            mean, sigma, _ = network(self._ways(part, None), part.get("features"), seeds, **options)
            return mean.double(), sigma.double()

        mean, sigma = self._draws(data, count, read)
        return mean, sigma

    def _calibrated(self, held: Data) -> tuple[float, ...]:
        """Return for each channel what σ must be multiplied by for 90 % bands to hold 90 % of the validation readings.

        A quantile, for a few wild readings should not widen the bands of all others. 1 where too little was told.
        """
        data = dict(held)
        target = data.pop("target").double().cpu()
        mean, sigma = self._components(data, self._count())
        between = mean.var(0, correction=0)
        # |error| <= q sqrt(between + f² σ²) exactly where this is <= f².
        needed = (((target - mean.mean(0)) / _NINETY) ** 2 - between) / (sigma**2).mean(0)
        factors = []
        for channel in needed.unbind(-1):
            told = channel[~channel.isnan()]
            square = float(np.quantile(told.numpy(), 0.9)) if len(told) >= _ENOUGH else 1.0
            factors.append(min(max(square, _FACTORS[0] ** 2), _FACTORS[1] ** 2) ** 0.5)
        return tuple(factors)

    def _mixture(self, series: IrregularSeries, clock: NDArray[np.float64], count: int) -> Mixture:
        mean, sigma = self._components(self._anchored(self._queried(series, clock)), count)
        scale, shift = np.array(self.standardizer_.scale), np.array(self.standardizer_.mean)
        absent = np.isnan(clock)[..., None]
        centre = np.where(absent, np.nan, mean.numpy() * scale + shift)
        return Mixture(centre, sigma.numpy() * np.array(self.calibration_) * scale)

    def _count(self) -> int:
        return max(self.n_samples, self.n_models)

    def _learnt(self) -> dict[str, Any]:
        weights = None if self.linear_ is None else self.linear_.weights
        return {"calibration": list(self.calibration_), "trust": list(self.trust_), "linear": weights}

    def _take_up(self, learnt: dict[str, Any]) -> None:
        self.calibration_, self.trust_ = tuple(learnt["calibration"]), tuple(learnt["trust"])
        weights = learnt.get("linear")
        self.linear_ = None if weights is None else LinearStep(tuple(tuple(row) for row in weights))

    def __sklearn_tags__(self) -> Any:
        return regressor_tags()


def _near(data: Data) -> Surroundings:
    return Surroundings(*data["features"].chunk(3, -1))


def _worth_of_the_line(train: Data) -> tuple[float, ...]:
    """Return for each channel the g in [0.02, 0.98] for which g x line is nearest to what training tells."""
    target = train["target"].double()
    line = train["features"][..., : target.shape[-1]].double()
    told = ~target.isnan()
    line, target = torch.where(told, line, 0.0), target.nan_to_num(nan=0.0)
    best = (line * target).sum((0, 1)) / (line**2).sum((0, 1)).clamp(min=1e-12)
    return tuple(best.clamp(0.02, 0.98).tolist())


def _joined(pairs: Pairs) -> IrregularSeries:
    """Return the clocks that the grid must serve: what is given, up to the last time that is wanted."""
    clocks = [np.union1d(given, wanted) for given, wanted in zip(pairs.given.times, pairs.wanted.times, strict=True)]
    return IrregularSeries([np.zeros((len(clock), 1)) for clock in clocks], clocks)
