"""Meshes of implicit regions: their volume, orientation, watertightness, and uniform samples."""

from __future__ import annotations

from math import factorial

import pytest
import torch
from scipy import stats
from torch import Tensor

from sciode.pde.meshes import Mesh, Shape, lattice_mesh
from sciode.pde.shapes import SHAPES

EVERY = [(name, 9 if len(shape.lower) == 3 else 14) for name, shape in SHAPES.items()]


def _ridges(faces: Tensor) -> Tensor:
    """How many boundary faces meet at each of their own faces."""
    d = faces.shape[1]
    parts = faces[:, torch.combinations(torch.arange(d), r=d - 1)]
    return torch.unique(parts.flatten(0, 1).sort(-1).values, dim=0, return_counts=True)[1]


@pytest.fixture(scope="module", params=EVERY, ids=[name for name, _ in EVERY])
def meshed(request: pytest.FixtureRequest) -> tuple[Shape, Mesh]:
    name, resolution = request.param
    return SHAPES[name], SHAPES[name].mesh(resolution)


def test_every_cell_is_positively_oriented_and_no_sliver(meshed: tuple[Shape, Mesh]) -> None:
    _, mesh = meshed
    assert bool((mesh.volumes() > 0).all())
    quality = mesh.quality()
    assert bool((quality <= 1 + 1e-12).all())
    assert float(quality.min()) > 0.05


def test_the_mesh_is_watertight(meshed: tuple[Shape, Mesh]) -> None:
    """Each face belongs to one cell or two, and the faces of one cell close up: two meet at each of their edges."""
    _, mesh = meshed
    faces, counts = mesh.faces()
    assert bool(((counts == 1) | (counts == 2)).all())
    boundary = mesh.boundary()
    assert torch.equal(torch.unique(boundary.sort(-1).values, dim=0), faces[counts == 1])
    assert bool((_ridges(boundary) == 2).all())


def test_the_boundary_lies_on_the_surface(meshed: tuple[Shape, Mesh]) -> None:
    shape, mesh = meshed
    assert float(shape.level(mesh.points[mesh.boundary().unique()]).abs().max()) < 1e-12


def test_normals_point_outwards_by_the_divergence_theorem(meshed: tuple[Shape, Mesh]) -> None:
    """The flux of x through the boundary is d times the volume, and that of a constant is 0."""
    _, mesh = meshed
    corners = mesh.points[mesh.boundary()]
    edges = corners[:, 1:] - corners[:, :1]
    areas = torch.linalg.det(edges @ edges.mT).sqrt() / factorial(mesh.dimension - 1)
    assert torch.allclose(mesh.normals().norm(dim=-1), torch.ones(len(areas), dtype=torch.float64))
    flux = areas.unsqueeze(-1) * mesh.normals()
    assert float(flux.sum(0).abs().max()) < 1e-12
    assert float((flux * corners.mean(1)).sum()) == pytest.approx(mesh.dimension * mesh.volume(), rel=1e-12)


@pytest.mark.parametrize("name", ["square", "cube"])
def test_boxes_are_met_exactly(name: str) -> None:
    for resolution in (1, 4, 5):
        assert SHAPES[name].mesh(resolution).volume() == pytest.approx(SHAPES[name].volume, rel=1e-13)


@pytest.mark.parametrize("name, resolutions", [("disc", (8, 16, 32, 64)), ("ball", (5, 10, 20))])
def test_the_volume_of_round_bodies_converges_as_the_square_of_the_cells_size(
    name: str, resolutions: tuple[int, ...]
) -> None:
    """From inside, for their boundaries are chords; an inscribed regular polygon has order 2 too."""
    shape = SHAPES[name]
    assert shape.volume is not None
    lacks = [shape.volume - shape.mesh(resolution).volume() for resolution in resolutions]
    assert min(lacks) > 0
    order = torch.log2(torch.tensor(lacks[:-1]) / torch.tensor(lacks[1:]))
    assert float(order.mean()) == pytest.approx(2.0, abs=0.2)


