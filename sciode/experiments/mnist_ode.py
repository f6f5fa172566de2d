"""MNIST by a neural ODE, trained in every way of `recipes`: accuracy, and how many evaluations a prediction takes.

The model of "Opening the Blackbox" (Pal et al., ICML 2021): images as states [784] of a field 784 (+ t) -> 100 tanh
(+ t) -> 784 tanh over t in [0, 1], and a linear head. Seeds are stacked: one solve trains them all, each by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sciode.experiments import frame
from sciode.experiments.digits import Digits, surprise
from sciode.experiments.stacked import StackedLinear
from sciode.experiments.verdicts import Score
from sciode.solvers import Solution
from sciode.training import derive_seed

__all__ = ["MnistOde", "Settings", "main"]

_TS = torch.tensor([0.0, 1.0], dtype=torch.float64)


@dataclass(frozen=True)
class Settings(frame.Settings):
    """images: how many of the training set, from its start; tested: how many of each other part."""

    steps: int = 3000
    batch: int = 512
    images: int = 50_000
    tested: int = 10_000


class Field(nn.Module):
    """t [S, B, 1], y [S, B, 784] -> tanh(W2 [tanh(W1 [y, t]), t]) of every seed's own weights."""

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.inner = StackedLinear(785, 100, seeds)
        self.outer = StackedLinear(101, 784, [derive_seed(seed, 1) for seed in seeds])

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The slope, time appended to both layers."""
        hidden = torch.tanh(self.inner(torch.cat([y, t], -1)))
        return torch.tanh(self.outer(torch.cat([hidden, t], -1)))


class Classifier(nn.Module):
    """The field and the head of every seed."""

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.field = Field(seeds)
        self.head = StackedLinear(784, 10, [derive_seed(seed, 2) for seed in seeds])


class MnistOde(frame.Task):
    """Digits by a neural ODE: cross-entropy, judged by accuracy."""

    title = "MNIST, neural ODE"
    score = Score("accuracy", "accuracy %", "higher", loses=0.005, scale=100.0, unit="points")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.digits = Digits(settings.images, settings.tested, settings.device, settings.real)

    def model(self) -> Classifier:
        """Fresh weights."""
        return Classifier(self.settings.seeds)

    def loss(self, model: Classifier, step: int, solver: frame.Solver) -> tuple[Tensor, Solution]:
        """Cross-entropy."""
        y0, labels = self.digits.batch(self.settings.seeds, self.settings.batch, step)
        found = solver(model.field, y0, _TS)
        return surprise(model.head(found.ys[-1]), labels), found

    def size(self, part: str) -> int:
        """Images."""
        return len(self.digits.parts[part][1])

    def judge(self, model: Classifier, part: str, rows: slice, solver: frame.Solver) -> frame.Judged:
        """How many are right."""
        images, labels = (x[rows] for x in self.digits.parts[part])
        y0 = images.expand(len(self.settings.seeds), -1, -1).contiguous()
        found = solver(model.field, y0, _TS)
        right = model.head(found.ys[-1]).argmax(-1) == labels
        return frame.Judged(right.sum(1), len(labels), found)


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`; changes: fields of `Settings`. See `frame.run`."""
    return frame.run(MnistOde, Settings, out, device, changes)
