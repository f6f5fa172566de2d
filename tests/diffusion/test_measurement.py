"""Guidance by a measurement: exact for Gaussian data, and towards the exact posterior of a mixture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.diffusion import ClassifierFree, MeasurementGuidance, VPLinear, sample
from sciode.testing import GaussianMixture

SCHEDULE = VPLinear()
ROW = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
NOISE = 0.3


def _posterior(mixture: GaussianMixture, y: float) -> GaussianMixture:
    """Of x_0 given y = A x_0 + NOISE z: a mixture again, in closed form."""
    means, covariances, weights = [], [], []
    for w, m, c in zip(mixture.weights, mixture.means, mixture.covariances, strict=True):
        spread = ROW @ c @ ROW.T + NOISE**2
        gain = c @ ROW.T / spread
        means.append(m + gain[:, 0] * (y - ROW @ m))
        both = c - gain @ ROW @ c
        covariances.append(0.5 * (both + both.T))
        weights.append(w * torch.exp(-0.5 * (y - ROW @ m) ** 2 / spread[0]) / spread[0].sqrt())
    return GaussianMixture(torch.cat(weights), torch.stack(means), torch.stack(covariances))


def _likelihood(y: float, spread: Any) -> Any:
    """log N(y; A x0, NOISE^2 + A C(t) A^T)."""

    def log_prob(x0: Tensor, t: Tensor) -> Tensor:
        variance = NOISE**2 + spread(t)
        return -0.5 * ((y - x0 @ ROW.T)[:, 0].square() / variance + torch.log(variance))

    return log_prob


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "score"])
def test_gaussian_data_are_sampled_from_their_exact_posterior(prediction: str) -> None:
    """With the covariance of x_0 given x_t in the likelihood, its gradient is the exact score's difference."""
    c = torch.tensor([[0.5, 0.2], [0.2, 0.9]], dtype=torch.float64)
    prior = GaussianMixture([1.0], [[0.3, -0.4]], c[None])
    y = 1.2

    def spread(t: Tensor) -> Tensor:
        alpha, sigma = SCHEDULE.alpha(t)[:, None, None], SCHEDULE.sigma(t)[:, None, None]
        left = c - alpha**2 * c @ torch.linalg.solve(alpha**2 * c + sigma**2 * torch.eye(2), c)
        return (ROW @ left @ ROW.T)[:, 0, 0]

    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    guidance = MeasurementGuidance(_likelihood(y, spread))
    found = sample(prior.model(SCHEDULE, prediction), x, SCHEDULE, steps=20, prediction=prediction, guidance=guidance)
    wanted = sample(_posterior(prior, y).model(SCHEDULE), x, SCHEDULE, steps=20)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-8)


def test_samples_of_a_mixture_move_to_its_posterior() -> None:
    """Not exact, the law of x_0 given x_t being a mixture: errors of the moments are a fraction of the prior's."""
    prior = GaussianMixture.random(2, components=3, seed=4, deviations=(0.3, 0.6))
    y = float(ROW @ prior.draw(1, seed=2)[0])
    exact = _posterior(prior, y)

    def spread(t: Tensor) -> Tensor:
        alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
        return float(ROW @ ROW.T) * sigma**2 / (alpha**2 + sigma**2)

    x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, covariance = exact.moments()
    errors = []
    for guidance in (None, MeasurementGuidance(_likelihood(y, spread))):
        found = sample(prior.model(SCHEDULE), x, SCHEDULE, steps=40, guidance=guidance)
        errors.append((float((found.mean(0) - mean).norm()), float((found.T.cov() - covariance).norm())))
    assert errors[1][0] < 0.5 * errors[0][0] and errors[1][1] < 0.5 * errors[0][1]


def test_gradients_flow_through_guidance_that_flows_through_the_model(case) -> None:
    """A second derivative: against finite differences."""
    aim = torch.tensor([[0.5, 0.0, -0.5]], dtype=torch.float64)
    guidance = MeasurementGuidance(lambda x0, t: -0.5 * (x0 - aim).square().sum(1))
    x = case.x[:3]
    direction = torch.randn(3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def loss(x: Tensor, **options: Any) -> Tensor:
        return sample(case.model, x, SCHEDULE, sampler="bdia", steps=8, guidance=guidance, **options).square().sum()

    wanted = (loss(x + 1e-5 * direction) - loss(x - 1e-5 * direction)) / 2e-5
    assert not loss(x).requires_grad
    for gradient in ("direct", "checkpoint", "reversible"):
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(leaf, gradient=gradient), leaf)
        assert float((slope * direction).sum()) == pytest.approx(float(wanted), rel=1e-6)


def test_it_goes_with_other_guidance() -> None:
    halves = [GaussianMixture([1.0], [[m, 0.0]], 0.1 * torch.eye(2)[None]) for m in (-1.0, 1.0)]

    def model(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        first, second = (half.model(SCHEDULE)(x, t) for half in halves)
        return torch.where(label[:, None] == 0, first, second)

    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cond = {"label": torch.zeros(5, dtype=torch.long)}
    free = ClassifierFree(1.0, {"label": torch.ones(1, dtype=torch.long)})
    silent = MeasurementGuidance(lambda x0, t, label: 0.0 * x0.sum(1), inner=free)
    found = sample(model, x, SCHEDULE, steps=8, cond=cond, guidance=silent)
    torch.testing.assert_close(found, sample(model, x, SCHEDULE, steps=8, cond=cond, guidance=free))
