"""Root-mean-square norms over a sample, or over the whole batch when its samples share one step size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["rms"]


def rms(x: Tensor, coupled: bool = False, weight: Tensor | None = None) -> Tensor:
    """sqrt(mean |x|^2) of x [B, D]: per sample [B], or over everything [1] if `coupled`.

    `weight` [D] of zeros and ones leaves features out (a seminorm): they count neither in the sum nor in the mean.
    The gradient at x = 0 is 0, not NaN.
    """
    if weight is not None:
        x = x * weight
    norm = torch.linalg.vector_norm(x).reshape(1) if coupled else torch.linalg.vector_norm(x, dim=1)
    rows = x.shape[0] if coupled else 1
    if weight is None:
        return norm * (1 / math.sqrt(max(rows * x.shape[1], 1)))
    return norm / (rows * weight.sum()).clamp(min=1).sqrt()
