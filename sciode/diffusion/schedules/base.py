"""What a noise schedule is: alpha and sigma of time, and the half log signal-to-noise ratio with its exact inverse."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["Schedule", "double"]


def double(value: Tensor | float) -> Tensor:
    """A float64 tensor, on the value's device."""
    return torch.as_tensor(value, dtype=torch.float64)


class Schedule(ABC):
    """x_t = alpha(t) x_0 + sigma(t) eps, with lambda(t) = log(alpha / sigma), the half log-SNR, falling in t.

    Times are numbers or tensors of any shape; everything is float64 and made of differentiable tensor operations.
    `t_of(half_log_snr(t)) == t` to rounding, without tables or rounding to steps. A schedule of one's own defines
    `alpha`, `sigma`, `half_log_snr`, `t_of`, `slopes` and `t_max`.
    """

    @property
    @abstractmethod
    def t_max(self) -> float:
        """Where sampling starts unless `t_start` says otherwise."""

    @abstractmethod
    def alpha(self, t: Tensor | float) -> Tensor:
        """The factor of the data."""

    @abstractmethod
    def sigma(self, t: Tensor | float) -> Tensor:
        """The standard deviation of the noise."""

    @abstractmethod
    def half_log_snr(self, t: Tensor | float) -> Tensor:
        """lambda = log(alpha / sigma); -inf where alpha = 0, +inf where sigma = 0."""

    @abstractmethod
    def t_of(self, half_log_snr: Tensor | float) -> Tensor:
        """The time at which lambda has this value."""

    @abstractmethod
    def slopes(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """(d alpha / dt, d sigma / dt), which flow predictions need."""
