"""How terms, and points, are weighted against one another while a network is trained: schemes as data.

A scheme is a pure function from what it remembers (tensors, so that checkpoints hold it) and what is measured to
factors of the terms [arms, T] or of the equation's points [arms, K, N]. Every arm is balanced as if it were alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final
from zlib import crc32

import torch
from torch import Tensor

from sciode.pinn.loss import Loss, Measured
from sciode.pinn.terms import EQUATION, Sample
from sciode.training import derive_seed

__all__ = ["NTK", "Balance", "GradientAnnealing", "Moment", "ReLoBRaLo", "ResidualAttention", "SelfAdaptive"]

Memory = dict[str, Tensor]


class Moment(NamedTuple):
    """What a scheme may look at: weights at first [arms, T], 0 where an arm has not the term; an iteration's seed."""

    loss: Loss
    theta: Tensor
    samples: Sequence[Sample]
    base: Tensor
    measured: Measured
    seed: int


class Balance(ABC):
    """A scheme, applied after every `every` iterations. pointwise: whether it weighs points, which then stay.

    Stages that need the same function throughout (L-BFGS, NewtonCG, least squares) take the factors of terms as the
    stage before left them. Factors of points begin anew at 1 with new points, so at every stage.
    """

    every: int
    pointwise: bool = False

    def begin(self, base: Tensor, squares: Tensor) -> Memory:
        """What is remembered at the start; squares: [arms, K, N] of the equation's points."""
        if self.pointwise:
            return {"points": torch.ones_like(squares)}
        return {"factors": torch.ones_like(base)}

    @abstractmethod
    def update(self, memory: Mapping[str, Tensor], now: Moment) -> Memory:
        """What is remembered after an iteration: "factors" of terms, or "points"."""


@final
@dataclass(frozen=True)
class NTK(Balance):
    """factor_t = (sum over terms of tr K) / tr K_t, with tr K_t the mean over points of |d residual / d theta|^2.

    Terms whose residuals move fast under gradient descent are held back. `draws` random signs estimate the traces.
    Source: Wang, Yu, Perdikaris: When and why PINNs fail to train (J. Comput. Phys. 2022).
    """

    every: int = 100
    draws: int = 4

    def __post_init__(self) -> None:
        _at_least_one(self.every, self.draws)

    def update(self, memory: Mapping[str, Tensor], now: Moment) -> Memory:
        """See `Balance.update`."""
        traces = torch.cat([self._traces(now, place) for place in range(len(now.loss.groups))], 1)
        used = now.base > 0
        total = torch.where(used, traces, 0.0).sum(1, keepdim=True)
        tiny = torch.finfo(traces.dtype).tiny
        return {"factors": torch.where(used, total / traces.clamp(min=tiny), 1.0)}

    def _traces(self, now: Moment, place: int) -> Tensor:
        """Of a group's terms [arms, T], by Hutchinson's estimate: E |J^T s|^2 = tr J J^T for random signs s."""
        found = []
        for name, rows, pulled in _pulled(now, place):
            # Signs of a term's own, the same for all arms: alone or beside others, an arm sees the same.
            generator = torch.Generator().manual_seed(derive_seed(now.seed, 1, crc32(name.encode())))
            trace = rows.new_zeros(len(rows))
            for _ in range(self.draws):
                signs = torch.randint(0, 2, rows.shape[1:], generator=generator).to(rows) * 2 - 1
                trace = trace + pulled((rows * signs).sum()).square().sum(1) / self.draws
            found.append(trace)
        return torch.stack(found, 1)


@final
@dataclass(frozen=True)
class GradientAnnealing(Balance):
    """factor_t <- keep factor_t + (1 - keep) max |d L_r / d theta| / mean |d L_t / d theta|; 1 for the equation L_r.

    Both losses with their weights at first: so what a condition pulls by becomes as large as what the equation pulls
    by, and only the equation's own weight is kept. Fault-proof: a term that pulls at nothing, being fulfilled or
    singular, keeps its factor, and a ratio beyond `most` is taken for `most`.
    Source: Wang, Teng, Perdikaris: Understanding and mitigating gradient flow pathologies in physics-informed neural
    networks (SIAM J. Sci. Comput. 43, 2021), algorithm 1: its learning rate annealing, with every and keep as in its
    code.
    """

    every: int = 10
    keep: float = 0.9
    most: float = 1e4

    def __post_init__(self) -> None:
        _at_least_one(self.every)
        if not (0 <= self.keep < 1 and 1 <= self.most < math.inf):
            raise ValueError(f"keep must lie in [0, 1) and most be at least 1, got {self}")

    def update(self, memory: Mapping[str, Tensor], now: Moment) -> Memory:
        """See `Balance.update`."""
        slopes, names = [], []
        for place in range(len(now.loss.groups)):
            for name, rows, pulled in _pulled(now, place):
                slopes.append(pulled(rows.square().sum()))
                names.append(name)
        weighted = torch.stack(slopes, 1) * now.base[..., None]
        equation = weighted[:, names.index(EQUATION)].abs().amax(1, keepdim=True)
        size = weighted.abs().mean(2)
        ratio = (equation / size).clamp(max=self.most)
        told = (now.base > 0) & (size > 0) & size.isfinite() & (equation > 0) & equation.isfinite()
        told[:, names.index(EQUATION)] = False
        kept = self.keep * memory["factors"] + (1 - self.keep) * ratio
        return {"factors": torch.where(told, kept, memory["factors"])}


