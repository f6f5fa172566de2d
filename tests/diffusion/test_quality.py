"""Distances of sets of points: closed forms, laws, invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciode.diffusion.quality import frechet_distance, mmd, sliced_wasserstein


def _normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_sliced_wasserstein_of_a_shift_is_its_length_seen_from_random_sides() -> None:
    a, shift = _normal(300, 5, 0), torch.tensor([3.0, 0, 0, 0, 0], dtype=torch.float64)
    assert sliced_wasserstein(a, a) == 0
    # E (shift . w)^2 over directions w is |shift|^2 / d; 20,000 directions leave a percent.
    assert sliced_wasserstein(a, a + shift, projections=20_000) == pytest.approx(3 / math.sqrt(5), rel=0.02)
    assert sliced_wasserstein(a, 2 * a, seed=1) == sliced_wasserstein(2 * a, a, seed=1)
    with pytest.raises(ValueError, match="one shape"):
        sliced_wasserstein(a, a[:5])


def test_mmd_is_unbiased_and_sees_another_law() -> None:
    same = [mmd(_normal(100, 3, seed), _normal(100, 3, 1000 + seed)) for seed in range(60)]
    mean, spread = sum(same) / 60, torch.tensor(same).std()
    assert abs(mean) < 3 * float(spread) / math.sqrt(60)
    assert min(same) < 0
    assert mmd(_normal(100, 3, 0) + 1, _normal(100, 3, 1)) > 10 * float(spread)


def test_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    root = torch.tensor([[2.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    a = _normal(500, 2, 0)
    assert abs(frechet_distance(a, a)) < 1e-9
    assert frechet_distance(a, a + torch.tensor([3.0, 4.0])) == pytest.approx(25, rel=1e-9)
    # Covariances C and 4 C: tr(C + 4 C - 2 * 2 C) = tr C, beside the shift of the mean.
    b = a @ root.T
    expected = torch.cov(b.T).trace() + b.mean(0).square().sum()
    assert frechet_distance(b, 2 * b) == pytest.approx(float(expected), rel=1e-9)
    # In one dimension, and so for matrices that commute: (s - t)^2.
    assert frechet_distance(a * torch.tensor([1.0, 3.0]), a) == pytest.approx(
        float((3 - 1) ** 2 * a[:, 1].var() + 4 * a[:, 1].mean() ** 2), rel=0.02
    )
    c = a[:, :1]
    assert frechet_distance(3 * c + 1, c) == pytest.approx(float((2 * c + 1).mean() ** 2 + 4 * c.var()), rel=1e-9)


def test_sets_that_cannot_be_compared_are_refused() -> None:
    a = _normal(20, 2, 0)
    for other in (a[:1], _normal(20, 3, 0), a[:, 0]):
        for distance in (mmd, frechet_distance):
            with pytest.raises(ValueError, match="as many components"):
                distance(a, other)
