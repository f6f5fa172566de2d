"""Kernels of contexts and of sets of conditions, as formulas: elementwise over whatever broadcasts."""

from __future__ import annotations

from torch import Tensor

__all__ = ["agreement", "hamming", "squared_exponential"]


def squared_exponential(one: Tensor, other: Tensor, length: Tensor) -> Tensor:
    """Return exp(-|x - x'|^2 / (2 length^2)) for x, x' [..., d], [...]; length: a number, or [d]."""
    return (-0.5 * ((one - other) / length).square().sum(-1)).exp()


def hamming(one: Tensor, other: Tensor, weights: Tensor) -> Tensor:
    """Return exp(-sum_j weights_j [a_j != a'_j]) for sets a, a' in {0, 1}^c, [..., c] -> [...].

    weights [c] >= 0: how much of the correlation of two arms is gone if they differ in a condition, so that a condition
    with a large weight matters (automatic relevance determination). A product of kernels over {0, 1}, each with the
    eigenvalues 1 + e^-w and 1 - e^-w: positive semidefinite.
    """
    return (-((one - other).abs() * weights).sum(-1)).exp()


def agreement(one: Tensor, other: Tensor, strength: Tensor) -> Tensor:
    """Return exp(strength mean_j [a_j = a'_j]) for sets a, a' in {0, 1}^c, [..., c] -> [...], all conditions alike.

    exp(strength) at a = a', so that one number is scale and length in one. Source: Li et al. (ICML 2023), who write
    e^s for the strength.
    """
    return (strength * (1 - (one - other).abs()).mean(-1)).exp()