def _pulled(now: Moment, place: int) -> Iterator[tuple[str, Tensor, Callable[[Tensor], Tensor]]]:
    """Of each term of a group: its name, its residuals, of which the squares sum to the term, and what takes a number
    that is made of them to its slope, [arms, P].
    """
    group, sample = now.loss.groups[place], now.samples[place]
    leaf = now.theta.detach().requires_grad_()
    with torch.enable_grad():
        root = sample.data["share"].sqrt()[..., None]
        for name, one in group.residuals(leaf, sample).items():
            yield name, one * root, lambda number: torch.autograd.grad(number, leaf, retain_graph=True)[0]


@final
@dataclass(frozen=True)
class ReLoBRaLo(Balance):
    """Terms that have fallen least, since the start or since the last look, count most.

    With s_i(t') = T softmax_i(L_i(t) / (tau L_i(t'))): factor <- alpha (rho factor + (1 - rho) s(0)) + (1 - alpha)
    s(t - 1), rho 1 with probability `stay`, else 0.
    Source: Bischof & Kraus: Multi-objective loss balancing for physics-informed deep learning (2021).
    """

    every: int = 1
    alpha: float = 0.999
    stay: float = 0.999
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _at_least_one(self.every)
        if not (0 <= self.alpha <= 1 and 0 <= self.stay <= 1 and 0 < self.temperature < math.inf):
            raise ValueError(f"alpha and stay must lie in [0, 1] and temperature above 0, got {self}")

    def begin(self, base: Tensor, squares: Tensor) -> Memory:
        """See `Balance.begin`; the first measurement is not known yet, which -1 says."""
        unknown = torch.full_like(base, -1.0)
        return {"factors": torch.ones_like(base), "first": unknown, "last": unknown}

    def update(self, memory: Mapping[str, Tensor], now: Moment) -> Memory:
        """See `Balance.update`."""
        terms, used = now.measured.terms, now.base > 0
        first = torch.where(memory["first"] < 0, terms, memory["first"])
        last = torch.where(memory["last"] < 0, terms, memory["last"])
        draw = torch.rand((), generator=torch.Generator().manual_seed(now.seed), dtype=torch.float64)
        rho = float(draw < self.stay)
        saved = rho * memory["factors"] + (1 - rho) * self._shares(terms, first, used)
        factors = self.alpha * saved + (1 - self.alpha) * self._shares(terms, last, used)
        return {"factors": factors, "first": first, "last": terms}

    def _shares(self, terms: Tensor, before: Tensor, used: Tensor) -> Tensor:
        ratio = terms / (self.temperature * before.clamp(min=torch.finfo(terms.dtype).tiny))
        shares = torch.softmax(torch.where(used, ratio, -math.inf), 1)
        return torch.where(used, shares * used.sum(1, keepdim=True), 1.0)


@final
@dataclass(frozen=True)
class ResidualAttention(Balance):
    """RBA: at each point lambda <- decay lambda + rate |r| / max |r|; |r|^2 is multiplied by lambda^2.

    lambda begins at 1 and stays below rate / (1 - decay). Source: Anagnostopoulos, Toscano, Stergiopulos, Karniadakis:
    Residual-based attention in physics-informed neural networks (Comput. Methods Appl. Mech. Eng. 2024).
    """

    every: int = 1
    decay: float = 0.999
    rate: float = 0.01
    pointwise: bool = True

    def __post_init__(self) -> None:
        _at_least_one(self.every)
        if not (0 <= self.decay < 1 and 0 < self.rate < math.inf):
            raise ValueError(f"decay must lie in [0, 1) and rate above 0, got {self}")

    def update(self, memory: Mapping[str, Tensor], now: Moment) -> Memory:
        """See `Balance.update`."""
        size = now.loss.squares(now.theta, now.samples[0]).sqrt()
        largest = size.amax((1, 2), keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)
        return {"points": (self.decay * memory["points"].sqrt() + self.rate * size / largest).square()}


@final
@dataclass(frozen=True)
class SelfAdaptive(Balance):
    """At each point a weight that ascends where the network descends: lambda <- lambda + rate |r|^2.

    Source: McClenny & Braga-Neto: Self-adaptive physics-informed neural networks (J. Comput. Phys. 2023), with the mask
    m(lambda) = lambda and plain ascent in the place of Adam.
    """

    every: int = 1
    rate: float = 0.1
    pointwise: bool = True

    def __post_init__(self) -> None:
        _at_least_one(self.every)
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate must be positive, got {self.rate}")

    def update(self, memory: Mapping[str, Tensor], now: Moment) -> Memory:
        """See `Balance.update`."""
        return {"points": memory["points"] + self.rate * now.loss.squares(now.theta, now.samples[0])}


def _at_least_one(*numbers: int) -> None:
    if min(numbers) < 1:
        raise ValueError(f"every and draws must be at least 1, got {numbers}")
