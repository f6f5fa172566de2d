"""A state of two halves of equal width: (x, v), (q, p)."""

from __future__ import annotations

from torch import Tensor

__all__ = ["halves"]


def halves(y: Tensor, meaning: str) -> tuple[Tensor, Tensor]:
    """Return the first and the last D components of y [*batch, 2 D]; meaning: their names in the error, "(x, v)".

    Raises ValueError if y has no last axis of even width.
    """
    if y.ndim < 1 or y.shape[-1] % 2 or not y.shape[-1]:
        raise ValueError(f"y must be {meaning} side by side, an even last axis [*batch, 2 D], got {tuple(y.shape)}")
    width = y.shape[-1] // 2
    return y[..., :width], y[..., width:]
