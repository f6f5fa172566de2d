"""MNIST by a neural SDE, trained in every way of `recipes` that goes with SDEs, with adaptive steps.

The model of "Opening the Blackbox" (Pal et al., ICML 2021): images 784 -> 32, drift 32 -> 64 tanh -> 32 and diffusion
32 -> 32 over t in [0, 1], head 32 -> 10; one trajectory an image in training, the mean of several in a test. Seeds are
stacked.
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
from sciode.experiments.recipes import ALONG_ODES
from sciode.experiments.stacked import StackedLinear
from sciode.experiments.verdicts import Score
from sciode.solvers import SDETerm, Solution
from sciode.training import derive_seed

__all__ = ["MnistSde", "Settings", "main"]

_TS = torch.tensor([0.0, 1.0], dtype=torch.float64)


@dataclass(frozen=True)
class Settings(frame.Settings):
    """images: of the training set, from its start; tested: of each other part; draws: trajectories of a test."""

    steps: int = 2000
    batch: int = 512
    lr: float = 1e-2
    tolerance: float = 0.14
    method: str = "sosri"
    images: int = 50_000
    tested: int = 10_000
    draws: int = 10


class Classifier(nn.Module):
    """What comes before the equation, drift and diffusion, and the head, of every seed's own weights."""

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()

        def layer(k: int, inputs: int, outputs: int) -> StackedLinear:
            return StackedLinear(inputs, outputs, [derive_seed(seed, k) for seed in seeds])

        self.first, self.head = layer(0, 784, 32), layer(1, 32, 10)
        self.inner, self.outer, self.noise = layer(2, 32, 64), layer(3, 64, 32), layer(4, 32, 32)

    def drift(self, t: Tensor, y: Tensor) -> Tensor:
        """tanh in between."""
        return self.outer(torch.tanh(self.inner(y)))

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        """An affine map."""
        return self.noise(y)


class MnistSde(frame.Task):
    """Digits by a neural SDE: cross-entropy, judged by accuracy."""

    title = "MNIST, neural SDE"
    score = Score("accuracy", "accuracy %", "higher", loses=0.005, scale=100.0, unit="points")
    inapplicable = ALONG_ODES

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.digits = Digits(settings.images, settings.tested, settings.device, settings.real)

    def model(self) -> Classifier:
        """Fresh weights."""
        return Classifier(self.settings.seeds)

    def loss(self, model: Classifier, step: int, solver: frame.Solver) -> tuple[Tensor, Solution]:
        """Cross-entropy of one trajectory an image."""
        images, labels = self.digits.batch(self.settings.seeds, self.settings.batch, step)
        found = self._walk(model, images, solver)
        return surprise(model.head(found.ys[-1]), labels), found

    def size(self, part: str) -> int:
        """Images."""
        return len(self.digits.parts[part][1])

    def judge(self, model: Classifier, part: str, rows: slice, solver: frame.Solver) -> frame.Judged:
        """How many are right by the mean of the classes' probabilities over the draws."""
        images, labels = (x[rows] for x in self.digits.parts[part])
        seeds, draws = len(self.settings.seeds), self.settings.draws
        found = self._walk(model, images.repeat(seeds, draws, 1), solver)
        shares = model.head(found.ys[-1]).softmax(-1).unflatten(1, (draws, len(labels))).mean(1)
        return frame.Judged((shares.argmax(-1) == labels).sum(1), len(labels), found)

    def _walk(self, model: Classifier, images: Tensor, solver: frame.Solver) -> Solution:
        y0 = model.first(images)
        term = SDETerm(model.drift, model.diffusion)
        return solver(term, y0, _TS, method=self.settings.method)


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`; changes: fields of `Settings`. See `frame.run`."""
    return frame.run(MnistSde, Settings, out, device, changes)
