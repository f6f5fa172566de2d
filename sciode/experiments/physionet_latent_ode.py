"""Intensive care by a latent ODE, trained in every way of `recipes`: PhysioNet 2012, set A, interpolation.

The model of Rubanova et al. (2019) as "Opening the Blackbox" (Pal et al., 2021) sizes it: an ODE-RNN reads a share of
a stay's time points from the last to the first and on to admission, and gives the law of a latent state z0 [20] there;
a field 20-50-20-50-20-50-20-50-20, tanh throughout, carries it over [0, 1] (48 hours) in one adaptive solve with output
at all union times, and a linear map gives all 37 channels there. The score is the squared error of what was observed,
read or not, from the mean of z0.

Choices. Times are rounded to `minutes`, so that a batch's union is one fixed grid. Channels are scaled to [0, 1] by the
training stays' extremes, as in the reference, and held-out readings beyond them are clipped to them: one pH of 735
would outweigh all others. Every stay counts alike in the training loss (the mean over its readings), every reading in
the score. The encoder takes one Euler step a gap, as the authors' does. NFE and calls are the decoder's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

from sciode.data import IrregularSeries, drop, stays, stratified
from sciode.data.physionet import CHANNELS
from sciode.experiments import frame
from sciode.experiments.stacked import StackedGRUCell, StackedLinear
from sciode.experiments.verdicts import Score
from sciode.nn import OdeRnn
from sciode.solvers import Solution
from sciode.training import derive_seed, growing

__all__ = ["LatentOde", "PhysionetLatentOde", "Settings", "main"]

_HOURS = 48.0
_SIGMA = 0.01
"""Standard deviation of a reading about its prediction, in the channel's training range."""
_LATENT, _WIDE, _STATE = 20, 50, 40


@dataclass(frozen=True)
class Settings(frame.Settings):
    """stays: how many are used, in the order of their ids; minutes: of a slot, a divisor of 2880; fed: the share of a
    stay's time points that the encoder sees."""

    steps: int = 400
    batch: int = 128
    lr: float = 1e-2
    stays: int = 4000
    minutes: int = 6
    fed: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.fed <= 1:
            raise ValueError(f"fed: the share of time points that are read, in (0, 1], got {self.fed}")


class Charts(NamedTuple):
    """Stays on a device: times [n, L] in [0, 1], slots [n, L] (the same, as whole numbers), values, seen [n, L, 37]."""

    times: Tensor
    slots: Tensor
    values: Tensor
    seen: Tensor

    def of(self, rows: Any) -> Charts:
        """Some of them, without the end that none of them has."""
        seen = self.seen[rows]
        longest = max(int(seen.any(-1).sum(-1).max()), 1)
        return Charts(*(x[rows][..., :longest] if x.ndim == 2 else x[rows][..., :longest, :] for x in self))


class Ward:
    """The stays in parts: `whole`, what is to be predicted, and `fed`, what is read; split 70/10/20 by outcome."""

    def __init__(self, settings: Settings) -> None:
        series, _, died = stays(settings.minutes)
        count = min(settings.stays, len(series))
        series, self.split = series[:count], stratified(died[:count], 0, (0.7, 0.1, 0.2))
        self.low, self.range = extremes(series[self.split.train])
        scaled = series.replace_values([np.clip((v - self.low) / self.range, 0.0, 1.0) for v in series.values])
        read = drop(scaled, 1.0 - settings.fed, 0, unit="time")
        self.slots = round(_HOURS * 60 / settings.minutes)
        self.whole = {part: self._charts(scaled, part, settings) for part in ("train", "validation", "test")}
        self.fed = {part: self._charts(read, part, settings) for part in self.whole}

    def _charts(self, series: IrregularSeries, part: str, settings: Settings) -> Charts:
        chosen = series[getattr(self.split, part)]
        kept = [~np.isnan(v).all(1) for v in chosen.values]
        chosen = IrregularSeries(
            [v[k] for v, k in zip(chosen.values, kept, strict=True)],
            [t[k] for t, k in zip(chosen.times, kept, strict=True)],
        )
        values, hours = (torch.from_numpy(x).to(settings.device) for x in chosen.padded())
        times = hours.nan_to_num() / _HOURS
        slots = (times * self.slots).round().long()
        real = settings.real
        return Charts(times.to(real), slots, values.nan_to_num().to(real), ~values.isnan())


