"""Which arm to play, given the joint posterior of their rewards: rules by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Generator, Tensor

__all__ = ["RULES", "drawn", "greedy", "marginal", "thompson", "upper_bound"]

_DRAWS = 20

Rule = Callable[[Tensor, Tensor, float, Generator], int]


def drawn(mean: Tensor, covariance: Tensor, count: int, generator: Generator) -> Tensor:
    """Return draws [count, A] of N(mean, covariance), float64; eigenvalues that rounding made negative are 0."""
    values, vectors = torch.linalg.eigh(covariance)
    noise = torch.randn(count, len(mean), generator=generator, dtype=mean.dtype)
    return mean + (noise * values.clamp(min=0.0).sqrt()) @ vectors.T


def _spread(covariance: Tensor) -> Tensor:
    return covariance.diagonal().clamp(min=0.0).sqrt()


def greedy(mean: Tensor, covariance: Tensor, constant: float, generator: Generator) -> int:
    """Return the arm of the largest mean: for tasks that nothing is to be learnt from."""
    return int(mean.argmax())


def upper_bound(mean: Tensor, covariance: Tensor, constant: float, generator: Generator) -> int:
    """Return the arm of the largest mean + constant sigma."""
    return int((mean + constant * _spread(covariance)).argmax())


def thompson(mean: Tensor, covariance: Tensor, constant: float, generator: Generator) -> int:
    """Return the best arm of one draw of all rewards together, so that arms that are alike rise and fall together."""
    return int(drawn(mean, covariance, 1, generator)[0].argmax())


def marginal(mean: Tensor, covariance: Tensor, constant: float, generator: Generator) -> int:
    """Return the arm with the largest of 20 draws an arm, each arm by itself, as the authors' code has it.

    That explores more than Thompson sampling: the maximum of 20 lies 1.87 sigma above the mean, arms' likeness unused.
    """
    noise = torch.randn(_DRAWS, len(mean), generator=generator, dtype=mean.dtype)
    return int((mean + noise * _spread(covariance)).amax(0).argmax())


RULES: Mapping[str, Rule] = MappingProxyType(
    {"ucb": upper_bound, "thompson": thompson, "marginal": marginal, "greedy": greedy}
)
"""By name: (mean [A], covariance [A, A], constant, generator) -> arm."""
