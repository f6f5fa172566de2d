"""The mixture of Gaussians is what it says: score, law, predictions, end of the ODE."""

from __future__ import annotations

import pytest
import torch

from sciode.diffusion import EDM, PREDICTIONS, VPLinear, convert
from sciode.testing import GaussianMixture


@pytest.mark.parametrize("dim", [2, 3, 16, 64])
def test_the_score_is_the_gradient_of_the_log_density(dim: int) -> None:
    mixture = GaussianMixture.random(dim, seed=dim)
    x = mixture.draw(5, seed=1).requires_grad_()
    for alpha, sigma in ((1.0, 0.0), (0.6, 0.8), (0.999, 0.01)):
        (slope,) = torch.autograd.grad(mixture.log_prob(x, alpha, sigma).sum(), x)
        torch.testing.assert_close(mixture.score(x, alpha, sigma).detach(), slope, rtol=1e-9, atol=1e-9)


def test_the_density_is_the_sum_of_its_components() -> None:
    mixture = GaussianMixture.random(3, seed=4)
    x, alpha, sigma = mixture.draw(7, seed=2), 0.8, 0.6
    parts = [
        w.log()
        + torch.distributions.MultivariateNormal(
            alpha * m, alpha**2 * c + sigma**2 * torch.eye(3, dtype=torch.float64)
        ).log_prob(x)
        for w, m, c in zip(mixture.weights, mixture.means, mixture.covariances, strict=True)
    ]
    torch.testing.assert_close(mixture.log_prob(x, alpha, sigma), torch.logsumexp(torch.stack(parts), 0))


def test_draws_have_the_moments() -> None:
    mixture, n = GaussianMixture.random(2, seed=1), 40_000
    x = mixture.draw(n, seed=3)
    mean, covariance = mixture.moments()
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=0.03)
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0, atol=0.06)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_models_predict_what_the_score_implies(prediction: str) -> None:
    mixture, schedule = GaussianMixture.random(3), EDM()
    x, t = mixture.draw(4), torch.tensor([0.1, 0.5, 1.0, 5.0], dtype=torch.float64)
    found = convert(mixture.model(schedule, prediction)(x, t), x, schedule, t, prediction, "score")
    torch.testing.assert_close(found, mixture.score(x, 1.0, t), rtol=1e-10, atol=1e-10)


def test_the_ode_can_be_walked_back() -> None:
    mixture, schedule = GaussianMixture.random(3), VPLinear()
    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    there = mixture.end_of_ode(x, schedule, 1.0, 0.01)
    torch.testing.assert_close(mixture.end_of_ode(there, schedule, 0.01, 1.0), x, rtol=1e-8, atol=1e-8)


def test_what_is_no_mixture_is_refused() -> None:
    eye = torch.eye(2)[None]
    for weights, means, covariances in (
        ([1.0], [[0.0, 0.0]], -eye),
        ([-1.0], [[0.0, 0.0]], eye),
        ([1.0, 1.0], [[0.0, 0.0]], eye),
    ):
        with pytest.raises(ValueError, match=r"expected weights|positive definite"):
            GaussianMixture(weights, means, covariances)


def test_the_denoised_point_is_tweedies_and_the_mean_where_nothing_is_known() -> None:
    mixture = GaussianMixture.random(3, seed=2)
    x, alpha, sigma = mixture.draw(5), 0.7, 0.5
    tweedie = (x + sigma**2 * mixture.score(x, alpha, sigma)) / alpha
    torch.testing.assert_close(mixture.denoised(x, alpha, sigma), tweedie, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(mixture.denoised(x, 0.0, 1.0), mixture.moments()[0].expand(5, 3))
