"""Mixtures of Gaussians with exact scores at every noise level: what samplers are measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciode.diffusion.predictions import PREDICTIONS, level_at
from sciode.diffusion.schedules import Schedule
from sciode.solvers.suggest import choose

__all__ = ["GaussianMixture"]


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """sum_k w_k N(mean_k, covariance_k) in D dimensions; x_t = alpha x_0 + sigma eps has the same form, in closed form.

    weights [K] (any positive numbers), means [K, D], covariances [K, D, D]. All methods take states [B, D] of float32
    or float64, alpha and sigma as numbers or [B]. Where sigma is small, eps comes without cancellation.
    """

    weights: Any
    means: Any
    covariances: Any
    _values: Tensor = field(init=False, repr=False)
    _vectors: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        weights, means, covariances = (
            torch.as_tensor(x, dtype=torch.float64) for x in (self.weights, self.means, self.covariances)
        )
        k, d = means.shape
        if weights.shape != (k,) or covariances.shape != (k, d, d) or not bool((weights > 0).all()):
            raise ValueError("expected weights [K] > 0, means [K, D], covariances [K, D, D]")
        values, vectors = torch.linalg.eigh(covariances)
        if not bool((values > 0).all()):
            raise ValueError("covariances must be positive definite")
        for name, value in (("weights", weights / weights.sum()), ("means", means), ("covariances", covariances),
                            ("_values", values), ("_vectors", vectors)):  # fmt: skip
            object.__setattr__(self, name, value)

    @staticmethod
    def random(
        dim: int, components: int = 5, seed: int = 0, spread: float = 1.0, deviations: tuple[float, float] = (0.3, 0.8)
    ) -> GaussianMixture:
        """An anisotropic mixture: means N(0, spread^2), axes turned at random, standard deviations uniform in between.

        Good values: the default, smooth enough for a sampler to show its order from some 100 steps on; deviations of
        (0.05, 0.3) make separate, sharp components, where few steps are hard for everybody.
        """
        generator = torch.Generator().manual_seed(seed)
        draw: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
        axes, _ = torch.linalg.qr(torch.randn(components, dim, dim, **draw))
        low, high = deviations
        sizes = low + (high - low) * torch.rand(components, dim, **draw)
        means = spread * torch.randn(components, dim, **draw)
        covariances = (axes * sizes.square()[:, None, :]) @ axes.transpose(1, 2)
        return GaussianMixture(0.5 + torch.rand(components, **draw), means, 0.5 * (covariances + covariances.mT))

    @property
    def dim(self) -> int:
        """D."""
        return self.means.shape[1]

    def draw(self, n: int, seed: int = 0) -> Tensor:
        """n points [n, D], float64."""
        generator = torch.Generator().manual_seed(seed)
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        scaled = z * self._values[which].sqrt()
        return self.means[which] + torch.einsum("nij,nj->ni", self._vectors[which], scaled)

    def _parts(self, x: Tensor, alpha: Any, sigma: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Of each component [B, K]: log of its weighted density, and [B, K, D]: x in its axes, and its variances."""
        a, s = (torch.as_tensor(v, dtype=x.dtype, device=x.device).reshape(-1, 1, 1) for v in (alpha, sigma))
        means, values, vectors = (v.to(x) for v in (self.means, self._values, self._vectors))
        variances = a**2 * values + s**2
        local = torch.einsum("bkd,kde->bke", x[:, None] - a * means, vectors)
        logs = -0.5 * (local.square() / variances + torch.log(2 * torch.pi * variances)).sum(-1)
        return logs + self.weights.to(x).log(), local, variances

    def log_prob(self, x: Tensor, alpha: Any = 1.0, sigma: Any = 0.0) -> Tensor:
        """log density of x_t [B], in nats."""
        return torch.logsumexp(self._parts(x, alpha, sigma)[0], -1)

    def score(self, x: Tensor, alpha: Any = 1.0, sigma: Any = 0.0) -> Tensor:
        """The gradient of `log_prob` [B, D]."""
        logs, local, variances = self._parts(x, alpha, sigma)
        pull = torch.softmax(logs, -1)[..., None] * (local / variances)
        return -torch.einsum("bke,kde->bd", pull, self._vectors.to(x))

    def denoised(self, x: Tensor, alpha: Any = 1.0, sigma: Any = 0.0) -> Tensor:
        """The mean of x_0 given x_t [B, D]; right where alpha is 0, too."""
        logs, local, variances = self._parts(x, alpha, sigma)
        a = torch.as_tensor(alpha, dtype=x.dtype, device=x.device).reshape(-1, 1, 1)
        turned = torch.einsum("bke,kde->bkd", local * (a * self._values.to(x) / variances), self._vectors.to(x))
        return (torch.softmax(logs, -1)[..., None] * (self.means.to(x) + turned)).sum(1)

    def model(self, schedule: Schedule, prediction: str = "eps") -> Callable[..., Tensor]:
        """The best possible network: model(x [B, D], t [B]) of any prediction."""
        choose("prediction", prediction, PREDICTIONS)

        def predict(x: Tensor, t: Tensor) -> Tensor:
            time = t.double()
            alpha, sigma, down, up = (v.to(x)[:, None] for v in level_at(schedule, time))
            if prediction == "x0":
                return self.denoised(x, alpha, sigma)
            score = self.score(x, alpha, sigma)
            if prediction in ("score", "eps"):
                return score if prediction == "score" else -sigma * score
            on_data, on_noise = (-sigma, alpha) if prediction == "v" else (down, up)
            return on_data * self.denoised(x, alpha, sigma) - on_noise * sigma * score

        return predict

    def end_of_ode(self, x: Tensor, schedule: Schedule, t_start: float, t_end: float, tol: float = 1e-13) -> Tensor:
        """Where the probability-flow ODE takes x [B, D] from t_start to t_end, by DOP853 at tolerance `tol`.

        dy / dlambda = -e^-lambda eps(alpha y, lambda) for y = x / alpha. Needs SciPy.
        """
        from scipy.integrate import solve_ivp

        low, high = (float(schedule.half_log_snr(t)) for t in (t_start, t_end))
        shape = x.shape

        def slope(lam: float, y: np.ndarray) -> np.ndarray:
            t = schedule.t_of(lam)
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            state = alpha * torch.from_numpy(y).view(shape)
            return (sigma**2 / alpha * self.score(state, alpha, sigma)).numpy().ravel()

        start = (x.double() / schedule.alpha(t_start)).numpy().ravel()
        found = solve_ivp(slope, (low, high), start, method="DOP853", rtol=tol, atol=tol)
        return torch.from_numpy(found.y[:, -1].copy()).view(shape) * schedule.alpha(t_end)

    def moments(self, alpha: float = 1.0, sigma: float = 0.0) -> tuple[Tensor, Tensor]:
        """Mean [D] and covariance [D, D] of x_t."""
        mean = self.weights @ self.means
        away = self.means - mean
        spread = torch.einsum("k,kij->ij", self.weights, self.covariances) + (away.T * self.weights) @ away
        return alpha * mean, alpha**2 * spread + sigma**2 * torch.eye(self.dim, dtype=torch.float64)
