"""The best linear guess beside the straight line: one Euler step of x' = A x + b from the nearest readings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sciode.timeseries.surroundings import Surroundings

__all__ = ["LinearStep"]

_RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Weights of the penalty that validation chooses from, in readings' worth a told reading."""
_AT_ONCE = 1 << 16


class LinearStep(NamedTuple):
    """x_c(t) = line_c + u_c (b_c + sum_j A_cj line_j), with u the time to the readings around t,

        1 / u_c = 1 / before_c + 1 / after_c,

    which is 0 at a reading and grows to the distance of the nearest one. weights [C, 1 + C]: (b, A), in standardised
    values and the model's time. What the equation's own channels say about one another is all that it can learn: a
    model that solves an equation should do better.
    """

    weights: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, train: tuple[Surroundings, Tensor], held: tuple[Surroundings, Tensor]) -> LinearStep:
        """Learn from (surroundings, values told [n, Q, C], NaN = not told) by least squares with a ridge.

        The ridge is the one of least squared error on what is held out; channels of which nothing is told keep 0.
        """
        gram, moment, count = _moments(*train)
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype)
        scale = count.clamp(min=1.0).view(-1, 1, 1)
        found = [torch.linalg.solve(gram + ridge * scale * eye, moment.unsqueeze(-1)).squeeze(-1) for ridge in _RIDGES]
        losses = [_loss(weights, *held) for weights in found]
        best = found[min(range(len(found)), key=losses.__getitem__)]
        return cls(tuple(tuple(row) for row in best.tolist()))

    def __call__(self, near: Surroundings) -> Tensor:
        """The guess [n, Q, C] float32."""
        return _step(torch.tensor(self.weights, dtype=torch.float64), near).float()


def _reach(near: Surroundings) -> Tensor:
    before, after = near.before.double(), near.after.double()
    return before * after / (before + after).clamp(min=1e-12)


def _known(near: Surroundings) -> Tensor:
    line = near.line.double()
    return torch.cat((torch.ones_like(line[..., :1]), line), -1)


def _step(weights: Tensor, near: Surroundings) -> Tensor:
    return near.line.double() + _reach(near) * (_known(near) @ weights.mT)


def _moments(near: Surroundings, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over what is told, for each channel: u^2 x x^T [C, P, P], u x (y - line) [C, P], and how much [C]."""
    parts: Sequence[Tensor] = (_known(near), _reach(near), target.double() - near.line.double())
    known, reach, rise = (part.flatten(0, 1) for part in parts)
    channels, width = rise.shape[1], known.shape[1]
    gram = torch.zeros(channels, width, width, dtype=torch.float64)
    moment = torch.zeros(channels, width, dtype=torch.float64)
    for rows in torch.arange(len(rise)).split(_AT_ONCE):
        for channel in range(channels):
            own = rows[~rise[rows, channel].isnan()]
            scaled = known[own] * reach[own, channel].unsqueeze(1)
            gram[channel] += scaled.mT @ scaled
            moment[channel] += scaled.mT @ rise[own, channel]
    return gram, moment, (~rise.isnan()).sum(0).double()


def _loss(weights: Tensor, near: Surroundings, target: Tensor) -> float:
    return float((_step(weights, near) - target.double()).square().nanmean())
