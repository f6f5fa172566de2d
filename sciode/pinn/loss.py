"""The loss of every arm and its gradient, in parts that fit into memory, and the same as least squares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from sciode.pinn.causal import Causal
from sciode.pinn.terms import EQUATION, Group, Numbers, Sample
from sciode.training import Block, derive_seed

__all__ = ["Loss", "Measured", "Weights"]


@dataclass(frozen=True)
class Weights:
    """What terms are multiplied by at first: the equation, each condition, each interface condition.

    The defaults are those of Li et al. (ICML 2023); own: weights of terms by their names, in the place of these, as
    pairs or a mapping. ValueError for negative ones.
    """

    equation: float = 1.0
    data: float = 20.0
    interface: float = 5.0
    own: tuple[tuple[str, float], ...] | Mapping[str, float] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "own", tuple(dict(self.own).items()))
        values = (self.equation, self.data, self.interface, *dict(self.own).values())
        if not all(0 <= value < math.inf for value in values):
            raise ValueError(f"weights must be finite and >= 0, got {self}")


class Measured(NamedTuple):
    """Of every arm: the loss [arms], its gradient [arms, P], and the terms without weights [arms, T]."""

    loss: Tensor
    gradient: Tensor
    terms: Tensor


@final
class Loss:
    """sum_t weights[arm, t] term_t(theta[arm]), for all arms at once.

    groups: what is evaluated. chunk: how many points of a set are evaluated at a time, None = all: less memory, the
    same numbers to rounding (products with the Hessian, for `NewtonCG`, take all at once). causal: weights of the
    equation's points by what is left to do at earlier times. summed: sums over processes that divide the points.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        chunk: int | None = None,
        causal: Causal | None = None,
        summed: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, or None for all, got {chunk}")
        self.groups, self.chunk, self.causal, self.summed = groups, chunk, causal, summed
        self.names = tuple(name for group in groups for name in group.names)
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"terms need names of their own, got {', '.join(self.names)}")

    def draw(self, numbers: Numbers, seed: int, like: Tensor) -> list[Sample]:
        """Points of all groups for one seed."""
        found = []
        for place, group in enumerate(self.groups):
            sample = group.draw(numbers, derive_seed(seed, 4, place) % 2**31, like)
            assert sample is not None
            found.append(sample)
        return found

    def measure(
        self, theta: Tensor, samples: Sequence[Sample], weights: Tensor, multiplier: Tensor | None = None
    ) -> Measured:
        """The loss, its gradient and its terms. multiplier: of the squares at the equation's points, [arms, K, N]."""
        if self.causal is not None:
            squares, problem = self.squares(theta, samples[0]), self.groups[0].problem
            earlier = self.causal.weights(squares, samples[0], problem, self.summed)
            multiplier = earlier if multiplier is None else multiplier * earlier
        gradient, terms = torch.zeros_like(theta), theta.new_zeros(len(theta), len(self.names))
        loss = theta.new_zeros(len(theta))
        place = 0
        for group, sample in zip(self.groups, samples, strict=True):
            many = slice(place, place + len(group.names))
            for begin in range(0, sample.count, self.chunk or sample.count):
                end = min(begin + (self.chunk or sample.count), sample.count)
                factor = None
                if multiplier is not None and group.names == (EQUATION,):
                    factor = multiplier[:, :, begin:end]
                leaf = theta.detach().requires_grad_()
                with torch.enable_grad():
                    plain, pressed = _terms(group, leaf, sample.rows(begin, end), factor)
                    # An arm that leaves a condition out is not touched by what it comes to there.
                    used = weights[:, many] > 0
                    total = torch.where(used, weights[:, many] * pressed, 0.0).sum(1)
                    own = torch.autograd.grad(total.sum(), leaf)[0]
                if len(group.names) > 1 and bool((total.isfinite() & ~own.isfinite().all(1)).any()):
                    own = _term_by_term(group, theta, sample.rows(begin, end), weights[:, many])
                gradient = gradient + own
                loss = loss + total.detach()
                terms[:, many] += plain.detach()
            place += len(group.names)
        return Measured(loss, gradient, terms)

    def terms(self, theta: Tensor, samples: Sequence[Sample]) -> Tensor:
        """The terms without weights [arms, T], without a gradient."""
        with torch.no_grad():
            return torch.cat([_terms(g, theta, s, None)[0] for g, s in zip(self.groups, samples, strict=True)], 1)

    def squares(self, theta: Tensor, sample: Sample) -> Tensor:
        """|residual|^2 of the equation at a sample's points, [arms, K, N], without a gradient."""
        with torch.no_grad():
            return self.groups[0].residuals(theta, sample)[EQUATION].square().sum(-1)

    def curvature(
        self, theta: Tensor, samples: Sequence[Sample], weights: Tensor, multiplier: Tensor | None = None
    ) -> Callable[[Tensor], Tensor]:
        """v -> H v with the Hessian of each arm's loss at theta, by a second pass back through the gradient's graph."""
        leaf = theta.detach().requires_grad_()
        with torch.enable_grad():
            total, place = theta.new_zeros(()), 0
            for group, sample in zip(self.groups, samples, strict=True):
                many = slice(place, place + len(group.names))
                place += len(group.names)
                pressed = _terms(group, leaf, sample, multiplier if group.names == (EQUATION,) else None)[1]
                total = total + torch.where(weights[:, many] > 0, weights[:, many] * pressed, 0.0).sum()
            slope = torch.autograd.grad(total, leaf, create_graph=True)[0]

        def product(vector: Tensor) -> Tensor:
            return torch.autograd.grad(slope, leaf, vector, retain_graph=True)[0]

        return product

    def blocks(self, samples: Sequence[Sample], weights: Tensor, arm: int = 0) -> list[Block]:
        """One arm's loss as blocks of residuals that look at one point each, for `sciode.training.minimise`."""
        found, place = [], 0
        for group, sample in zip(self.groups, samples, strict=True):
            own = dict(zip(group.names, weights[arm, place : place + len(group.names)].tolist(), strict=True))
            place += len(group.names)
            if not any(own.values()):
                continue
            for k in range(sample.data["share"].shape[1]):
                alone = sample.group(k, arm)
                points = {name: value[0, 0] for name, value in alone.data.items()}
                found.append(Block(_pointwise(group, alone.which, own, sample.count), points))
        return found


