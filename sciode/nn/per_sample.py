"""Scalars of each sample, as energies and Lagrangians are, and their sum, whose gradient is every sample's own."""

from __future__ import annotations

from torch import Tensor

__all__ = ["per_sample"]


def per_sample(value: Tensor, like: Tensor, name: str) -> Tensor:
    """Return `value` as [*batch] for `like` [*batch, D]; it may come as [*batch] or [*batch, 1], as a network gives it.

    Raises ValueError, naming the function, for any other shape.
    """
    batch = like.shape[:-1]
    if value.shape == (*batch, 1):
        return value.squeeze(-1)
    if value.shape != batch:
        raise ValueError(
            f"{name} must return one number a sample, {tuple(batch)} or {(*batch, 1)}, got {tuple(value.shape)}: "
            "sum over its last axis"
        )
    return value
