"""From the latent state at a series' own end to the logits of its class."""

from __future__ import annotations

from torch import Tensor, nn

from sciode.nn import mlp
from sciode.solvers import Solution
from sciode.timeseries.linear_noise import Form, LinearNoiseSDE


class SDEClassifier(nn.Module):
    """Neural LNSDE and read-out: logits = head(z(T)), T each series' own last time.

    The head is tanh, an MLP of two affine maps, then affine, BatchNorm, relu, dropout 0.1, affine, as in the authors'
    code (arXiv 2402.14989). BatchNorm's running averages need some 10 epochs of few minibatches to settle.
    """

    def __init__(self, channels: int, classes: int, hidden: int = 32, layers: int = 2, form: Form = "clipped") -> None:
        super().__init__()
        self.sde = LinearNoiseSDE(channels, hidden, layers, form)
        self.head = nn.Sequential(
            nn.Tanh(),
            mlp([hidden, hidden, hidden, hidden]),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(hidden, classes),
        )

    def forward(
        self, control: Tensor, dt: float, ends: Tensor, seed: int | Tensor, *, throw: bool = True
    ) -> tuple[Tensor, Solution]:
        """Return (logits [B, classes], the solution); arguments as for `LinearNoiseSDE`."""
        solution = self.sde(control, dt, ends, seed, throw=throw)
        return self.head(solution.ys[-1]), solution