def test_the_stand_in_is_one_body_without_handles() -> None:
    """Its boundary is one closed surface with Euler's characteristic 2, ears and all."""
    mesh = SHAPES["bunny-stand-in"].mesh(12)
    boundary = mesh.boundary()
    label = torch.arange(len(mesh.points))
    for _ in range(len(mesh.points)):
        least = label[mesh.cells].min(-1).values
        new = label.clone().scatter_reduce(0, mesh.cells.flatten(), least.repeat_interleave(4), "amin")
        if torch.equal(new, label):
            break
        label = new
    assert int(label.max()) == 0
    assert len(boundary.unique()) - len(_ridges(boundary)) + len(boundary) == 2


def test_samples_are_inside_and_a_function_of_their_seed() -> None:
    shape = SHAPES["ball"]
    mesh = shape.mesh(6)
    points = mesh.sample(500, seed=1)
    assert bool((shape.level(points) < 0).all())
    assert torch.equal(points, mesh.sample(500, seed=1))
    assert not torch.equal(points, mesh.sample(500, seed=2))


@pytest.mark.parametrize("name", ["square", "cube"])
def test_samples_of_a_box_are_uniform_along_every_axis(name: str) -> None:
    """Kolmogorov and Smirnov at a level that fails one seed in ten thousand."""
    points = SHAPES[name].mesh(5).sample(20_000, seed=3)
    for axis in range(points.shape[1]):
        assert stats.kstest(points[:, axis].numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-4


@pytest.mark.parametrize("name, resolution", [("disc", 4), ("bunny-stand-in", 10)])
def test_samples_have_the_moments_of_the_mesh_whose_cells_differ(name: str, resolution: int) -> None:
    """Mean of x and of x x^T over a simplex: exact by its corners; each off by less than 5 standard errors."""
    mesh = SHAPES[name].mesh(resolution)
    share = mesh.volumes() / mesh.volume()
    assert float(share.max() / share.min()) > 2
    corners, d = mesh.points[mesh.cells], mesh.dimension
    mean = share @ corners.mean(1)
    summed = corners.sum(1)
    squares = torch.einsum("mai,maj->mij", corners, corners) + torch.einsum("mi,mj->mij", summed, summed)
    second = torch.einsum("m,mij->ij", share, squares) / ((d + 1) * (d + 2))
    points = mesh.sample(40_000, seed=4)
    for values, exact in ((points, mean), (torch.einsum("ni,nj->nij", points, points), second)):
        error = (values.mean(0) - exact) / (values.std(0) / len(points) ** 0.5)
        assert float(error.abs().max()) < 5


def test_misuse_is_told() -> None:
    disc = SHAPES["disc"]
    with pytest.raises(ValueError, match="leaves the box"):
        lattice_mesh(disc.level, (-0.5, -0.5), (1.0, 1.0), 8)
    with pytest.raises(ValueError, match="no point"):
        lattice_mesh(lambda x: -disc.level(x) + 5, (-1.0, -1.0), (1.0, 1.0), 8)
    with pytest.raises(ValueError, match="lower < upper"):
        lattice_mesh(disc.level, (1.0, 1.0), (-1.0, -1.0), 8)
    with pytest.raises(ValueError, match="resolution"):
        disc.mesh(0)
    with pytest.raises(ValueError, match="level"):
        lattice_mesh(lambda x: x, (-1.0, -1.0), (1.0, 1.0), 8)
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert Mesh(triangle, torch.tensor([[0, 1, 2]])).volume() == pytest.approx(0.5)
    with pytest.raises(ValueError, match="positive volume"):
        Mesh(triangle, torch.tensor([[0, 2, 1]]))
    with pytest.raises(ValueError, match="expected points"):
        Mesh(triangle, torch.tensor([[0, 1]]))


def test_a_regular_simplex_has_quality_one() -> None:
    for points in ([[0, 0], [1, 0], [0.5, 0.75**0.5]], [[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]]):
        corners = torch.tensor(points, dtype=torch.float64)
        mesh = Mesh(corners, torch.arange(len(points)).unsqueeze(0))
        assert float(mesh.quality()) == pytest.approx(1.0)
