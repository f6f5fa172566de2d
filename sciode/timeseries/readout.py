"""From the latent state at a series' own end to the logits of its class."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sciode.nn import mlp
from sciode.solvers import Solution
from sciode.timeseries.linear_noise import Form, LinearNoiseSDE
from sciode.timeseries.model import Batch, Paths, SequenceModel


class SDEClassifier(nn.Module):
    """Neural LNSDE and read-out: logits = head(z(T)), T each series' own last time.

    The head is tanh, an MLP of two affine maps, then affine, BatchNorm, relu, dropout 0.1, affine, as in the authors'
    code (arXiv 2402.14989). BatchNorm's running averages need some 10 epochs of few minibatches to settle.
    """

    def __init__(self, channels: int, classes: int, hidden: int = 32, layers: int = 2, form: Form = "clipped") -> None:
        super().__init__()
        self.sde = LinearNoiseSDE(channels, hidden, layers, form)
        self.head = class_head(hidden, classes)

    def forward(
        self, control: Tensor, dt: float, ends: Tensor, seed: int | Tensor, *, throw: bool = True
    ) -> tuple[Tensor, Solution]:
        """Return (logits [B, classes], the solution); arguments as for `LinearNoiseSDE`."""
        solution = self.sde(control, dt, ends, seed, throw=throw)
        return self.head(solution.ys[-1]), solution


def class_head(hidden: int, classes: int) -> nn.Sequential:
    """Return the network from a state [B, H] to logits [B, classes], see `SDEClassifier`."""
    return nn.Sequential(
        nn.Tanh(),
        mlp([hidden, hidden, hidden, hidden]),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(hidden, classes),
    )


class PathClassifier(nn.Module):
    """Any sequence model with the read-out of `SDEClassifier`: logits = head(state at each series' own end)."""

    def __init__(self, backbone: SequenceModel, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = class_head(backbone.hidden, classes)

    def forward(self, batch: Batch, seed: int | Tensor, **options: Any) -> tuple[Tensor, Paths]:
        """Return (logits [B, classes], the paths); options: those of `SequenceModel.forward`."""
        paths = self.backbone(batch, None, seed, **options)
        return self.head(paths.last), paths
