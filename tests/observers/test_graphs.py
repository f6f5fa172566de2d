"""Neighbours: symmetric, across seams, geodesic on the sphere, and never missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay
from torch import Tensor

from sciode.data.flow import Space
from sciode.observers import duplicates, edges_between, embedded, flattened, graph, outside_hull

BOX = Space("periodic", (0.0, 0.0), (1.0, 2.0))
PLANE = Space("plane", (0.0, 0.0), (1.0, 1.0))
SPHERE = Space("sphere")


def scattered(count: int, seed: int = 0, d: int = 2) -> Tensor:
    return torch.rand(count, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def on_sphere(count: int, seed: int = 0) -> Tensor:
    found = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return found / found.norm(dim=1, keepdim=True)


def pairs(edges: Tensor) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for a, b in edges.T}


CASES = [
    (PLANE, scattered(40)),
    (BOX, scattered(40) * torch.tensor([1.0, 2.0])),
    (SPHERE, on_sphere(40)),
]


@pytest.mark.parametrize("kind", ["delaunay", "knn", "radius"])
@pytest.mark.parametrize(("space", "points"), CASES, ids=["plane", "periodic", "sphere"])
def test_edges_run_both_ways_once_and_reach_everyone(space: Space, points: Tensor, kind: str) -> None:
    edges = edges_between(points, space, kind, radius=0.4)  # type: ignore[arg-type]
    found = pairs(edges)
    assert len(found) == edges.shape[1]
    assert all((b, a) in found and a != b for a, b in found)
    assert set(edges[0].tolist()) == set(range(40))


def test_a_plane_has_the_sides_of_its_delaunay_triangles() -> None:
    points = scattered(30)
    start, near = Delaunay(points.numpy()).vertex_neighbor_vertices
    expected = {(a, int(b)) for a in range(30) for b in near[start[a] : start[a + 1]]}
    assert pairs(edges_between(points, PLANE)) == expected


@pytest.mark.parametrize("kind", ["delaunay", "knn", "radius"])
def test_a_periodic_box_does_not_know_where_it_begins(kind: str) -> None:
    points = scattered(60, 1) * torch.tensor([1.0, 2.0])
    moved = (points + torch.tensor([0.37, 1.1])) % torch.tensor([1.0, 2.0])
    first, second = (pairs(edges_between(x, BOX, kind, radius=0.3)) for x in (points, moved))  # type: ignore[arg-type]
    assert first == second


def test_a_triangulated_torus_obeys_euler() -> None:
    """V - E + F = 0 and 3 F = 2 E on a torus: three edges a point; E = 3 V - 6 on a sphere."""
    torus = edges_between(scattered(80, 2) * torch.tensor([1.0, 2.0]), BOX)
    assert torus.shape[1] // 2 == 3 * 80
    assert edges_between(on_sphere(80, 2), SPHERE).shape[1] // 2 == 3 * 80 - 6


def circle(count: int) -> Tensor:
    turn = 2.0 * torch.pi * torch.arange(count, dtype=torch.float64) / count
    return torch.stack((turn.cos(), turn.sin()), 1)


def test_no_point_of_a_circle_is_everyones_neighbour() -> None:
    """The last latitude of a grid around a pole, and sensors around a hole: four neighbours on the circle at most, as
    many edges as any triangles have, the same wherever a periodic box begins."""
    heights = torch.tensor([-0.99, -0.5, 0.0, 0.5, 0.99], dtype=torch.float64)
    rings = [torch.cat(((1 - h * h).sqrt() * circle(40), h.expand(40, 1)), 1) for h in heights]
    grid = edges_between(torch.cat(rings), SPHERE)
    assert grid.shape[1] // 2 == 3 * 200 - 6
    assert int(grid[0].bincount().max()) <= 8
    rest = scattered(60, 4)
    hole = torch.cat((0.5 + 0.2 * circle(30), rest[(rest - 0.5).norm(dim=1) > 0.22]))
    flat = edges_between(hole, PLANE)
    inner = flat[:, (flat < 30).all(0)]
    assert inner.shape[1] // 2 == 30 + 27 and int(inner[0].bincount().max()) == 4
    first, second = (pairs(edges_between(x, BOX)) for x in (hole, (hole + 0.4) % torch.tensor([1.0, 2.0])))
    assert first == second
    assert {(a, b) for a, b in first if max(a, b) < 30} == pairs(inner)
    # In float32 Qhull may find parts of a circle alone: no long fan all the same.
    assert int(edges_between(torch.cat(rings).float(), SPHERE)[0].bincount().max()) <= 8
    assert int(edges_between(hole.float(), PLANE)[0].bincount().max()) <= 16


def test_a_circle_around_the_centre_is_joined_the_same_in_any_order() -> None:
    """Sensors on half a sphere: the circle's mean is 0 but for rounding, which hangs on the order of the sensors."""
    rest = on_sphere(20, 5)
    half = torch.cat((torch.cat((circle(12), torch.zeros(12, 1, dtype=torch.float64)), 1), rest[rest[:, 2] > 0.2]))
    half = half @ torch.linalg.qr(on_sphere(3, 1))[0]
    plain = pairs(edges_between(half, SPHERE))
    assert len([pair for pair in plain if max(pair) < 12]) == 2 * (12 + 9)
    for seed in range(8):
        order = torch.randperm(len(half), generator=torch.Generator().manual_seed(seed))
        assert {(int(order[a]), int(order[b])) for a, b in pairs(edges_between(half[order], SPHERE))} == plain