def _terms(group: Group, theta: Tensor, sample: Sample, factor: Tensor | None) -> tuple[Tensor, Tensor]:
    """The terms of a group [arms, T], and the same with points multiplied by `factor`."""
    squares = torch.stack([rows.square().sum(-1) for rows in group.residuals(theta, sample).values()], 1)
    shared = squares * sample.data["share"][:, None]
    plain = shared.sum((2, 3))
    return plain, plain if factor is None else (shared * factor[:, None]).sum((2, 3))


def _term_by_term(group: Group, theta: Tensor, sample: Sample, weights: Tensor) -> Tensor:
    """The gradient of a group's terms, none of which reaches an arm that leaves it out: taken together, one that is
    singular there would reach it as 0 times infinity.
    """
    leaf, found = theta.detach().requires_grad_(), torch.zeros_like(theta)
    with torch.enable_grad():
        for rows, weight in zip(group.residuals(leaf, sample).values(), weights.unbind(1), strict=True):
            term = rows.square().sum(-1) * sample.data["share"]
            slope = torch.autograd.grad(term.sum(), leaf, retain_graph=True)[0]
            found = found + torch.where(weight[:, None] > 0, weight[:, None] * slope, 0.0)
    return found


def _pointwise(group: Group, which: tuple[int, ...], weights: Mapping[str, float], count: int) -> Any:
    """(theta [P], one point) -> the residuals of a group there, each scaled by its weight and its point's share."""
    used = {name: math.sqrt(weight) for name, weight in weights.items() if weight}

    def residual(theta: Tensor, point: Mapping[str, Tensor]) -> Tensor:
        sample = Sample(which, {name: value[None, None, None] for name, value in point.items()})
        rows = group.residuals(theta[None], sample)
        own = torch.cat([rows[name][0, 0, 0] * scale for name, scale in used.items()])
        # The square root of a share of nothing has no slope, and needs none: shares are data.
        return own * (count * point["share"]).sqrt()

    return residual
