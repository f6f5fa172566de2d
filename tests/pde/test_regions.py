"""Polygons and slabs: areas, moments, distances, boundaries, and shapes that are refused."""

from __future__ import annotations

import math

import pytest
import torch

from sciode.pde import Ball, Box, Domain, Implicit, Polygon, Slab, difference, draw, intersection, union

ELL = Polygon(((0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)))
_RAYS = [((1.0, 0.4)[k % 2], k * math.pi / 5) for k in range(10)]
STAR = Polygon([(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in _RAYS])
REGIONS: list[Domain] = [ELL, STAR, Slab(ELL, 0.0, 2.0), Slab(Box(-1, 1), 0.0, 0.5), Slab(Ball((0, 0), 1.0), 1.0, 2.0)]


def test_an_ell_has_the_area_centre_and_perimeter_that_geometry_says() -> None:
    assert ELL.volume == 3.0 and ELL.perimeter == 8.0 and len(ELL.triangles) == 4
    points = draw(ELL, 4096, "sobol", dtype=torch.float64)
    # Two squares and one: (2 * 0.5 + 1.5) / 3 along either axis.
    torch.testing.assert_close(points.mean(0), torch.tensor([5 / 6, 5 / 6], dtype=torch.float64), rtol=1e-3, atol=0)
    assert bool(ELL.contains(points).all())


def test_either_way_around_is_the_same_polygon() -> None:
    assert Polygon(ELL.vertices[::-1]).vertices == ELL.vertices


def test_the_distance_is_that_to_the_nearest_edge() -> None:
    points = torch.tensor([[0.5, 0.5], [1.5, 1.5], [1.1, 1.1], [-1.0, -1.0], [0.9, 0.9]], dtype=torch.float64)
    exact = torch.tensor([-0.5, 0.5, 0.1, math.sqrt(2), -0.1 * math.sqrt(2)], dtype=torch.float64)
    torch.testing.assert_close(ELL.level(points)[:, 0], exact)


@pytest.mark.parametrize("region", REGIONS)
def test_the_unit_cube_fills_a_region_in_proportion(region: Domain) -> None:
    """Its share of a box inside the hull is the box's share of the region, found by counting in the hull."""
    points = draw(region, 2**14, "sobol", dtype=torch.float64)
    everywhere = draw(region.hull, 2**16, "sobol", seed=1, dtype=torch.float64)
    inside = everywhere[region.contains(everywhere)]
    assert len(inside) / len(everywhere) * region.hull.volume == pytest.approx(region.volume, rel=0.01)
    centre = torch.tensor([(a + b) / 2 for a, b in zip(region.hull.low, region.hull.high, strict=True)])
    for cell in range(2**region.dimension):
        side = torch.tensor([cell >> k & 1 for k in range(region.dimension)], dtype=torch.bool)
        shares = [float(((part > centre) == side).all(1).double().mean()) for part in (points, inside)]
        assert shares[0] == pytest.approx(shares[1], abs=0.01)


@pytest.mark.parametrize("region", REGIONS)
def test_boundary_points_lie_on_the_boundary_and_normals_point_out(region: Domain) -> None:
    found = region.boundary(300, 0, dtype=torch.float64)
    assert found.points.shape == found.normals.shape == (300, region.dimension)
    assert float(region.level(found.points).abs().max()) < 1e-9
    torch.testing.assert_close(found.normals.norm(dim=1), torch.ones(300, dtype=torch.float64))
    assert bool(region.contains(found.points - 1e-6 * found.normals).all())
    assert not bool(region.contains(found.points + 1e-6 * found.normals).any())


def test_gauss_law_holds_on_a_polygon_and_a_slab() -> None:
    """The flux of x out of a region is its dimension times its volume."""
    for region, surface in ((ELL, 8.0), (Slab(ELL, 0.0, 2.0), 2 * 3.0 + 8.0 * 2)):
        found = region.boundary(20_000, 0, dtype=torch.float64)
        flux = float((found.points * found.normals).sum(1).mean()) * surface
        assert flux == pytest.approx(region.dimension * region.volume, rel=0.01)


CORNER = intersection(Box((0, 0), (2, 2)), Ball((0, 0), 1.0))


@pytest.mark.parametrize(
    ("region", "length"),
    [
        (difference(Box((0, 0), (2, 1)), Ball((1, 0.5), 0.2)), 6 + 0.4 * math.pi),
        (CORNER, 2 + math.pi / 2),
        (union(Ball((0, 0), 0.5), Ball((2, 0), 1.0)), 3 * math.pi),
        (Implicit(lambda x: 5 * (x[..., :1] ** 2 / 4 + x[..., 1:] ** 2 - 1), Box((-2, -1), (2, 1))), 9.688448220547675),
    ],
)
def test_the_outline_of_a_composed_region_has_its_length(region: Implicit, length: float) -> None:
    """Lines, arcs, and an ellipse, whose function is no distance."""
    assert region.perimeter == pytest.approx(length, rel=0.03)


def test_a_slab_over_a_composed_region_has_walls_and_ends_in_proportion() -> None:
    found = Slab(CORNER, 0.0, 3.0).boundary(2000, 0, dtype=torch.float64)
    walls, ends = 3 * (2 + math.pi / 2), math.pi / 2
    along = (found.normals[:, 2] == 0).double().mean()
    assert float(along) == pytest.approx(walls / (walls + ends), rel=0.02)


@pytest.mark.parametrize(
    ("vertices", "says"),
    [
        ([(0, 0), (1, 0)], "three"),
        ([(0, 0), (1, 1), (1, 0), (0, 1)], "crosses"),
        ([(0, 0), (1, 1), (2, 2)], "no area"),
        ([(0, 0), (1, 0), (math.nan, 1)], "finite"),
    ],
)
def test_what_is_no_polygon_is_refused(vertices: list[tuple[float, float]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Polygon(vertices)


def test_slabs_refuse_time_that_runs_backwards_and_space_of_three_axes() -> None:
    with pytest.raises(ValueError, match="before"):
        Slab(Box(0, 1), 1.0, 0.0)
    with pytest.raises(ValueError, match="one or two"):
        Slab(Box((0, 0, 0), (1, 1, 1)), 0.0, 1.0)
