"""Variance-preserving schedules, alpha^2 + sigma^2 = 1: linear, scaled-linear and cosine."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sciode.diffusion.schedules.base import Schedule, double

__all__ = ["VPCosine", "VPLinear", "VPScaledLinear"]


class _Integrated(Schedule):
    """alpha = exp(-I / 2), sigma^2 = 1 - exp(-I) for the integral I(t) of beta: I = log(1 + exp(-2 lambda))."""

    @property
    def t_max(self) -> float:
        return 1.0

    @abstractmethod
    def beta(self, t: Tensor | float) -> Tensor:
        """The rate of forgetting, dI/dt."""

    @abstractmethod
    def _integral(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _inverse(self, integral: Tensor) -> Tensor: ...

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.exp(-0.5 * self._integral(double(t)))

    def sigma(self, t: Tensor | float) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._integral(double(t))))

    def half_log_snr(self, t: Tensor | float) -> Tensor:
        return -0.5 * torch.log(torch.expm1(self._integral(double(t))))

    def t_of(self, half_log_snr: Tensor | float) -> Tensor:
        return self._inverse(torch.nn.functional.softplus(-2 * double(half_log_snr), threshold=700))

    def slopes(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        alpha, sigma, beta = self.alpha(t), self.sigma(t), self.beta(t)
        return -0.5 * beta * alpha, 0.5 * beta * alpha**2 / sigma


@dataclass(frozen=True)
class VPLinear(_Integrated):
    """log alpha = -(beta1 - beta0) t^2 / 4 - beta0 t / 2 for t in [0, 1].

    beta0, beta1: rates at t = 0 and 1; 0.1 and 20 are the field's values. Source: Song et al. (2021), score-based SDEs.
    """

    beta0: float = 0.1
    beta1: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta0 < self.beta1:
            raise ValueError(f"VPLinear: expected 0 < beta0 < beta1, got {self.beta0} and {self.beta1}")

    def beta(self, t: Tensor | float) -> Tensor:
        return self.beta0 + (self.beta1 - self.beta0) * double(t)

    def _integral(self, t: Tensor) -> Tensor:
        return (0.5 * (self.beta1 - self.beta0) * t + self.beta0) * t

    def _inverse(self, integral: Tensor) -> Tensor:
        # The root of a quadratic in the form that does not cancel.
        return 2 * integral / (torch.sqrt(self.beta0**2 + 2 * (self.beta1 - self.beta0) * integral) + self.beta0)


@dataclass(frozen=True)
class VPScaledLinear(_Integrated):
    """beta(t) = (sqrt(beta0) + t (sqrt(beta1) - sqrt(beta0)))^2 for t in [0, 1].

    0.85 and 12 are the rates of Stable Diffusion, 1000 times those of its table. Source: Rombach et al. (2022).
    """

    beta0: float = 0.85
    beta1: float = 12.0

    def __post_init__(self) -> None:
        if not 0 < self.beta0 < self.beta1:
            raise ValueError(f"VPScaledLinear: expected 0 < beta0 < beta1, got {self.beta0} and {self.beta1}")

    def beta(self, t: Tensor | float) -> Tensor:
        return (math.sqrt(self.beta0) + self._rise * double(t)) ** 2

    @property
    def _rise(self) -> float:
        return math.sqrt(self.beta1) - math.sqrt(self.beta0)

    def _integral(self, t: Tensor) -> Tensor:
        step = self._rise * t
        return t * (self.beta0 + math.sqrt(self.beta0) * step + step**2 / 3)

    def _inverse(self, integral: Tensor) -> Tensor:
        root0 = math.sqrt(self.beta0)
        root = (self.beta0**1.5 + 3 * self._rise * integral) ** (1 / 3)
        return 3 * integral / (root**2 + root * root0 + root0**2)


@dataclass(frozen=True)
class VPCosine(Schedule):
    """alpha = cos(a(t)) / cos(a(0)) with a(t) = (pi / 2) (t + s) / (1 + s), for t in [0, 1).

    s keeps the first noise from being too small; t_max = 0.9946 is where lambda is about -5.1, beyond which alpha is
    too small to divide by. Source: Nichol, Dhariwal (2021), improved DDPM.
    """

    s: float = 0.008

    @property
    def t_max(self) -> float:
        return 0.9946

    def _angle(self, t: Tensor | float) -> Tensor:
        return 0.5 * math.pi * (double(t) + self.s) / (1 + self.s)

    @property
    def _first(self) -> float:
        return 0.5 * math.pi * self.s / (1 + self.s)

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.cos(self._angle(t)) / math.cos(self._first)

    def sigma(self, t: Tensor | float) -> Tensor:
        # cos^2 a0 - cos^2 a = sin(a - a0) sin(a + a0)
        step, first = 0.5 * math.pi * double(t) / (1 + self.s), self._first
        return torch.sqrt(torch.sin(step) * torch.sin(step + 2 * first)) / math.cos(first)

    def half_log_snr(self, t: Tensor | float) -> Tensor:
        return torch.log(self.alpha(t)) - torch.log(self.sigma(t))

    def t_of(self, half_log_snr: Tensor | float) -> Tensor:
        # tan a = sigma' / alpha' with sin^2 a = sigma^2 cos^2 a0 + sin^2 a0.
        squared = torch.sigmoid(-2 * double(half_log_snr))
        c, s = math.cos(self._first), math.sin(self._first)
        sine = torch.sqrt(squared * c**2 + s**2)
        cosine = torch.sqrt(torch.sigmoid(2 * double(half_log_snr))) * c
        # sin(a - a0) = sin a cos a0 - cos a sin a0 = sigma^2 cos^2 a0 / sin(a + a0)
        step = torch.asin(squared * c**2 / (sine * c + cosine * s))
        away = torch.atan2(sine, cosine) - self._first
        # The sine keeps digits near 0, and folds beyond a right angle.
        return torch.where(away < 0.5, step, away) * 2 * (1 + self.s) / math.pi

    def slopes(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        rate = 0.5 * math.pi / (1 + self.s)
        down = -rate * torch.sin(self._angle(t)) / math.cos(self._first)
        return down, -self.alpha(t) * down / self.sigma(t)
