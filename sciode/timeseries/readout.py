"""From the latent state at a series' own end to the logits of its class."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sciode.nn import mlp
from sciode.solvers import Solution
from sciode.timeseries.linear_noise import Form, LinearNoiseSDE
from sciode.timeseries.model import Batch, Paths, SequenceModel
from sciode.timeseries.pooling import Pools, grid_queries


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


def class_head(hidden: int, classes: int, width: int | None = None) -> nn.Sequential:
    """Return the network from a state [B, H], or features [B, width], to logits [B, classes], see `SDEClassifier`."""
    return nn.Sequential(
        nn.Tanh(),
        mlp([width or hidden, hidden, hidden, hidden]),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(hidden, classes),
    )


class PathClassifier(nn.Module):
    """Any sequence model with the head of `SDEClassifier`: logits = head(pools of the path up to each series' own end).

    readout: a name in `READOUTS`, "last" = the state at the end alone.
    """

    def __init__(self, backbone: SequenceModel, classes: int, readout: str = "last") -> None:
        super().__init__()
        self.backbone = backbone
        self.pools = Pools(readout, backbone.hidden)
        self.head = class_head(backbone.hidden, classes, self.pools.width)

    def forward(self, batch: Batch, seed: int | Tensor, **options: Any) -> tuple[Tensor, Paths]:
        """Return (logits [B, classes], the paths); options: those of `SequenceModel.forward`."""
        if not self.pools.whole:
            paths = self.backbone(batch, None, seed, **options)
            return self.head(paths.last), paths
        queries = grid_queries(batch)
        paths = self.backbone(batch, queries, seed, **options)
        return self.head(self.pools(paths.states, paths.last, queries)), paths
