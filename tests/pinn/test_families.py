"""Families: references against other solvers, exact solutions against their equations, what is told and what is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.linalg import spsolve

from sciode.pde import Ball, Box, Polygon, Slab
from sciode.pinn import (
    FAMILIES,
    Edge,
    Face,
    Names,
    Network,
    Numbers,
    Periodic,
    Problem,
    Walls,
    dirichlet,
    observed,
    single,
    solve,
    strips,
    windows,
)
from sciode.pinn.families import five_point, fourier_kdv
from sciode.pinn.representation import representation_of
from sciode.pinn.terms import groups_of
from sciode.training import Adam


def test_sine_transforms_solve_what_a_sparse_solver_solves() -> None:
    n, h = 15, 1 / 16
    generator = np.random.default_rng(0)
    force = np.zeros((n + 2, n + 2))
    force[1:-1, 1:-1] = generator.normal(size=(n, n))
    line = (np.eye(n, k=1) + np.eye(n, k=-1) - 2 * np.eye(n)) / h**2
    matrix = scipy.sparse.csc_matrix(np.kron(line, np.eye(n)) + np.kron(np.eye(n), line))
    exact = np.asarray(spsolve(matrix, force[1:-1, 1:-1].ravel())).reshape(n, n)
    np.testing.assert_allclose(five_point(force, h)[1:-1, 1:-1], exact, atol=1e-12)


def test_the_poisson_reference_converges() -> None:
    coarse, fine = (FAMILIES["poisson"].make(10.0, cells=cells).reference for cells in (200, 800))
    assert coarse is not None and fine is not None and torch.equal(coarse.points, fine.points)
    gap = (coarse.values - fine.values).abs().max() / fine.values.abs().max()
    assert float(gap) < 1e-3


def test_a_soliton_keeps_its_shape_and_goes_at_its_speed() -> None:
    v, c, line = 1.3, 6.0, 40.0
    x = np.arange(256) * line / 256

    def wave(x: np.ndarray, t: float) -> np.ndarray:
        off = (x - 15 - v * t + line / 2) % line - line / 2
        return 3 * v / c / np.cosh(math.sqrt(v) / 2 * off) ** 2

    found = fourier_kdv(wave(x, 0.0), line, c, np.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(found[-1], wave(x, 2.0), atol=1e-6)


def test_the_kdv_reference_keeps_its_mass_and_energy() -> None:
    reference = FAMILIES["kdv"].make().reference
    assert reference is not None
    values = reference.values.reshape(51, -1)
    for power in (1, 2):
        held = (values**power).mean(1)
        assert float((held / held[0] - 1).abs().max()) < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_time_is_told_officially_and_not_otherwise(name: str) -> None:
    family = FAMILIES[name]
    told = {one.name for one in family.make(official_supervision=True).conditions}
    assert told - {one.name for one in family.make().conditions} == (set() if name == "poisson" else {"final"})
    assert family.cut(family.make()).size == 2


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_be_trained_in_pieces(name: str) -> None:
    problem = FAMILIES[name].make()
    found = solve(
        problem, FAMILIES[name].cut(problem), network=Network(6, 1), numbers=Numbers(30, 8, 8), stages=[Adam(2)]
    )
    assert bool(found.error.isfinite()) and found.terms[0] == "equation"
    assert {"average", "residual continuity"} <= set(found.terms)


def test_a_polygon_over_a_span_of_time_is_a_domain_like_others() -> None:
    """Heat in an L: initial values, walls, and a contradiction between them that is seen."""
    ell = Slab(Polygon(((0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2))), 0.0, 1.0)

    def zero(x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x[..., :1])

    def made(height: float) -> Problem:
        return Problem(
            "ell", Names(("x", "y", "t"), ("u",)), ell, lambda d, p: d.u_t - d.u_xx - d.u_yy,
            (
                dirichlet(Face("t", -1), lambda x: zero(x) + height, name="initial"),
                dirichlet(Walls(), zero, name="walls"),
            ),
        )  # fmt: skip

    found = solve(made(0.0), network=Network(6, 1), numbers=Numbers(30, 8, 8), stages=[Adam(2)])
    assert found(ell.sample(5, 0)).shape == (1, 5, 1)
    with pytest.raises(ValueError, match="initial and walls tell 1 and 0"):
        made(1.0)


@pytest.mark.parametrize("where", [Edge(), Walls(), Face("x")])
@pytest.mark.parametrize("pieces", ["none", "strips", "windows"])
def test_points_of_a_condition_lie_on_all_of_its_set(where: Edge | Walls | Face, pieces: str) -> None:
    """In each piece, each face of the box that it touches has the share of points that its length has."""
    box = Box((0, 0), (1, 1))
    told = dirichlet(where, lambda x: torch.zeros_like(x[..., :1]), name="told")
    problem = Problem("laplace", Names(("x", "y"), ("u",)), box, lambda d, p: d.u_xx + d.u_yy, (told,))
    cut = single(box) if pieces == "none" else strips(box, 1, [0.5])
    cut = windows(cut) if pieces == "windows" else cut
    like = torch.zeros((), dtype=torch.float64)
    group = groups_of(representation_of(problem, cut, Network(4, 1), like), ())[1]
    sample = group.draw(Numbers(8, 400, 8), 0, like)
    assert sample is not None
    for number, points in enumerate(sample.data["points"][0]):
        low, high = (0.0, 1.0) if pieces != "strips" else (0.5 * number, 0.5 * number + 0.5)
        faces = {
            "left": points[:, 0] == 0,
            "right": points[:, 0] == 1,
            "low": points[:, 1] == 0,
            "high": points[:, 1] == 1,
        }
        lengths = {"left": high - low, "right": high - low, "low": low == 0, "high": high == 1}
        if isinstance(where, Face):
            lengths.update(low=0, high=0)
        for name, length in lengths.items():
            share = length / sum(lengths.values())
            assert float(faces[name].double().mean()) == pytest.approx(share, abs=4 * math.sqrt(0.25 / 400)), name


def test_a_place_that_was_measured_twice_is_told_the_mean() -> None:
    """sum (u - m)^2 over measurements m of a place is least at their mean; others are not touched by it."""
    points = torch.tensor([[0.5, 0.5], [0.2, 0.1], [0.5, 0.5], [0.2, 0.1 + 1e-9]], dtype=torch.float64)
    told = observed(points, torch.tensor([1.0, 7.0, 3.0, -7.0], dtype=torch.float64))
    torch.testing.assert_close(told.value(points)[:, 0], torch.tensor([2.0, 7.0, 2.0, -7.0], dtype=torch.float64))


def test_conditions_on_parts_of_a_boundary_and_faces_that_do_not_exist() -> None:
    names, box = Names(("x", "y"), ("u",)), Box((0, 0), (1, 1))
    right = Edge(lambda x: x[..., 0] > 0.999).draw(names, box, 20, 0)
    assert right.points.shape == (20, 2) and bool((right.points[:, 0] == 1).all())
    with pytest.raises(ValueError, match="is it empty"):
        Edge(lambda x: x[..., 0] > 2).draw(names, box, 20, 0)
    with pytest.raises(ValueError, match="need a Box"):
        Periodic("t").draw(Names(("x", "t"), ("u",)), Slab(Ball(0.0, 1.0), 0.0, 1.0), 10, 0)
    with pytest.raises(ValueError, match="no face 'z'"):
        Face("z").draw(names, box, 20, 0)
    low, high = Periodic("x").draw(names, box, 10, 0)
    assert torch.equal(low.points[:, 1], high.points[:, 1]) and bool((high.points[:, 0] == 1).all())
    assert single(box).meetings == ()


def test_the_two_walls_of_an_axis_are_drawn_independently_and_evenly() -> None:
    """Times on both walls: none in common, their correlation 0 and their means 1/2 to 5 sigma."""
    found = Face("x").draw(Names(("x", "t"), ("u",)), Box((0, 0), (1, 1)), 2001, 3)
    low, high = (found.points[found.points[:, 0] == end, 1].numpy() for end in (0.0, 1.0))
    assert (len(low), len(high)) == (1001, 1000) and not np.isin(low, high).any()
    assert abs(np.corrcoef(low[:1000], high)[0, 1]) < 5 / math.sqrt(1000)
    assert all(abs(times.mean() - 0.5) < 5 / math.sqrt(12 * 1000) for times in (low, high))
    torch.testing.assert_close(found.normals[:, 0], 2 * found.points[:, 0] - 1)


def test_space_and_time_over_a_box_have_the_faces_of_the_box_that_they_are() -> None:
    names, over = Names(("x", "y", "t"), ("u",)), Slab(Box((0, 0), (1, 2)), 0, 3)
    for where in (Face("x"), Face("y", 1)):
        for ours, box in zip(where.draw(names, over, 9, 4), where.draw(names, over.hull, 9, 4), strict=True):
            assert torch.equal(ours, box)
    low, high = Periodic("y").draw(names, over, 5, 0)
    assert torch.equal(high.points - low.points, torch.tensor([0.0, 2.0, 0.0]).double().expand(5, -1))
