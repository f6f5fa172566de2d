"""Ways of drawing: laws, stratification, how fast integration errors fall, and unbiased weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from sciode.pde import WAYS, Ball, Box, Domain, Implicit, difference, draw, weighted

DOUBLE = torch.float64
SQUARE = Box((0, 0), (1, 1))
DOMAINS: list[Domain] = [
    Box(-2, 2),
    SQUARE,
    Box((0, 0, 0), (1, 2, 3)),
    Ball((1, 1), 2),
    Ball((0, 0, 0), 1),
    difference(SQUARE, Ball((0.5, 0.5), 0.3)),
]
ways = pytest.mark.parametrize("how", WAYS)


@ways
@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: f"{type(d).__name__}{d.dimension}")
@pytest.mark.parametrize("n", [1, 37, 64])
def test_exactly_n_points_inside(how: str, domain: Domain, n: int) -> None:
    points = draw(domain, n, how, 3, "cpu", DOUBLE)
    assert points.shape == (n, domain.dimension) and points.dtype == DOUBLE
    assert bool(domain.contains(points).all())
    assert torch.equal(points, draw(domain, n, how, 3, dtype=DOUBLE))
    assert len(points.unique(dim=0)) == n


@pytest.mark.parametrize("how", ["random", "jittered", "sobol", "latin"])
def test_another_seed_draws_other_points(how: str) -> None:
    first, second = (draw(SQUARE, 16, how, seed, dtype=DOUBLE) for seed in (0, 1))
    assert torch.cdist(first, second).min() > 0


def test_random_is_what_a_domain_samples() -> None:
    for domain in DOMAINS:
        assert torch.equal(draw(domain, 20, "random", 4), domain.sample(20, 4))


@pytest.mark.parametrize("how", ["random", "jittered", "sobol", "latin"])
@pytest.mark.parametrize("n", [16, 11])
def test_points_of_many_draws_have_a_uniform_density(how: str, n: int) -> None:
    """Also where n is no number of cells: those left out are chosen evenly. One point of each draw, so all apart."""
    picks = np.random.default_rng(0).integers(n, size=1500)
    points = torch.stack([draw(SQUARE, n, how, seed, dtype=DOUBLE)[pick] for seed, pick in enumerate(picks)])
    for axis in range(2):
        assert stats.kstest(points[:, axis].numpy(), stats.uniform.cdf).pvalue > 1e-3
    cells = torch.bincount((3 * points).long() @ torch.tensor([3, 1]), minlength=9)
    assert stats.chisquare(cells.numpy()).pvalue > 1e-3


def counts(points: Tensor, side: int) -> Tensor:
    """How many points of the unit cube lie in each of side^d cells."""
    place = (points * side).long()
    powers = torch.tensor([side**k for k in range(points.shape[1])])
    return torch.bincount(place @ powers, minlength=side ** points.shape[1])


@pytest.mark.parametrize(("d", "side"), [(1, 50), (2, 9), (3, 5)])
def test_jittered_points_have_a_cell_each(d: int, side: int) -> None:
    cube = Box([0] * d, [1] * d)
    for seed in range(3):
        assert bool((counts(draw(cube, side**d, "jittered", seed, dtype=DOUBLE), side) == 1).all())
    fewer = counts(draw(cube, side**d - 7, "jittered", 0, dtype=DOUBLE), side)
    if d > 1:
        assert int(fewer.max()) == 1 and int(fewer.sum()) == side**d - 7


def test_strata_of_a_disc_have_equal_areas() -> None:
    """Rings between radii sqrt(k/m), cut by m equal angles, hold one point each."""
    points = draw(Ball((0, 0), 1), 64, "jittered", 0, dtype=DOUBLE)
    ring = (points.square().sum(1) * 8).long()
    angle = ((torch.atan2(points[:, 1], points[:, 0]) / (2 * math.pi)) % 1 * 8).long()
    assert bool((torch.bincount(8 * ring + angle, minlength=64) == 1).all())


def test_a_grid_is_the_cells_centres() -> None:
    centres = (torch.arange(4, dtype=DOUBLE) + 0.5) / 4
    for seed in range(2):
        assert torch.equal(draw(SQUARE, 16, "grid", seed, dtype=DOUBLE), torch.cartesian_prod(centres, centres))


def test_latin_points_have_a_slice_of_every_axis_each() -> None:
    points = draw(Box((0, 0, 0), (1, 1, 1)), 40, "latin", 2, dtype=DOUBLE)
    slices = (40 * points).long().sort(0).values
    assert torch.equal(slices, torch.arange(40)[:, None].expand(-1, 3))


def test_sobol_points_are_a_net_in_base_two() -> None:
    """Of 2^m points, every dyadic box of area 2^-m holds exactly one (Sobol's first two axes are a (0, m, 2)-net)."""
    for seed in range(3):
        points = draw(SQUARE, 64, "sobol", seed, dtype=DOUBLE)
        for k in range(7):
            place = (points * torch.tensor([2.0**k, 2.0 ** (6 - k)])).long()
            assert bool((torch.bincount(place[:, 0] * 2 ** (6 - k) + place[:, 1], minlength=64) == 1).all())


@pytest.mark.parametrize(
    ("how", "slowest", "fastest"),
    [("random", -0.35, -0.65), ("jittered", -0.85, -1.15), ("grid", -0.95, -1.05), ("sobol", -1.25, -1.8)],
)
def test_integration_errors_fall_as_the_table_says(how: str, slowest: float, fastest: float) -> None:
    """Of exp(x + y / 2) over the square, 16 to 1,024 points; the expected slopes are -1/2, -1, -1 and about -3/2."""
    exact = (math.e - 1) * 2 * (math.sqrt(math.e) - 1)
    sizes, errors = [16, 64, 256, 1024], []
    for n in sizes:
        means = [
            (draw(SQUARE, n, how, seed, dtype=DOUBLE) @ torch.tensor([1, 0.5], dtype=DOUBLE)).exp().mean()
            for seed in range(60)
        ]
        errors.append(float((torch.stack(means) - exact).square().mean().sqrt()))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert fastest < slope < slowest


def bump(x: Tensor) -> Tensor:
    """A residual that is large near one corner, [d] -> [2]."""
    return torch.stack(((-10 * x.square().sum()).exp(), x[0] * 0.1))


def test_weights_keep_means_unbiased() -> None:
    """The weighted mean of x^2 + y over 600 draws against 5/6; the plain mean is far from it."""

    def value(points: Tensor) -> Tensor:
        return points[:, 0].square() + points[:, 1]

    for how in ("random", "sobol"):
        drawn = [weighted(SQUARE, bump, 20, how, 100, seed, floor=0.2, dtype=DOUBLE) for seed in range(600)]
        kept = torch.stack([(weights * value(points)).mean() for points, weights in drawn])
        plain = torch.stack([value(points).mean() for points, _ in drawn])
        error = float(kept.std()) / math.sqrt(600)
        assert abs(float(kept.mean()) - 5 / 6) < 4 * error
        assert float(plain.mean()) < 5 / 6 - 20 * error
        assert float(torch.stack([weights.mean() for _, weights in drawn]).mean()) == pytest.approx(1, abs=0.01)


def test_candidates_and_the_choice_among_them_do_not_share_random_numbers() -> None:
    """One of two points, without preference: were it chosen by the number that placed the first, the mean were 3/8."""
    line = Box(0, 1)
    taken = torch.cat([weighted(line, torch.ones_like, 1, "random", 2, s, dtype=DOUBLE).points for s in range(1000)])
    assert stats.kstest(taken.flatten().numpy(), stats.uniform.cdf).pvalue > 1e-3


@pytest.mark.parametrize(("power", "floor"), [(1.0, 1.0), (2.0, 0.5), (0.5, 0.0)])
def test_weights_are_the_inverse_of_the_density(power: float, floor: float) -> None:
    many, candidates = weighted(SQUARE, bump, 5000, "jittered", 400, 0, power=power, floor=floor, dtype=DOUBLE), 400
    places = draw(SQUARE, candidates, "jittered", 0, dtype=DOUBLE)
    size = torch.stack([bump(x) for x in places]).norm(dim=1) ** power
    density = size / size.mean() + floor
    which = torch.cdist(many.points, places).argmin(1)
    torch.testing.assert_close(many.points, places[which])
    torch.testing.assert_close(many.weights, (density.mean() / density)[which])
    # Stratified: how often each is taken differs from its expectation by less than two.
    taken = torch.bincount(which, minlength=candidates)
    assert float((taken - 5000 * density / density.sum()).abs().max()) < 2


def test_the_ideal_density_has_no_variance() -> None:
    """With p ~ |r| and nothing else, w |r| is one number: the candidates' mean of |r|."""
    points, weights = weighted(SQUARE, bump, 30, "sobol", 256, 1, floor=0.0, dtype=DOUBLE)
    places = draw(SQUARE, 256, "sobol", 1, dtype=DOUBLE)
    mean = torch.stack([bump(x) for x in places]).norm(dim=1).mean()
    torch.testing.assert_close(weights * torch.stack([bump(x) for x in points]).norm(dim=1), mean.expand(30))


def test_without_a_preference_all_weights_are_one() -> None:
    for function, power in ((torch.zeros_like, 1.0), (torch.ones_like, 1.0), (bump, 0.0)):
        for floor in (0.0, 1.0):
            found = weighted(SQUARE, function, 10, "random", 50, 0, power=power, floor=floor, dtype=DOUBLE)
            torch.testing.assert_close(found.weights, torch.ones(10, dtype=DOUBLE))


def test_huge_residuals_do_not_overflow() -> None:
    big = weighted(SQUARE, lambda x: 1e100 * bump(x), 10, "random", 50, 0, power=4.0, dtype=DOUBLE)
    usual = weighted(SQUARE, bump, 10, "random", 50, 0, power=4.0, dtype=DOUBLE)
    torch.testing.assert_close(big.weights, usual.weights)


def test_the_table_says_what_each_way_is() -> None:
    for way in WAYS.values():
        assert way.error and way.source
        cube = way.fill(10, 3, 0)
        assert len(cube) >= 10 and cube.dtype == DOUBLE and float(cube.min()) >= 0 and float(cube.max()) <= 1


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="give one of random, jittered, sobol, latin, grid"):
        draw(SQUARE, 5, "halton", 0)
    for n, seed in ((0, 0), (5, -1)):
        with pytest.raises(ValueError, match="n must be >= 1"):
            draw(SQUARE, n, "random", seed)
    with pytest.raises(ValueError, match="candidates must be >= 1"):
        weighted(SQUARE, bump, 5, candidates=0)
    with pytest.raises(ValueError, match="not finite at 50 of 50"):
        weighted(SQUARE, lambda x: x / 0, 5)
    with pytest.raises(ValueError, match="is it empty"):
        draw(Implicit(lambda x: x.square() + 1, Box(0, 1)), 5, "sobol", 0)
