"""Fits to whole trajectories: least squares in closed form, noise from differences, and what numbers may still be."""

from __future__ import annotations

import pytest
import torch

from sciode.prose import SYSTEMS, Drawing, constant, draw, noise_of, noisy, shoot, variables
from sciode.prose.metrics import Terms, solved, terms_of
from sciode.prose.posterior import continued, joined, likelier
from sciode.prose.search import library, searched

TIMES = torch.linspace(0, 2, 64, dtype=torch.float64)


def line(seed: int, noise: float = 0.1, slope: float = 0.7) -> torch.Tensor:
    white = torch.randn(64, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (0.3 + slope * TIMES + noise * white)[:, None]


def test_a_straight_line_is_fitted_by_least_squares_with_their_covariance() -> None:
    """u' = c with a wide prior: c and u(0) of ordinary regression, and its covariance at the noise that is told."""
    values = line(0)
    matrix = torch.stack((TIMES, torch.ones_like(TIMES)), 1)
    wanted = torch.linalg.lstsq(matrix, values).solution[:, 0]
    found = shoot([(constant(0.5),)], TIMES, values, spread=1e4)
    torch.testing.assert_close(found.numbers[0], wanted, rtol=1e-5, atol=1e-6)
    left = (values[:, 0] - matrix @ wanted).square().sum() / 62
    assert float(found.excess) == pytest.approx(float(left / noise_of(values) ** 2), rel=1e-4)
    covariance = torch.linalg.inv(matrix.T @ matrix) * noise_of(values) ** 2 * found.excess.clamp(min=1.0)
    torch.testing.assert_close(found.chances[0] @ found.chances[0].T, covariance, rtol=1e-3, atol=1e-7)
    assert int(found.free) == 2


def test_a_prior_holds_a_number_as_precision_weighs_it() -> None:
    values, spread = line(1), 0.02
    matrix, sigma = torch.stack((TIMES, torch.ones_like(TIMES)), 1), float(noise_of(values))
    prior = torch.diag(torch.tensor([(sigma / (spread * 0.5)) ** 2, 0.0], dtype=torch.float64))
    right = matrix.T @ values[:, 0] + prior @ torch.tensor([0.5, 0.0], dtype=torch.float64)
    wanted = torch.linalg.solve(matrix.T @ matrix + prior, right)
    found = shoot([(constant(0.5),)], TIMES, values, spread=spread)
    torch.testing.assert_close(found.numbers[0], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["lorenz", "thomas", "dadras", "duffing"])
@pytest.mark.parametrize("level", [0.02, 0.1])
def test_noise_is_told_by_differences_and_explains_what_the_truth_leaves(name: str, level: float) -> None:
    (samples,) = draw(Drawing((name,), 1, 1, engine="eager"), 2)
    path = samples.values[0, :64]
    data = noisy(path[None], level, 0)[0]
    ratio = noise_of(data) / (data - path).std(0)
    assert bool(((ratio > 0.7) & (ratio < 1.4)).all())
    found = shoot([samples.equations[0]], TIMES, data)
    assert 0.5 < float(found.excess) < 2.0


def test_evidence_prefers_the_true_system_to_one_term_less_and_to_one_more() -> None:
    u, v = variables(2)
    true = (1.0 * v, -1.0 * u)
    path = solved([true], torch.tensor([[0.0, 1.0]], dtype=torch.float64), TIMES).values[0]
    data = path + 0.05 * torch.randn(path.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = shoot([true, (1.0 * v, constant(-1.0)), (1.0 * v, -1.0 * u + 0.5 * u * v)], TIMES, data)
    assert int(found.evidence.argmax()) == 0
    both = joined(shoot([true], TIMES, data), shoot([(1.0 * v, -1.0 * u + 0.5 * u * v)], TIMES, data))
    assert both.numbers.shape == (2, 5) and int(both.evidence.argmax()) == 0
    better = likelier(shoot([(1.0 * v, constant(-1.0))], TIMES, data), shoot([true], TIMES, data))
    assert better.equations[0][1].symbols[-1] == "u_0"


def test_what_may_be_holds_the_truth_as_often_as_it_says() -> None:
    """u' = c from 30 draws of noise, seen at t = 5: 90 % within 1.64 deviations, by three of a binomial's own."""
    inside = []
    for seed in range(30):
        shot = shoot([(constant(0.5),)], TIMES, line(seed), spread=1e4, rounds=1)
        found = continued(shot, torch.tensor([5.0], dtype=torch.float64), 64, seed)
        inside.append(abs(float(found.mean) - (0.3 + 0.7 * 5.0)) <= 1.645 * float(found.deviation))
    assert abs(sum(inside) / 30 - 0.9) <= 3 * (0.09 / 30) ** 0.5


def test_a_fit_raises_no_error_of_the_path_and_what_stops_keeps_its_numbers() -> None:
    system = SYSTEMS["sprott_b"]
    (samples,) = draw(Drawing(("sprott_b",), 1, 1, engine="eager"), 0)
    data = noisy(samples.values[:, :64], 0.05, 0)[0]
    off = tuple(one.bound({k: 1.08 * x for k, x in system.nominal.items()}) for one in system.equations)
    before = shoot([off], TIMES, data, rounds=0)
    after = shoot([off], TIMES, data)
    assert float(after.total) < float(before.total)
    x, y, z = variables(3)
    burst = (1e6 * x**2, 1.0 * y, 1.0 * z)
    assert float(shoot([burst], TIMES, data + 1.0).excess) == float("inf")


def test_a_search_finds_systems_that_are_in_its_library_and_the_library_has_what_it_says() -> None:
    assert [len(library(k)) for k in (1, 2, 3)] == [6, 14, 26]
    u, v = variables(2)
    true = (1.5 * u - u * v, u * v - v)
    path = solved([true], torch.tensor([[1.0, 0.5]], dtype=torch.float64), TIMES).values[0]
    found = searched([(1.0 * u, 1.0 * v)], TIMES, path, 4)[0]
    assert Terms.between(terms_of(found, 1e-3), terms_of(true)).exact
