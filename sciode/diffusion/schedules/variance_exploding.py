"""Schedules that leave the data alone and add noise: geometric in time (VE), and with the noise as time (EDM)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciode.diffusion.schedules.base import Schedule, double

__all__ = ["EDM", "VE"]


@dataclass(frozen=True)
class VE(Schedule):
    """alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t for t in [0, 1].

    sigma_max should exceed the largest distance between data. Source: Song et al. (2021), score-based SDEs.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"VE: expected 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    @property
    def t_max(self) -> float:
        return 1.0

    @property
    def _rate(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(double(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return torch.exp(-self.half_log_snr(t))

    def half_log_snr(self, t: Tensor | float) -> Tensor:
        return -math.log(self.sigma_min) - self._rate * double(t)

    def t_of(self, half_log_snr: Tensor | float) -> Tensor:
        return -(double(half_log_snr) + math.log(self.sigma_min)) / self._rate

    def slopes(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(double(t)), self._rate * self.sigma(t)


@dataclass(frozen=True)
class EDM(Schedule):
    """alpha = 1, sigma = t: the time IS the noise level, from sigma_max = 80 down to about 0.002.

    Source: Karras et al. (2022), elucidating the design space of diffusion models.
    """

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not self.sigma_max > 0:
            raise ValueError(f"EDM: expected sigma_max > 0, got {self.sigma_max}")

    @property
    def t_max(self) -> float:
        return self.sigma_max

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(double(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return double(t)

    def half_log_snr(self, t: Tensor | float) -> Tensor:
        return -torch.log(double(t))

    def t_of(self, half_log_snr: Tensor | float) -> Tensor:
        return torch.exp(-double(half_log_snr))

    def slopes(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(double(t)), torch.ones_like(double(t))
