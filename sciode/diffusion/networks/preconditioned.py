"""EDM's preconditioning for any schedule: a model that predicts, of a network that sees numbers of size one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sciode.diffusion.checks import check_kinds
from sciode.diffusion.predictions import PREDICTIONS, Level
from sciode.diffusion.schedules.base import Schedule
from sciode.solvers.suggest import choose

__all__ = ["Preconditioned", "network_target", "preconditioned"]

_NOISIEST, _CLEANEST = -5.1, 10.0
"""Of the half log-SNR that a network is told: where alpha or sigma is 0 it is infinite. Beyond the noisiest, which is
that of VP schedules, no network sees data, and one that begins a flow need not learn a new level for its start."""


def network_target(x0: Tensor, eps: Tensor, alpha: Any, sigma: Any, deviation: float) -> Tensor:
    """What the network should put out at alpha x0 + sigma eps: (sigma x0 - alpha d^2 eps) / (d s).

    s^2 = sigma^2 + alpha^2 d^2. Of unit variance where x0 has the deviation d; for d = 1 and a variance-preserving
    schedule it is minus v.
    """
    s = _size(alpha, sigma, deviation)
    return (sigma * x0 - alpha * deviation**2 * eps) / (deviation * s)


def preconditioned(output: Tensor, u: Tensor, level: Level, deviation: float, prediction: str) -> Tensor:
    """The prediction made of a network's output F at u = x / s.

        x0 = (alpha d^2 u + sigma d F) / s,   eps = (sigma u - alpha d F) / s

    Nothing cancels, and nothing is divided by alpha or sigma but in a score: it holds at both ends of a schedule.
    """
    s = _size(level.alpha, level.sigma, deviation)
    x0 = (level.alpha * deviation**2 * u + level.sigma * deviation * output) / s
    eps = (level.sigma * u - level.alpha * deviation * output) / s
    if prediction == "v":
        return level.alpha * eps - level.sigma * x0
    if prediction == "flow":
        return level.alpha_slope * x0 + level.sigma_slope * eps
    if prediction == "score":
        return -eps / level.sigma
    return x0 if prediction == "x0" else eps


def _size(alpha: Any, sigma: Any, deviation: float) -> Any:
    return (sigma**2 + (alpha * deviation) ** 2) ** 0.5


class Preconditioned(nn.Module):
    """model(x [B, ...], t [B], label=None, ...) -> a prediction, as `sample` and `estimate_ems` take it.

        u = x / s,   F = network(u, -lambda / 4, ...),   s^2 = sigma^2 + alpha^2 d^2,   then `preconditioned`.

    - schedule: whose time t is; prediction: "eps" (default), "x0", "v", "score" or "flow".
    - deviation: d, the standard deviation of the data, 0.5 in EDM.

    The network knows no schedule, only the noise level: `on(schedule, prediction)` is the same network in another time.
    So a diffusion model begins a rectified flow, as rfpp has it. Source: Karras et al. (2022), EDM; Lee et al. (2024).
    """

    def __init__(
        self, network: nn.Module, schedule: Schedule, *, deviation: float = 0.5, prediction: str = "eps"
    ) -> None:
        super().__init__()
        check_kinds(schedule=schedule)
        choose("prediction", prediction, PREDICTIONS)
        if not deviation > 0:
            raise ValueError(f"deviation: the data's standard deviation must be > 0, got {deviation}")
        self.network, self.schedule = network, schedule
        self.deviation, self.prediction = float(deviation), prediction

    def on(self, schedule: Schedule, prediction: str = "eps") -> Preconditioned:
        """The same network (shared, not copied) in another schedule's time, predicting something else."""
        return Preconditioned(self.network, schedule, deviation=self.deviation, prediction=prediction)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None, **more: Any) -> Tensor:
        """The prediction at time t [B]. Raises ValueError for one time of all."""
        if not isinstance(t, Tensor) or t.ndim != 1:
            raise ValueError("t: expected times [B], one a sample, such as torch.full((len(x),), 0.5)")
        time = t.double()
        alpha, sigma = self.schedule.alpha(time), self.schedule.sigma(time)
        slopes = self.schedule.slopes(time) if self.prediction == "flow" else (alpha, sigma)
        level = Level(*(part.to(x).reshape(-1, *[1] * (x.ndim - 1)) for part in (alpha, sigma, *slopes)))
        output, u = self.told(x, self.schedule.half_log_snr(time), level.alpha, level.sigma, label, **more)
        return preconditioned(output, u, level, self.deviation, self.prediction)

    def told(
        self, x: Tensor, half_log_snr: Tensor, alpha: Tensor, sigma: Tensor, label: Tensor | None = None, **more: Any
    ) -> tuple[Tensor, Tensor]:
        """(F, u) at a state x [B, ...] whose level is given: the network's own output, and what it was shown.

        Raises ValueError for states of another precision than the weights, outside `torch.autocast`.
        """
        weight = next(self.network.parameters(), None)
        if weight is not None and weight.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(
                f"x: {x.dtype} states for a network of {weight.dtype}; pass x.to({weight.dtype}), convert the network, "
                "or run it under torch.autocast"
            )
        u = x / _size(alpha, sigma, self.deviation)
        seen = half_log_snr.clamp(_NOISIEST, _CLEANEST).to(u) * -0.25
        return self.network(u, seen, label, **more).to(u.dtype), u
