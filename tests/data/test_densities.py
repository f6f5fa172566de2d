"""Laws on the plane: the sampler and the density are of one law."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sciode.data import DENSITIES

SIDE, COUNT = 5.0, 1000
"""A grid of midpoints over [-5, 5]^2."""


def grid() -> tuple[np.ndarray, float]:
    step = 2 * SIDE / COUNT
    axis = -SIDE + step * (np.arange(COUNT) + 0.5)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1), step**2


@pytest.mark.parametrize("name", DENSITIES)
def test_it_integrates_to_one(name: str) -> None:
    points, area = grid()
    assert float(np.exp(DENSITIES[name].log_prob(points)).sum() * area) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("name", DENSITIES)
def test_draws_fall_where_the_density_says(name: str) -> None:
    """Shares of the draws in boxes against the integral over them, within four standard errors."""
    law, n = DENSITIES[name], 40_000
    drawn = law.draw(n, np.random.default_rng(0))
    assert drawn.shape == (n, 2)
    assert np.isfinite(law.log_prob(drawn)).all()
    points, area = grid()
    mass = np.exp(law.log_prob(points)) * area
    for low in ((-2.0, -2.0), (-1.0, -1.0), (0.0, 0.0), (-0.5, 0.5), (1.0, -1.5)):
        inside = [((x >= low) & (x < np.add(low, 0.8))).all(-1) for x in (points, drawn)]
        share = float(mass[inside[0]].sum())
        error = math.sqrt(max(share * (1 - share), 1e-4) / n)
        assert abs(float(inside[1].mean()) - share) < 4 * error + 1e-3


@pytest.mark.parametrize("name", DENSITIES)
def test_the_entropy_of_the_draws_is_that_of_the_density(name: str) -> None:
    law = DENSITIES[name]
    points, area = grid()
    log = law.log_prob(points)
    entropy = -float((np.exp(log) * np.where(np.isfinite(log), log, 0.0)).sum() * area)
    of_draws = -law.log_prob(law.draw(40_000, np.random.default_rng(1)))
    assert abs(float(of_draws.mean()) - entropy) < 4 * float(of_draws.std()) / 200 + 5e-3


def test_a_seed_repeats_and_the_board_is_uniform() -> None:
    for law in DENSITIES.values():
        first, again, other = (law.draw(5, np.random.default_rng(seed)) for seed in (3, 3, 4))
        assert np.array_equal(first, again) and not np.array_equal(first, other)
    board = DENSITIES["checkerboard"]
    assert board.log_prob(np.array([0.5, 0.5])) == -math.log(8.0)
    assert board.log_prob(np.array([0.5, -0.5])) == board.log_prob(np.array([2.5, 0.5])) == -math.inf
