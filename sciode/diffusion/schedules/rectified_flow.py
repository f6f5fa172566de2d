"""The straight path from data to noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciode.diffusion.schedules.base import Schedule, double

__all__ = ["RectifiedFlow"]


@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """alpha = 1 - t, sigma = t for t in [0, 1]; the flow is dx/dt = eps - x_0.

    last: where sampling starts by default. At t = 1 alpha is 0 and lambda -inf; samplers take their first step from
    there by the data prediction, if asked (`t_start=1`). Source: Liu et al. (2023), Lipman et al. (2023).
    """

    last: float = 0.999

    @property
    def t_max(self) -> float:
        return self.last

    def alpha(self, t: Tensor | float) -> Tensor:
        return 1 - double(t)

    def sigma(self, t: Tensor | float) -> Tensor:
        return double(t)

    def half_log_snr(self, t: Tensor | float) -> Tensor:
        return torch.log1p(-double(t)) - torch.log(double(t))

    def t_of(self, half_log_snr: Tensor | float) -> Tensor:
        return torch.sigmoid(-double(half_log_snr))

    def slopes(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(double(t))
        return -one, one
