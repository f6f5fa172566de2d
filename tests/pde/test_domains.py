"""Domains: volumes, the laws of their points and boundaries, distances, and the divergence theorem."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from sciode.pde import Ball, Box, Domain, Implicit, difference, gradient, intersection, over, union

DOUBLE = torch.float64
PLATE = difference(Box((0, 0), (2, 1)), Ball((1, 0.5), 0.2))
EXACT = {
    "interval": (Box(-2.0, 2.0), 4.0),
    "square": (Box((-1, 0), (1, 3)), 6.0),
    "brick": (Box((0, 0, -1), (1, 2, 2)), 6.0),
    "segment": (Ball(1.0, 0.5), 1.0),
    "disc": (Ball((1, -2), 1.5), math.pi * 2.25),
    "ball": (Ball((0, 0, 3), 2.0), 4 / 3 * math.pi * 8),
}
IMPLICIT = {
    "plate": (PLATE, 2 - math.pi * 0.04),
    "halves": (union(Box((0, 0), (1, 1)), Box((1, 0), (2, 1))), 2.0),
    "quarter": (intersection(Ball((0, 0), 1), Box((0, 0), (2, 2))), math.pi / 4),
    "ellipse": (
        Implicit(lambda x: (x[..., :1] / 2) ** 2 + x[..., 1:] ** 2 - 1, Box((-2, -1), (2, 1))),
        2 * math.pi,
    ),
    "torus": (
        Implicit(
            lambda x: (x[..., :2].square().sum(-1, keepdim=True).sqrt() - 1).square() + x[..., 2:].square() - 0.16,
            Box((-1.5, -1.5, -0.5), (1.5, 1.5, 0.5)),
        ),
        2 * math.pi**2 * 0.16,
    ),
}
ALL = EXACT | IMPLICIT
explicit = pytest.mark.parametrize("name", EXACT)
implicit = pytest.mark.parametrize("name", IMPLICIT)
every = pytest.mark.parametrize("name", ALL)


def uniform(values: Tensor, low: float, high: float) -> None:
    """Kolmogorov and Smirnov's test against U(low, high)."""
    assert stats.kstest(values.flatten().numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3


@explicit
def test_volumes_are_known(name: str) -> None:
    domain, volume = EXACT[name]
    assert domain.volume == pytest.approx(volume, rel=1e-14)


@implicit
def test_an_implicit_volume_is_estimated_to_its_standard_error(name: str) -> None:
    domain, volume = IMPLICIT[name]
    assert isinstance(domain, Implicit)
    assert domain.volume == domain.estimate_volume(2**16, 0)[0]
    for seed in range(3):
        found, error = domain.estimate_volume(20_000, seed)
        assert 0 <= error < 0.02 * domain.bounds.volume
        assert abs(found - volume) <= 4 * error + 1e-12
    assert abs(domain.volume - volume) <= 4 * domain.estimate_volume(2**16, 0)[1] + 1e-12


@every
def test_points_are_inside_and_a_function_of_the_seed(name: str) -> None:
    domain, _ = ALL[name]
    points = domain.sample(200, 5)
    assert points.shape == (200, domain.dimension) and points.dtype == torch.get_default_dtype()
    assert bool(domain.contains(points).all()) and bool((over(domain.level, points) <= 1e-6).all())
    assert torch.equal(points, domain.sample(200, 5)) and not torch.equal(points, domain.sample(200, 6))
    assert domain.sample(3, 0, "cpu", DOUBLE).dtype == DOUBLE
    assert bool(domain.hull.contains(points).all())


@pytest.mark.parametrize("name", ["interval", "square", "brick"])
def test_every_coordinate_in_a_box_is_uniform(name: str) -> None:
    box = EXACT[name][0]
    assert isinstance(box, Box)
    points = box.sample(4000, 1, dtype=DOUBLE)
    for axis in range(box.dimension):
        uniform(points[:, axis], box.low[axis], box.high[axis])


@pytest.mark.parametrize("name", ["segment", "disc", "ball"])
def test_radius_and_direction_in_a_ball_have_their_laws(name: str) -> None:
    """|x|^d is uniform; so is every coordinate of the direction in space (Archimedes), and the angle in the plane."""
    ball = EXACT[name][0]
    assert isinstance(ball, Ball)
    off = (ball.sample(4000, 2, dtype=DOUBLE) - torch.tensor(ball.centre, dtype=DOUBLE)) / ball.radius
    uniform(off.norm(dim=1) ** ball.dimension, 0, 1)
    if ball.dimension == 2:
        uniform(torch.atan2(off[:, 1], off[:, 0]), -math.pi, math.pi)
    if ball.dimension == 3:
        for axis in range(3):
            uniform(off[:, axis] / off.norm(dim=1), -1, 1)


def test_an_implicit_ball_has_a_balls_law() -> None:
    """Rejection from a box that is much larger than the disc."""
    disc = Implicit(lambda x: x.square().sum(-1, keepdim=True) - 1, Box((-3, -2), (2, 4)))
    points = disc.sample(3000, 0, dtype=DOUBLE)
    uniform(points.square().sum(1), 0, 1)
    uniform(torch.atan2(points[:, 1], points[:, 0]), -math.pi, math.pi)


def nearest(domain: Domain, at: Tensor) -> Tensor:
    """Signed distance by looking at a dense boundary."""
    away = torch.cdist(at, domain.boundary(40_000, 0, dtype=DOUBLE).points).amin(1)
    return torch.where(domain.contains(at), -away, away)[:, None]


@pytest.mark.parametrize("name", ["interval", "square", "segment", "disc"])
def test_signed_distances_are_distances_to_the_boundary(name: str) -> None:
    domain = EXACT[name][0]
    assert isinstance(domain, Box | Ball)
    wide = Box(
        [2 * a - b for a, b in zip(domain.hull.low, domain.hull.high, strict=True)],
        [2 * b - a for a, b in zip(domain.hull.low, domain.hull.high, strict=True)],
    )
    at = wide.sample(300, 3, dtype=DOUBLE)
    seen, said = nearest(domain, at), domain.signed_distance(at)
    # Boundary points lie about 1e-3 apart: a distance looked up is too large by the gap at most.
    assert float((seen.abs() - said.abs()).min()) > -1e-9
    torch.testing.assert_close(said, seen, rtol=0, atol=5e-3)
    torch.testing.assert_close(over(domain.signed_distance, at), said)


@given(st.integers(1, 3), st.integers(0, 2**31))
def test_distances_have_unit_slope_and_do_not_grow_faster(d: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    low = generator.normal(size=d)
    for domain in (
        Box(list(low), list(low + generator.uniform(0.1, 2, d))),
        Ball(list(low), generator.uniform(0.1, 2)),
    ):
        x, y = torch.from_numpy(generator.normal(size=(2, d)) * 2)
        assert float(gradient(domain.signed_distance)(x).norm()) == pytest.approx(1, rel=1e-12)
        jump = domain.signed_distance(x) - domain.signed_distance(y)
        assert float(jump.abs()) <= float((x - y).norm()) * (1 + 1e-12)
        assert bool(domain.contains(x)) == (float(domain.signed_distance(x)) <= 0)
        back = domain.vanishing(x)
        assert not bool(domain.contains(x)) or 0 <= float(back) <= 1


@explicit
def test_what_vanishes_does_so_on_the_boundary(name: str) -> None:
    domain = EXACT[name][0]
    assert isinstance(domain, Box | Ball)
    edge = domain.boundary(100, 0, dtype=DOUBLE).points
    assert float(domain.vanishing(edge).abs().max()) <= (0 if isinstance(domain, Box) else 1e-14)
    assert float(domain.vanishing(domain.sample(100, 0, dtype=DOUBLE)).min()) > 0
    centre = torch.tensor([(a + b) / 2 for a, b in zip(domain.hull.low, domain.hull.high, strict=True)], dtype=DOUBLE)
    assert float(domain.vanishing(centre)) == pytest.approx(1)


@every
def test_normals_are_unit_and_point_outwards(name: str) -> None:
    domain, _ = ALL[name]
    points, normals = domain.boundary(300, 1, dtype=DOUBLE)
    assert points.shape == normals.shape == (300, domain.dimension)
    assert float(over(domain.level, points).abs().max()) < 1e-8
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(300, dtype=DOUBLE))
    # At an edge there is no normal: of an implicit domain, a few points may lie on one.
    edges = 0.03 if isinstance(domain, Implicit) else 0.0
    assert float((~domain.contains(points - 1e-5 * normals)).double().mean()) <= edges
    assert float(domain.contains(points + 1e-5 * normals).double().mean()) <= edges
    again = domain.boundary(300, 1, dtype=DOUBLE)
    assert torch.equal(points, again.points) and torch.equal(normals, again.normals)


AREAS = {
    "interval": 2.0,
    "square": 10.0,
    "brick": 2 * (2 + 3 + 6),
    "segment": 2.0,
    "disc": 3 * math.pi,
    "ball": 16 * math.pi,
    "plate": 6 + 0.4 * math.pi,
    "torus": 4 * math.pi**2 * 0.4,
}


@pytest.mark.parametrize("name", AREAS)
def test_the_divergence_theorem_holds_over_the_boundarys_points(name: str) -> None:
    """The flux of x through the boundary is d times the volume, that of a constant is nothing.

    It needs each part of the boundary to have its share of the points, and the normals.
    """
    domain, volume = ALL[name]
    n = 4000
    points, normals = domain.boundary(n, 4, dtype=DOUBLE)
    flux = AREAS[name] * (points * normals).sum(1)
    assert abs(float(flux.mean()) - domain.dimension * volume) < 4 * float(flux.std()) / math.sqrt(n) + 1e-9
    through = AREAS[name] * normals
    assert bool((through.mean(0).abs() < 4 * through.std(0) / math.sqrt(n) + 1e-9).all())


def test_an_implicit_boundary_is_uniform() -> None:
    """On a sphere given by no distance every coordinate is uniform; of the plate's points the hole has its share."""
    sphere = Implicit(lambda x: x.square().sum(-1, keepdim=True) - 1, Box((-1, -1, -1), (1, 1, 1)))
    points, normals = sphere.boundary(3000, 0, dtype=DOUBLE)
    for axis in range(3):
        uniform(points[:, axis], -1, 1)
    torch.testing.assert_close(points, normals)
    points = PLATE.boundary(3000, 0, dtype=DOUBLE).points
    on_hole = int(((points - points.new_tensor([1, 0.5])).norm(dim=1) < 0.21).sum())
    assert stats.binomtest(on_hole, 3000, 0.4 * math.pi / AREAS["plate"]).pvalue > 1e-3


def test_an_interval_has_each_end_half_the_time() -> None:
    for domain in (Box(-1.0, 3.0), Ball(1.0, 2.0)):
        ends = domain.boundary(10, 0).points.flatten().tolist()
        assert sorted(ends) == [-1.0] * 5 + [3.0] * 5


def test_faces_of_a_box_are_drawn_one_by_one() -> None:
    box = Box((0, 0, 0), (1, 2, 3))
    points, normals = box.face(1, 1, 2000, 0, dtype=DOUBLE)
    assert bool((points[:, 1] == 2).all()) and bool((normals == torch.tensor([0, 1, 0])).all())
    uniform(points[:, 0], 0, 1)
    uniform(points[:, 2], 0, 3)
    with pytest.raises(ValueError, match="face needs an axis"):
        box.face(3, 1, 5, 0)


def test_sets_combine_as_sets_do() -> None:
    a, b = Box((0, 0), (2, 1)), Ball((1.5, 0.5), 0.8)
    at = Box((-1, -1), (3, 2)).sample(2000, 0, dtype=DOUBLE)
    in_a, in_b = a.contains(at), b.contains(at)
    assert torch.equal(union(a, b).contains(at), in_a | in_b)
    assert torch.equal(intersection(a, b).contains(at), in_a & in_b)
    assert torch.equal(difference(a, b).contains(at), in_a & ~in_b)
    assert torch.equal(difference(union(a, b), intersection(a, b)).contains(at), in_a ^ in_b)


def test_domains_are_values() -> None:
    assert Box(0, 1) == Box((0.0,), [1.0]) and hash(Box(0, 1)) == hash(Box(0.0, 1.0))
    assert Ball((0, 0), 1) != Ball((0, 0), 2)


def test_misuse_is_refused() -> None:
    for low, high in ((1.0, 1.0), ((0, 0), (1,)), ((0,) * 4, (1,) * 4), (0.0, math.inf), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="low"):
            Box(low, high)
    for centre, radius in ((0.0, 0.0), ((0,) * 4, 1.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match=r"centre needs|radius must"):
            Ball(centre, radius)
    for n, seed in ((0, 0), (1, -1)):
        with pytest.raises(ValueError, match="n must be >= 1"):
            Box(0, 1).sample(n, seed)
        with pytest.raises(ValueError, match="n must be >= 1"):
            Box(0, 1).boundary(n, seed)
    with pytest.raises(ValueError, match=r"points must be \[..., 2\]"):
        Ball((0, 0), 1).contains(torch.zeros(3))
    with pytest.raises(ValueError, match="combine domains of one dimension"):
        union(Box(0, 1), Ball((0, 0), 1))
    empty = Implicit(lambda x: x.square() + 1, Box(0, 1))
    with pytest.raises(ValueError, match="is it empty"):
        empty.sample(5, 0)
    with pytest.raises(ValueError, match="on the boundary"):
        empty.boundary(5, 0)
    with pytest.raises(ValueError, match=r"scalar field \[1\]"):
        Implicit(lambda x: x, Box((0, 0), (1, 1))).sample(5, 0)
