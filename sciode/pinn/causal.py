"""Causal weights: later times count when earlier ones are solved."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciode.pinn.problem import Problem
from sciode.pinn.terms import Sample

__all__ = ["Causal"]


@dataclass(frozen=True)
class Causal:
    """w(t) = exp(-epsilon sum of the mean squared residuals of the slabs of time before that of t).

    epsilon: > 0; raise it in stages, 0.01 to 100, and stop when the last slab's weight is near 1. slabs: how many.
    Raises ValueError for other numbers. Source: Wang, Sankaran, Perdikaris: Respecting causality is all you need for
    training physics-informed neural networks (arXiv 2203.07404).
    """

    epsilon: float = 1.0
    slabs: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf or self.slabs < 2:
            raise ValueError(f"epsilon must be positive and slabs at least 2, got {self.epsilon} and {self.slabs}")

    def weights(
        self, squares: Tensor, sample: Sample, problem: Problem, summed: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Return weights of points [arms, K, N] from their squared residuals [arms, K, N].

        summed: sums over processes, where these have some of the points each.
        """
        assert problem.time is not None
        axis = problem.names.coordinates.index(problem.time)
        hull = problem.domain.hull
        share = (sample.data["points"][..., axis] - hull.low[axis]) / (hull.high[axis] - hull.low[axis])
        slab = (share * self.slabs).long().clamp(0, self.slabs - 1).expand(squares.shape).flatten(1)
        flat = squares.flatten(1)
        sums = flat.new_zeros(len(flat), self.slabs).scatter_add(1, slab, flat)
        counts = torch.zeros_like(sums).scatter_add(1, slab, torch.ones_like(flat))
        if summed is not None:
            sums, counts = summed(torch.stack((sums, counts)))
        means = sums / counts.clamp(min=1)
        before = means.cumsum(1) - means
        return torch.exp(-self.epsilon * before).gather(1, slab).reshape(squares.shape)
