"""Mixtures of Gaussians: quantiles invert the distribution function, samples follow it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sciode.timeseries.mixture import Mixture


def mixture(components: int = 5) -> Mixture:
    """A mixture of unlike components for 2 series, 3 times and 1 channel; one time is not asked for."""
    rng = np.random.default_rng(0)
    mean, sigma = rng.normal(0, 10, (components, 2, 3, 1)), rng.uniform(0.01, 5, (components, 2, 3, 1))
    mean[:, 0, 2] = np.nan
    return Mixture(mean, sigma)


@pytest.mark.parametrize("level", [1e-3, 0.05, 0.5, 0.95])
def test_the_quantile_inverts_the_distribution_function(level: float) -> None:
    found = mixture()
    value = found.quantile(level)
    reached = torch.special.ndtr(torch.from_numpy((value - found.mean) / found.sigma)).mean(0).numpy()
    np.testing.assert_allclose(reached[1], level, rtol=1e-9)
    assert np.isnan(value[0, 2]).all() and np.isfinite(value[0, :2]).all()


def test_one_component_is_a_gaussian() -> None:
    found = mixture(1)
    np.testing.assert_allclose(
        found.quantile(0.975)[1], (found.mean + 1.959963984540054 * found.sigma)[0, 1], rtol=1e-12
    )


def test_samples_follow_their_components() -> None:
    """4000 draws of N(3, 2²): the mean is within 4 standard errors, the variance too (its own is 2 σ⁴ / n)."""
    found = Mixture(np.full((4000, 1, 1, 1), 3.0), np.full((4000, 1, 1, 1), 2.0))
    drawn = found.sample(list(range(4000))).ravel()
    assert abs(drawn.mean() - 3) < 4 * 2 / np.sqrt(4000)
    assert abs(drawn.var() - 4) < 4 * 4 * np.sqrt(2 / 4000)
