"""Points that go where the residual is large, for every arm its own: RAD and R3."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciode.pde import resampled
from sciode.pinn.distributed import Share
from sciode.pinn.loss import Loss
from sciode.pinn.terms import Inside, Numbers, Sample
from sciode.training import derive_seed

__all__ = ["R3", "RAD", "Adaptive"]


class Adaptive(ABC):
    """How the equation's points are drawn anew, given those there are: points [arms or 1, pieces, N, d]."""

    @abstractmethod
    def points(
        self, loss: Loss, theta: Tensor, old: Tensor, numbers: Numbers, seed: int, share: Share | None = None
    ) -> Tensor:
        """New points [arms, pieces, N, d], float64 on the host. share: of a run on several processes, for `sizes`."""


@final
@dataclass(frozen=True)
class RAD(Adaptive):
    """Points drawn from candidates with density |r|^k / mean |r|^k + c in each piece: see `sciode.pde.weighted`.

    candidates: so many times as many as points. Source: Wu, Zhu, Tan, Kartha, Lu (arXiv 2207.10289).
    """

    power: float = 1.0
    floor: float = 1.0
    candidates: int = 10

    def __post_init__(self) -> None:
        if self.candidates < 1 or not (0 <= self.power < math.inf and 0 <= self.floor < math.inf):
            raise ValueError(f"candidates must be >= 1, power and floor >= 0, got {self}")

    def points(
        self, loss: Loss, theta: Tensor, old: Tensor, numbers: Numbers, seed: int, share: Share | None = None
    ) -> Tensor:
        """See `Adaptive.points`."""
        inside = loss.groups[0]
        assert isinstance(inside, Inside)
        many = inside.of.decomposition.inside(self.candidates * numbers.inside, numbers.how, seed)[None]
        size = sizes(loss, theta, many, share)
        chosen = resampled(size.cpu().double(), numbers.inside, derive_seed(seed, 2) % 2**31, self.power, self.floor)
        return many.expand(len(theta), -1, -1, -1).gather(2, chosen[..., None].expand(-1, -1, -1, many.shape[-1]))


@final
@dataclass(frozen=True)
class R3(Adaptive):
    """Retain points whose residual is above their piece's mean, resample the rest uniformly, release what has fallen.

    Source: Daw, Bu, Wang, Perdikaris, Karpatne: Mitigating propagation failures in physics-informed neural networks
    using retain-resample-release sampling (ICML 2023).
    """

    def points(
        self, loss: Loss, theta: Tensor, old: Tensor, numbers: Numbers, seed: int, share: Share | None = None
    ) -> Tensor:
        """See `Adaptive.points`."""
        inside = loss.groups[0]
        fresh = inside.of.decomposition.inside(old.shape[2], "random", seed)[None]
        size = sizes(loss, theta, old, share).cpu()
        kept = size > size.mean(-1, keepdim=True)
        return torch.where(kept[..., None], old, fresh)


def sizes(loss: Loss, theta: Tensor, points: Tensor, share: Share | None = None) -> Tensor:
    """Return |r| at points [arms or 1, pieces, N, d]: [arms, pieces, N]; 0 where it is not finite, as in lost arms."""
    inside = loss.groups[0]
    assert isinstance(inside, Inside)
    found: Sample = inside.sample(points, theta)
    squares = loss.squares(theta, found) if share is None else share.squares(loss, theta, found)
    # Under windows the pieces' points are one set.
    return squares.sqrt().reshape(len(theta), points.shape[1], points.shape[2]).nan_to_num(0.0, 0.0, 0.0)