def extremes(series: IrregularSeries) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The smallest reading of each channel [C], and the range [C]; 0 and 1 where nothing is known or nothing moves."""
    readings = np.concatenate(series.values)
    known = ~np.isnan(readings)
    low = np.where(known, readings, np.inf).min(0)
    span = np.where(known, readings, -np.inf).max(0) - low
    moves = np.isfinite(span) & (span > 0)
    return np.where(np.isfinite(low), low, 0.0), np.where(moves, span, 1.0)


class Tanhs(nn.Module):
    """y' = tanh(W_k ... tanh(W_1 y)) for every seed: bounded, and blind to the clock."""

    def __init__(self, sizes: Sequence[int], seeds: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            StackedLinear(*size, [derive_seed(seed, i) for seed in seeds]) for i, size in enumerate(pairwise(sizes))
        )

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The slope [S, B, D]."""
        for layer in self.layers:
            y = torch.tanh(layer(y))
        return y


class LatentOde(nn.Module):
    """Encoder, law of z0, field of the decoder, and its map to the channels, for every seed."""

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        own = [[derive_seed(seed, 4, part) for seed in seeds] for part in range(6)]
        cell = StackedGRUCell(2 * len(CHANNELS), _STATE, own[0])
        self.encoder = OdeRnn(Tanhs((_STATE, _WIDE, _STATE), own[1]), cell, _STATE, backward=True)
        self.hidden = StackedLinear(_STATE, _WIDE, own[2])
        self.law = StackedLinear(_WIDE, 2 * _LATENT, own[3])
        self.field = Tanhs((*(_LATENT, _WIDE) * 4, _LATENT), own[4])
        self.channels = StackedLinear(_LATENT, len(CHANNELS), own[5])

    def encode(self, read: Charts) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [S, B, 20] of z0."""
        state = self.encoder(read.times, read.values, read.seen, until=0.0).last
        mean, spread = self.law(torch.tanh(self.hidden(state))).chunk(2, -1)
        return mean, softplus(spread) + 1e-4

    def decode(self, found: Solution, whole: Charts) -> Tensor:
        """Predictions [S, B, L, 37] at the stays' own times from the states on the grid [T, S, B, 20]."""
        seeds, batch, length = whole.slots.shape
        device = whole.slots.device
        at = (torch.arange(seeds, device=device)[:, None, None], torch.arange(batch, device=device)[:, None])
        states = found.ys[whole.slots, *at]
        return self.channels(states.flatten(1, 2)).reshape(seeds, batch, length, -1)


class PhysionetLatentOde(frame.Task):
    """The evidence bound, judged by the squared error on stays that were not trained on."""

    title = "PhysioNet 2012, latent ODE"
    score = Score("mse", "MSE x 1e-3", "lower", loses=0.02, relative=True, scale=1e3)
    unit = 10.0

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.ward = Ward(settings)
        self.grid = torch.linspace(0.0, 1.0, self.ward.slots + 1, dtype=torch.float64)
        self.kl_weight = growing(0.99, 10)

    def model(self) -> LatentOde:
        """Fresh weights."""
        return LatentOde(self.settings.seeds)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """AdaMax, as the authors train it; elementwise, too."""
        return torch.optim.Adamax(model.parameters(), self.settings.lr)

    def loss(self, model: LatentOde, step: int, solver: frame.Solver) -> tuple[Tensor, Solution]:
        """-log-likelihood of a reading + w KL of a latent dimension, w = max(0, 1 - 0.99^(step - 10))."""
        settings, rows, noise = self.settings, [], []
        for seed in settings.seeds:
            draw = torch.Generator().manual_seed(derive_seed(seed, 5, step))
            rows.append(torch.randint(self.size("train"), (settings.batch,), generator=draw))
            noise.append(torch.randn(settings.batch, _LATENT, generator=draw))
        at = torch.stack(rows).to(settings.device)
        whole, read = self.ward.whole["train"].of(at), self.ward.fed["train"].of(at)
        mean, spread = model.encode(read)
        found = solver(model.field, mean + spread * torch.stack(noise).to(mean), self.grid)
        error = model.decode(found, whole).sub(whole.values).where(whole.seen, 0.0).square().sum((2, 3))
        constant = math.log(_SIGMA) + 0.5 * math.log(2 * math.pi)
        unlikely = error / whole.seen.sum((2, 3)) / (2 * _SIGMA**2) + constant
        kl = (0.5 * (mean.square() + spread.square() - 1) - spread.log()).mean(-1)
        return (unlikely + self.kl_weight(step) * kl).mean(1).sum(), found

    def size(self, part: str) -> int:
        """Stays."""
        return len(self.ward.whole[part].times)

    def judge(self, model: LatentOde, part: str, rows: slice, solver: frame.Solver) -> frame.Judged:
        """Squared errors of all that was observed, from the mean of z0."""
        seeds = len(self.settings.seeds)
        at = torch.arange(rows.start, rows.stop, device=self.settings.device).expand(seeds, -1)
        whole, read = self.ward.whole[part].of(at), self.ward.fed[part].of(at)
        mean, _ = model.encode(read)
        found = solver(model.field, mean, self.grid)
        error = torch.where(whole.seen, model.decode(found, whole) - whole.values, 0.0).square()
        return frame.Judged(error.sum((1, 2, 3)), whole.seen[0].sum(), found)


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`; changes: fields of `Settings`. See `frame.run`."""
    return frame.run(PhysionetLatentOde, Settings, out, device, changes)
