"""Log-densities against those of mixtures, which are known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.diffusion import RectifiedFlow, VPLinear, log_likelihood, sample
from sciode.testing import GaussianMixture


def _points(case, n: int = 6) -> Tensor:
    z = torch.randn(n, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return case.schedule.alpha(1e-3) * case.mixture.draw(n, seed=1) + case.schedule.sigma(1e-3) * z


def test_the_exact_trace_gives_the_density_of_a_mixture(case) -> None:
    """With the mixture's own density of the noise as prior, the integral is all that can be wrong."""
    x, schedule = _points(case), case.schedule

    def prior(x: Tensor) -> Tensor:
        return case.mixture.log_prob(x, schedule.alpha(1.0), schedule.sigma(1.0))

    wanted = case.mixture.log_prob(x, schedule.alpha(1e-3), schedule.sigma(1e-3))
    found = log_likelihood(case.model, x, schedule, prior=prior, method="dopri8", rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.log_prob, wanted, rtol=0, atol=1e-7)
    assert found.status.tolist() == [0] * 6 and int(found.nfe.min()) > 0
    again = sample(case.model, found.noise, schedule, sampler="rk-dopri8", steps=100)
    torch.testing.assert_close(again, x, rtol=0, atol=1e-6)
    # The standard prior is nearly the mixture at t = 1.
    assert float((log_likelihood(case.model, x, schedule).log_prob - wanted).abs().max()) < 0.02


@pytest.mark.parametrize("prediction", ["v", "flow", "x0"])
def test_any_prediction_and_schedule(prediction: str) -> None:
    """A Gaussian in closed form, under a flow."""
    schedule, variance = RectifiedFlow(), torch.tensor([0.25, 4.0], dtype=torch.float64)
    mixture = GaussianMixture([1.0], [[0.5, -1.0]], torch.diag(variance)[None])
    x, t = torch.tensor([[0.3, 0.7], [1.0, -3.0]], dtype=torch.float64), 0.01

    def prior(x: Tensor) -> Tensor:
        return mixture.log_prob(x, schedule.alpha(0.99), schedule.sigma(0.99))

    found = log_likelihood(
        mixture.model(schedule, prediction), x, schedule, prediction=prediction, prior=prior, t_start=0.99, t_end=t,
        method="dopri8", rtol=1e-9, atol=1e-10,
    )  # fmt: skip
    spread = schedule.alpha(t) ** 2 * variance + schedule.sigma(t) ** 2
    away = x - schedule.alpha(t) * torch.tensor([0.5, -1.0], dtype=torch.float64)
    wanted = -0.5 * (away.square() / spread + torch.log(2 * math.pi * spread)).sum(1)
    torch.testing.assert_close(found.log_prob, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_ends_and_agrees_with_float32_to_its_rounding(dtype: torch.dtype, case) -> None:
    """What rounding eps does to y and log p, integrated over the path; the solver does not follow the rounding."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        assert x.dtype == dtype and t.dtype == torch.float32
        return case.model(x.double(), t.double()).to(x.dtype)

    x, eps = _points(case).to(dtype), torch.finfo(dtype).eps
    found = log_likelihood(model, x, case.schedule)
    wanted = log_likelihood(case.model, x.float(), case.schedule)
    assert found.status.tolist() == [0] * 6 and float(found.nfe.float().mean()) < float(wanted.nfe.float().mean())
    assert (found.log_prob.dtype, found.noise.dtype) == (torch.float32, dtype)
    # They are 1.6 to 1.9 and 6.3 to 7.6 eps; where the solver is asked for eps itself, 4 to 10 and 20 to 51.
    assert float((found.noise.float() - wanted.noise).square().mean().sqrt()) < 4 * eps
    assert float((found.log_prob - wanted.log_prob).square().mean().sqrt()) < 12 * eps


def test_hutchinsons_estimate_is_unbiased(case) -> None:
    """The mean over many streams of one point is the exact value to its standard error."""
    x = _points(case, 1).expand(400, 3)
    exact = log_likelihood(case.model, x[:1], case.schedule).log_prob
    found = log_likelihood(case.model, x, case.schedule, divergence="hutchinson", seed=5).log_prob
    assert float(found.std()) > 0.05
    assert abs(float((found.mean() - exact) / found.std())) * 20 < 4
    # Four probes have half the deviation of one.
    four = log_likelihood(case.model, x, case.schedule, divergence="hutchinson", probes=4, seed=6).log_prob
    assert 0.4 < float(four.std() / found.std()) < 0.62


def test_a_sample_has_its_value_in_any_batch(case) -> None:
    x = _points(case)
    for divergence in ("exact", "hutchinson"):
        every = log_likelihood(case.model, x, case.schedule, divergence=divergence, seed=[1, 2, 3, 4, 5, 6])
        one = log_likelihood(case.model, x[4:5], case.schedule, divergence=divergence, seed=[5])
        torch.testing.assert_close(one.log_prob[0], every.log_prob[4], rtol=1e-12, atol=1e-12)


def test_misuse_says_the_mend(case) -> None:
    x = _points(case)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"divergence": "hutchison"}, "Did you mean 'hutchinson'"), ({"probes": 0}, "probes"),
        ({"prediction": "epsilon"}, "prediction"), ({"t_end": 0.0}, "sigma is 0"),
        ({"guidance": 3.0}, "ClassifierFree"), ({"t_end": 0.9, "t_start": 0.1}, "0 <= t_end < t_start"),
    ]  # fmt: skip
    for options, said in wrong:
        with pytest.raises(ValueError, match=said):
            log_likelihood(case.model, x, VPLinear(), **options)
    with pytest.raises(ValueError, match="batch is empty"):
        log_likelihood(case.model, x[:0], VPLinear())
    with pytest.raises(ValueError, match="alpha is 0"):
        log_likelihood(case.model, x, RectifiedFlow(), t_start=1.0)