@pytest.mark.parametrize("kind", ["delaunay", "knn", "radius"])
def test_a_sphere_has_no_poles(kind: str) -> None:
    points = on_sphere(50, 3)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    first, second = (
        pairs(edges_between(x, SPHERE, kind, radius=0.5))  # type: ignore[arg-type]
        for x in (points, points @ turn.T)
    )
    assert first == second


def test_a_flattened_sphere_loses_edges_across_its_seam() -> None:
    points = on_sphere(200, 4)
    flat, plane = flattened(points, SPHERE)

    def across(edges: Tensor) -> int:
        east = flat[:, 0]
        return int(((east[edges[0]] - east[edges[1]]).abs() > np.pi).sum())

    assert across(edges_between(points, SPHERE)) > 0
    # What is left between the map's ends are long sides of its own hull.
    long = edges_between(flat, plane)
    assert across(long) < across(edges_between(points, SPHERE))


def test_nearest_neighbours_are_the_nearest_by_the_way_of_the_space() -> None:
    points = scattered(25, 5) * torch.tensor([1.0, 2.0])
    distance = BOX.difference(points.unsqueeze(1), points).norm(dim=-1).fill_diagonal_(torch.inf)
    expected = {(a, int(b)) for a in range(25) for b in distance[a].topk(4, largest=False).indices}
    expected |= {(b, a) for a, b in expected}
    assert pairs(edges_between(points, BOX, "knn", 4)) == expected


def test_collinear_duplicate_and_few_sensors_still_have_neighbours() -> None:
    line = torch.stack((torch.linspace(0, 1, 9), torch.linspace(0, 1, 9)), 1)
    twice = torch.cat((scattered(20), scattered(20)[:3]))
    for points in (line, twice, line[:2], line[:3]):
        edges = edges_between(points, PLANE)
        assert set(edges[0].tolist()) == set(range(len(points)))
    assert edges_between(line[:1], PLANE).shape == (2, 0)
    assert duplicates(twice, PLANE).nonzero().flatten().tolist() == [20, 21, 22]
    assert duplicates(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), BOX).tolist() == [False, True]


def test_what_lies_outside_the_hull_is_flagged_in_a_plane_only() -> None:
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    asked = torch.tensor([[0.2, 0.2], [0.7, 0.7], [0.5, 0.5], [-0.1, 0.5]])
    assert outside_hull(asked, corners, PLANE).tolist() == [False, True, False, True]
    assert outside_hull(asked, corners[:2], PLANE).all()
    assert not outside_hull(asked, corners, BOX).any()


def test_torch_geometric_batches_the_graphs() -> None:
    from torch_geometric.data import Batch

    one, two = graph(scattered(12), PLANE), graph(scattered(9, 1), PLANE)
    both: Any = Batch.from_data_list([one, two])
    assert both.num_graphs == 2 and both.num_nodes == 21
    assert torch.equal(both.edge_index[:, one.num_edges :], two.edge_index + 12)
    way = one.pos[one.edge_index[1]] - one.pos[one.edge_index[0]]
    assert torch.allclose(one.edge_attr[:, :2], way) and torch.allclose(one.edge_attr[:, 2], way.norm(dim=1))


def test_codes_of_places_close_over_the_seam() -> None:
    ends = torch.tensor([[0.0, 0.3], [1.0, 2.3]])
    code = embedded(ends, BOX)
    assert torch.allclose(code[0], code[1], atol=1e-6)
    assert embedded(torch.tensor([[0.0, 0.5]]), PLANE).tolist() == [[-1.0, 0.0]]


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="Did you mean 'delaunay'"):
        edges_between(scattered(5), PLANE, "delauny")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="radius > 0"):
        edges_between(scattered(5), PLANE, "radius")
    with pytest.raises(ValueError, match="finite"):
        edges_between(torch.full((4, 2), torch.nan), PLANE)
    with pytest.raises(ValueError, match="k must be >= 1"):
        edges_between(scattered(5), PLANE, "knn", 0)
    with pytest.raises(ValueError, match="only a sphere"):
        flattened(scattered(5), PLANE)


def test_edges_of_the_map_stop_at_the_date_line() -> None:
    points = torch.randn(80, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = points / points.norm(dim=1, keepdim=True)
    east = torch.atan2(points[:, 1], points[:, 0])
    across = {}
    for kind in ("delaunay", "map"):
        edges = edges_between(points, Space("sphere"), kind)  # type: ignore[arg-type]
        across[kind] = int(((east[edges[0]] - east[edges[1]]).abs() > torch.pi).sum())
    assert across["delaunay"] > 5 * across["map"]
    with pytest.raises(ValueError, match="only a sphere"):
        edges_between(
            torch.rand(5, 2, generator=torch.Generator().manual_seed(0)), Space("plane", (0, 0), (1, 1)), "map"
        )
