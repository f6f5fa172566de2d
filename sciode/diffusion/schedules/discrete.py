"""A table of noise levels, as a network trained on it knows them, made continuous; and zero terminal SNR."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciode.diffusion.schedules.base import Schedule, double

__all__ = ["Discrete", "zero_terminal_snr"]


@dataclass(frozen=True, eq=False)
class Discrete(Schedule):
    """The table alpha_bar[i] = alpha(i)^2 at t = i = 0, ..., T - 1, and between its entries a line of the noise angle.

    The angle theta = atan(sigma / alpha) = atan(exp(-lambda)) is finite even where alpha is 0, so that tables with zero
    terminal SNR need no special case, and the inverse is exact. Times are indices, but none is ever rounded: the model
    is called at t = 499.7 if that is where a step ends. alpha_bar [T] falls strictly within [0, 1).
    Good values: `Discrete.linear()`, `Discrete.scaled_linear()`, or a model's own `alphas_cumprod`.
    """

    alpha_bar: Sequence[float] | Tensor
    _theta: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        table = double(torch.as_tensor(self.alpha_bar)).detach().cpu()
        if table.ndim != 1 or table.numel() < 2 or not bool((table.diff() < 0).all()):
            raise ValueError("Discrete: alpha_bar must be one-dimensional and fall strictly")
        if not (float(table[-1]) >= 0 and float(table[0]) < 1):
            raise ValueError("Discrete: alpha_bar must lie in [0, 1)")
        object.__setattr__(self, "_theta", torch.atan2(torch.sqrt(1 - table), torch.sqrt(table)))

    def __repr__(self) -> str:
        first, last = (float(self.alpha(t)) ** 2 for t in (0.0, self.t_max))
        return f"Discrete({len(self._theta)} levels, alpha_bar {first:.6g} to {last:.3g})"

    @staticmethod
    def linear(beta0: float = 1e-4, beta1: float = 0.02, length: int = 1000) -> Discrete:
        """The table of Ho et al. (2020): beta from beta0 to beta1 in equal steps."""
        return Discrete(torch.cumprod(1 - torch.linspace(beta0, beta1, length, dtype=torch.float64), 0))

    @staticmethod
    def scaled_linear(beta0: float = 0.00085, beta1: float = 0.012, length: int = 1000) -> Discrete:
        """The table of Stable Diffusion: the square root of beta in equal steps."""
        root = torch.linspace(math.sqrt(beta0), math.sqrt(beta1), length, dtype=torch.float64)
        return Discrete(torch.cumprod(1 - root**2, 0))

    @property
    def t_max(self) -> float:
        return float(self._theta.shape[0] - 1)

    def _angle(self, t: Tensor | float) -> Tensor:
        t = double(t)
        theta = self._theta.to(t.device)
        low = t.detach().floor().clamp(0, theta.shape[0] - 2).long()
        return theta[low] + (t - low) * (theta[low + 1] - theta[low])

    def alpha(self, t: Tensor | float) -> Tensor:
        angle = self._angle(t)
        # The cosine of the float64 next to a right angle is 6e-17.
        return torch.where(angle >= 0.5 * math.pi, 0.0, torch.cos(angle))

    def sigma(self, t: Tensor | float) -> Tensor:
        return torch.sin(self._angle(t))

    def half_log_snr(self, t: Tensor | float) -> Tensor:
        return torch.log(self.alpha(t)) - torch.log(self.sigma(t))

    def t_of(self, half_log_snr: Tensor | float) -> Tensor:
        angle = torch.atan(torch.exp(-double(half_log_snr)))
        theta = self._theta.to(angle.device)
        low = (torch.searchsorted(theta, angle.detach().contiguous(), right=True) - 1).clamp(0, theta.shape[0] - 2)
        return low + (angle - theta[low]) / (theta[low + 1] - theta[low])

    def slopes(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        t = double(t)
        theta = self._theta.to(t.device)
        low = t.floor().clamp(0, theta.shape[0] - 2).long()
        rate, angle = theta[low + 1] - theta[low], self._angle(t)
        return -rate * torch.sin(angle), rate * torch.cos(angle)


def zero_terminal_snr(alpha_bar: Sequence[float] | Tensor) -> Tensor:
    """Shift and scale sqrt(alpha_bar) so that its first entry stays and its last is 0: [T] -> [T] float64.

    A network for such a table has to predict v, x0 or flow: eps tells nothing where there is no data.
    Source: Lin et al. (2024), common diffusion noise schedules and sample steps are flawed.
    """
    root = torch.sqrt(double(torch.as_tensor(alpha_bar)))
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
