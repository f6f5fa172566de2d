"""Scenes of wind, steps and rotors: their geometry, meshes that fill them, and flows that respect them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch

from sciode.pde.meshes import Mesh
from sciode.pde.penalised_flow import PenalisedFlow
from sciode.pde.scattered import delaunay_cells, scatter
from sciode.pde.step_flow import (
    BOX,
    VIEW,
    Scene,
    SceneMesh,
    mesh_of,
    random_scene,
    sample_on_mesh,
    simulate_scenes,
)

SCENE = random_scene(0)


@cache
def mesh(finest: float = 0.008, coarsest: float = 0.0165) -> SceneMesh:
    return mesh_of(SCENE, 0, finest, coarsest)


def ring(points: np.ndarray) -> np.ndarray:
    """The distance into a ring between the radii 0.2 and 0.5 about the origin."""
    radius = np.hypot(*points.T)
    return np.minimum(radius - 0.2, 0.5 - radius)


def test_distances_are_those_from_the_nearest_place_of_the_ground() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((300, 2)) * BOX
    line = SCENE.corners()
    places = np.concatenate([a + (b - a) * np.linspace(0, 1, 4001)[:, None] for a, b in pairwise(line)])
    expected = np.sqrt(((points[:, None] - places[::4]) ** 2).sum(2).min(1))
    found = SCENE.distance(points)
    np.testing.assert_allclose(np.abs(found), expected, atol=1e-3)
    k = np.searchsorted(SCENE.edges, points[:, 0])
    assert np.array_equal(found < 0, points[:, 1] < np.array(SCENE.heights)[k])
    assert (found < 0).any() and (found > 0).any()


def test_scattered_points_keep_their_distance_and_are_dense_where_asked() -> None:
    def spacing(away: np.ndarray) -> np.ndarray:
        return 0.01 + 0.2 * away

    points = scatter(ring, (-0.5, -0.5), (0.5, 0.5), spacing, 3)
    away = ring(points)
    assert (away > 0).all()
    gaps = np.sqrt(((points[:, None] - points) ** 2).sum(2)) + np.eye(len(points))
    # A point is no nearer to another than the smaller of both spacings.
    assert (gaps >= np.minimum(spacing(away)[:, None], spacing(away)) - 1e-12).all()
    nearest = gaps.min(1)
    assert nearest[away < 0.03].mean() < 0.6 * nearest[away > 0.1].mean()
    assert np.array_equal(points, scatter(ring, (-0.5, -0.5), (0.5, 0.5), spacing, 3))
    assert not np.array_equal(points[:5], scatter(ring, (-0.5, -0.5), (0.5, 0.5), spacing, 4)[:5])
    with pytest.raises(ValueError, match="must be positive"):
        scatter(ring, (-0.5, -0.5), (0.5, 0.5), lambda away: away, 3)


def test_points_that_are_fixed_come_first_and_others_keep_clear() -> None:
    fixed = np.stack((np.linspace(-0.4, 0.4, 9), np.full(9, 0.3)), 1)
    points = scatter(lambda p: np.ones(len(p)), (-0.5, -0.5), (0.5, 0.5), lambda away: 0.1 + 0 * away, 0, fixed)
    assert np.array_equal(points[:9], fixed)
    gaps = np.sqrt(((points[9:, None] - fixed) ** 2).sum(2))
    assert gaps.min() > 0.07


def test_a_mesh_fills_the_view_above_the_ground_and_nothing_else() -> None:
    points, cells, walls = mesh()
    (left, _), (right, top) = VIEW
    ends = np.clip([left, *SCENE.edges, right], left, right)
    area = float((np.diff(ends) * (top - np.array(SCENE.heights))).sum())
    whole = Mesh(torch.from_numpy(points), torch.from_numpy(cells))
    assert whole.volume() == pytest.approx(area, rel=2e-3)
    assert (SCENE.distance(points[cells].mean(1)) > 0).all()
    np.testing.assert_allclose(SCENE.distance(points[walls]), 0.0, atol=1e-12)
    assert (SCENE.distance(points[~walls]) > 1e-3).all()
    assert 2300 < len(points) < 3700 and set(np.unique(cells)) == set(range(len(points)))


def test_a_mesh_is_fine_at_the_ground_and_its_triangles_are_no_slivers() -> None:
    points, cells, walls = mesh()
    edges = np.linalg.norm(points[cells] - points[np.roll(cells, 1, axis=1)], axis=2).mean(1)
    near = walls[cells].any(1)
    assert edges[near].mean() < 0.7 * edges[~near].mean()
    quality = Mesh(torch.from_numpy(points), torch.from_numpy(cells)).quality()
    assert float(quality.median()) > 0.7 and float((quality < 0.1).double().mean()) < 0.01


def test_cells_are_delaunay_inside_and_turn_the_same_way() -> None:
    points = np.random.default_rng(0).random((60, 2))
    cells = delaunay_cells(points, lambda p: np.ones(len(p)))
    corners = points[cells]
    for triangle in corners[::7]:
        a, b, c = triangle
        # The centre of the circle through the corners; no point lies within.
        centre = np.linalg.solve(2 * np.stack((b - a, c - a)), [b @ b - a @ a, c @ c - a @ a])
        assert (np.linalg.norm(points - centre, axis=1) > np.linalg.norm(a - centre) - 1e-9).all()
    ways = corners[:, 1:] - corners[:, :1]
    assert (ways[:, 0, 0] * ways[:, 1, 1] - ways[:, 0, 1] * ways[:, 1, 0] > 0).all()


def test_fields_are_sampled_to_fourth_order_across_the_edge_of_the_box_too() -> None:
    points = np.random.default_rng(1).random((200, 2)) * BOX
    errors = []
    for ny in (16, 32):
        x = torch.arange(2 * ny, dtype=torch.float64)[:, None] / ny
        y = torch.arange(ny, dtype=torch.float64)[None] / ny
        field = (math.pi * x + 1.0).sin() * (2.0 * math.pi * y).cos()
        flow = PenalisedFlow(torch.stack((field, 2.0 * field))[None, None], (field + 1.0)[None, None])
        found = sample_on_mesh(flow, 0, points)[0].numpy()
        exact = np.sin(math.pi * points[:, 0] + 1.0) * np.cos(2.0 * math.pi * points[:, 1])
        np.testing.assert_allclose(found[:, 1], 2.0 * found[:, 0], atol=1e-12)
        np.testing.assert_allclose(found[:, 2], found[:, 0] + 1.0, atol=1e-12)
        errors.append(np.abs(found[:, 0] - exact).max())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=0.3)


def flow(ny: int, scenes: tuple[Scene, ...] = (SCENE,), viscosity: float = 0.01) -> PenalisedFlow:
    return simulate_scenes(scenes, ny, [0.0, 0.4], viscosity=viscosity, porosity=0.004, dt=0.008, dtype=torch.float64)


def test_the_flow_converges_as_the_grid_is_refined() -> None:
    """Of first order or so, for walls are as thick as a cell is wide; at points away from them, and viscous."""
    points = mesh(0.02, 0.04).points
    points = points[SCENE.distance(points) > 0.05]
    values = [sample_on_mesh(flow(ny), 0, points)[-1, :, :2] for ny in (16, 32, 64)]
    changes = [float((b - a).norm()) for a, b in pairwise(values)]
    assert changes[1] < 0.5 * changes[0] and changes[1] < 0.2 * float(values[-1].norm())


def test_air_is_blown_down_by_the_rotors_and_stops_at_the_ground() -> None:
    found, points, walls = flow(64), mesh(0.02, 0.04).points, mesh(0.02, 0.04).walls
    values = sample_on_mesh(found, 0, points)[-1]
    speed = values[:, :2].norm(dim=1)
    assert float(speed[torch.from_numpy(walls)].max()) < 0.15 * float(speed.max())
    middle, reach, turns, phase = SCENE.path
    under = middle + reach * math.sin(2.0 * math.pi * turns * 0.4 + phase)
    below = np.array([[under - 0.09, SCENE.altitude - 0.03], [under + 0.09, SCENE.altitude - 0.03]])
    assert bool((sample_on_mesh(found, 0, below)[-1, :, 1] < -0.2).all())


def test_the_wind_comes_in_again_beside_the_view() -> None:
    found = flow(32)
    edge = np.array([[0.02, 0.7], [1.98, 0.7]])
    values = sample_on_mesh(found, 0, edge)[-1]
    torch.testing.assert_close(values[:, 0], torch.full((2,), SCENE.wind, dtype=torch.float64), rtol=0.0, atol=0.03)
    assert float(values[:, 1].abs().max()) < 0.03


def test_scenes_are_functions_of_their_seed_and_do_not_see_each_other() -> None:
    assert random_scene((1, 2)) == random_scene((1, 2)) != random_scene((1, 3))
    other = random_scene(5)
    both, alone = flow(16, (SCENE, other)), flow(16, (other,))
    torch.testing.assert_close(both.velocity[:, 1], alone.velocity[:, 0], rtol=0.0, atol=1e-11)
    for seed in range(50):
        scene = random_scene(seed)
        assert min(np.diff(scene.edges)) > 0.0999 and 4 <= len(scene.heights) <= 7
    again = mesh_of(SCENE, 0, 0.02, 0.04)
    assert np.array_equal(again.points, mesh(0.02, 0.04).points)


def test_a_scene_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="one height more"):
        replace(SCENE, heights=SCENE.heights[:-1])
    with pytest.raises(ValueError, match="one height more"):
        replace(SCENE, edges=SCENE.edges[::-1])
    with pytest.raises(ValueError, match="heights lie between"):
        replace(SCENE, altitude=0.1)
