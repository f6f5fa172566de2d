"""How far two batches are apart, a number a sample: what losses of training and of distillation are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

__all__ = ["Distance", "elementwise_huber", "pseudo_huber", "pyramid", "squared"]

Distance = Callable[[Tensor, Tensor], Tensor]
"""(a [B, ...], b [B, ...]) -> [B], zero where they are equal. A perceptual one (LPIPS, features of a classifier) has
this form, too; none with trained weights is included."""


def squared(a: Tensor, b: Tensor) -> Tensor:
    """The mean square of the difference."""
    return (a - b).flatten(1).square().mean(1)


def pseudo_huber(share: float = 0.00054) -> Distance:
    """(sqrt(|d|^2 + c^2) - c) / D with c = share x D for D components: square for small differences, length for large.

    Source: Lee et al. (2024), with the share of their code.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        d = (a - b).flatten(1)
        c = share * d.shape[1]
        return _huber(d.square().sum(1), c) / d.shape[1]

    return distance


def elementwise_huber(c: float = 1e-3) -> Distance:
    """The mean of sqrt(d^2 + c^2) - c over the components. Source: Xu et al. (2024), SLAM."""
    return lambda a, b: _huber((a - b).flatten(1).square(), c).mean(1)


def _huber(square: Tensor, c: float) -> Tensor:
    # sqrt(s + c^2) - c without its cancellation.
    return square / ((square + c * c).sqrt() + c)


def pyramid(levels: int = 3, c: float = 1e-3) -> Distance:
    """`elementwise_huber` at full size and at `levels` - 1 halved ones, averaged: coarse errors count more.

    A premetric without weights, where rfpp has LPIPS; what LPIPS adds there is not reproduced by it.
    """
    one = elementwise_huber(c)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        parts = [one(a, b)]
        for _ in range(levels - 1):
            a, b = avg_pool2d(a, 2), avg_pool2d(b, 2)
            parts.append(one(a, b))
        return torch.stack(parts).mean(0)

    return distance
