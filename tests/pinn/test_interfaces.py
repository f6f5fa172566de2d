"""Interface conditions: they vanish for exact solutions on both sides, and see what they are there to see."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from sciode.pde import Ball, Box, Domain, Polygon, Slab, difference, union
from sciode.pinn import CONDITIONS, FAMILIES, Decomposition, Names, Problem, grid, interfaces, strips, weights_of
from sciode.pinn.derivatives import Derivatives
from sciode.pinn.interfaces import Sides, tangents
from sciode.pinn.networks import Network
from sciode.pinn.representation import Known
from sciode.pinn.taylor import derivatives_of
from sciode.pinn.terms import Joints, Numbers, groups_of
from sciode.pinn.touching import contacts

LIKE = torch.zeros((), dtype=torch.float64)
EXACT = [name for name, family in FAMILIES.items() if family.make().exact is not None]


@pytest.mark.parametrize("name", EXACT)
def test_all_terms_vanish_for_the_exact_solution(name: str) -> None:
    """Of the equation, the data and all nine interface conditions, on both sides."""
    problem = FAMILIES[name].make()
    known = Known(problem, FAMILIES[name].cut(problem), Network(), LIKE)
    theta = torch.zeros(1, known.size, dtype=torch.float64)
    groups = groups_of(known, list(CONDITIONS))
    assert len(groups) == 4 and isinstance(groups[-1], Joints)
    for group in groups:
        sample = group.draw(Numbers(64, 32, 32), 3, LIKE)
        assert sample is not None
        for term, rows in group.residuals(theta, sample).items():
            # Fourth derivatives of the sharp Burgers front are as large as 1e6.
            assert float(rows.abs().max()) < 1e-6, term


def _sides(left: object, right: object, points: Tensor, normals: Tensor, problem: Problem) -> Sides:
    axes = points.shape[-1]
    orders = [tuple(3 * (i == k) for i in range(axes)) for k in range(axes)] + [(2, 1), (1, 2)]
    both = [
        Derivatives(problem.names, derivatives_of(f, points, orders), points, normals)  # type: ignore[arg-type]
        for f in (left, right)
    ]
    return Sides(problem, both[0], both[1], normals, SimpleNamespace(**problem.parameters))


def _plane(fields: tuple[str, ...] = ("u",)) -> Problem:
    return Problem(
        "poisson", Names(("x", "y"), fields), Box((-1, -1), (1, 1)), lambda d, p: d.u_xx + d.u_yy - d.x * d.u
    )


SEEN = {
    "value": lambda a: a,
    "average": lambda a: a / math.sqrt(2),
    "flux": lambda a: a,
    "second normal derivative": lambda a: 2 * a,
    "tangential derivative": lambda a: a,
    "second tangential derivative": lambda a: 2 * a,
}


@pytest.mark.parametrize("name", SEEN)
@pytest.mark.parametrize("angle", [0.0, 0.7, 2.0])
def test_a_jump_across_a_slanted_line_is_measured_along_its_normal(name: str, angle: float) -> None:
    """A jump a, a s, a s^2, a r or a r^2 with s across and r along the line through 0."""
    a = 0.3
    normal = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    along = tangents(normal[None])[0][0]

    def jump(x: Tensor) -> Tensor:
        s, r = (x * normal).sum(-1, keepdim=True), (x * along).sum(-1, keepdim=True)
        powers = {"value": s * 0 + 1, "average": s * 0 + 1, "flux": s, "second normal derivative": s**2}
        return a * {**powers, "tangential derivative": r, "second tangential derivative": r**2}[name]

    def left(x: Tensor) -> Tensor:
        return torch.sin(x[..., :1]) * x[..., 1:]

    points = torch.zeros(1, 1, 3, 2, dtype=torch.float64) + torch.tensor([-1.0, 0.0, 1.0])[:, None] * along
    sides = _sides(left, lambda x: left(x) + jump(x), points, normal.expand_as(points), _plane())
    found = CONDITIONS[name].residual(sides)
    expected = torch.full((1, 1, 3), SEEN[name](a), dtype=torch.float64)
    torch.testing.assert_close(found.norm(dim=-1), expected, rtol=1e-12, atol=1e-12)


def test_residual_conditions_are_the_equation_and_its_slopes() -> None:
    problem = _plane()

    def left(x: Tensor) -> Tensor:
        return x[..., :1] ** 3 * x[..., 1:] ** 2

    def right(x: Tensor) -> Tensor:
        return x[..., 1:] ** 4 + x[..., :1]

    generator = torch.Generator().manual_seed(0)
    points = torch.rand(1, 1, 6, 2, generator=generator, dtype=torch.float64)
    x, y = points.unbind(-1)
    normals = torch.zeros_like(points)
    normals[..., 0] = 1
    sides = _sides(left, right, points, normals, problem)
    first = 6 * x * y**2 + 2 * x**3 - x**4 * y**2
    second = 12 * y**2 - x * (y**4 + x)
    found = CONDITIONS["residual"].residual(sides)
    torch.testing.assert_close(found, torch.stack((first, second), -1))
    torch.testing.assert_close(CONDITIONS["residual continuity"].residual(sides)[..., 0], second - first)
    slopes = CONDITIONS["gradient-enhanced residual"].residual(sides)
    exact = (
        6 * y**2 + 6 * x**2 - 4 * x**3 * y**2,
        12 * x * y - 2 * x**4 * y,
        -(y**4) - 2 * x,
        24 * y - 4 * x * y**3,
    )
    torch.testing.assert_close(slopes, torch.stack(exact, -1))


def test_tangents_are_unit_vectors_across() -> None:
    generator = torch.Generator().manual_seed(1)
    for axes in (2, 3):
        normals = torch.nn.functional.normalize(torch.randn(50, axes, generator=generator), dim=-1)
        frame = torch.stack([normals, *tangents(normals)], -1)
        torch.testing.assert_close(frame.mT @ frame, torch.eye(axes).expand(50, -1, -1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["tangential derivative", "second tangential derivative"])
def test_derivatives_along_a_surface_have_a_size_that_no_choice_of_tangents_changes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """|P g| and the Frobenius norm of P H P with P = I - n n^T, of a jump with gradient g and Hessian H at 0."""
    generator = torch.Generator().manual_seed(2)
    g, matrix = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((3,), (3, 3)))
    hessian = matrix + matrix.T
    normal = torch.nn.functional.normalize(torch.randn(3, generator=generator, dtype=torch.float64), dim=0)
    across = torch.eye(3, dtype=torch.float64) - normal[:, None] * normal
    exact = (across @ g).norm() if name == "tangential derivative" else (across @ hessian @ across).norm()

    def jump(x: Tensor) -> Tensor:
        return (x @ g + 0.5 * ((x @ hessian) * x).sum(-1))[..., None]

    problem = Problem("space", Names(("x", "y", "z"), ("u",)), Box((-1, -1, -1), (1, 1, 1)), lambda d, p: d.u_xx)
    points = torch.zeros(1, 1, 1, 3, dtype=torch.float64)
    both = [
        Derivatives(problem.names, derivatives_of(f, points, [(2, 1, 1), (1, 2, 1), (1, 1, 2)]), points)
        for f in (lambda x: 0 * x[..., :1], jump)
    ]
    sides = Sides(problem, both[0], both[1], normal.expand_as(points), SimpleNamespace())
    first, second = tangents(normal)
    for angle in (0.0, 0.4, 2.1):
        turned = [
            math.cos(angle) * first + math.sin(angle) * second,
            math.cos(angle) * second - math.sin(angle) * first,
        ]
        monkeypatch.setattr(interfaces, "tangents", lambda normals, t=turned: [one.expand_as(normals) for one in t])
        assert float(CONDITIONS[name].residual(sides).norm()) == pytest.approx(float(exact), rel=1e-12)


def test_any_pieces_meet_where_they_touch() -> None:
    """A disc in a square: the interface is its circle, its normals are radial."""
    square, disc = Box((-1, -1), (1, 1)), Ball((0, 0), 0.5)
    cut = Decomposition(square, ((disc,), (difference(square, disc),)))
    assert [(one.left, one.right) for one in cut.meetings] == [(0, 1)]
    found = cut.interface(cut.meetings[0], 40, 0)
    torch.testing.assert_close(found.points.norm(dim=1), torch.full((40,), 0.5, dtype=torch.float64))
    torch.testing.assert_close(found.normals, 2 * found.points)


def test_a_grid_meets_in_faces_and_not_in_corners() -> None:
    cut = grid(Box((0, 0), (3, 2)), (3, 2))
    pairs = [(one.left, one.right) for one in cut.meetings]
    assert pairs == [(0, 1), (0, 2), (1, 3), (2, 3), (2, 4), (3, 5), (4, 5)]


def test_pieces_that_share_a_network_get_points_by_their_volumes() -> None:
    problem = FAMILIES["burgers"].make()
    cut = FAMILIES["burgers"].cut(problem)
    points = cut.inside(900, "sobol", 0)
    assert points.shape == (2, 900, 2)
    assert int((points[0, :, 0] < 0).sum()) == 450 and bool((points[1, :, 0].abs() <= 0.1).all())
    interface = cut.interface(cut.meetings[0], 100, 0)
    assert abs(int((interface.points[:, 0] < 0).sum()) - 50) <= 5


def test_faults_of_decompositions_are_named() -> None:
    whole = Box((0, 0), (1, 1))
    with pytest.raises(ValueError, match="leave"):
        Decomposition(whole, ((Box((0, 0), (0.5, 1)),),))
    with pytest.raises(ValueError, match="piece 1 reaches beyond"):
        Decomposition(whole, ((Box((0, 0), (0.5, 1)),), (Box((0.5, 0), (1.5, 1)),)))
    with pytest.raises(ValueError, match="piece 1 is empty"):
        Decomposition(whole, ((whole,), (difference(Ball((0.5, 0.5), 0.1), Ball((0.5, 0.5), 0.2)),)))
    with pytest.raises(ValueError, match="overlap in"):
        Decomposition(whole, ((Box((0, 0), (0.6, 1)),), (Box((0.4, 0), (1, 1)),)))
    for axis, cuts in ((0, [0.7, 0.3]), (4, [0.5])):
        with pytest.raises(ValueError, match="ascend"):
            strips(whole, axis, cuts)
    for axis, cuts in (("x", [0.5]), (0, 0.5)):
        with pytest.raises(ValueError, match="cuts are a list"):
            strips(whole, axis, cuts)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="take single"):
        Decomposition(whole, whole)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="piece 0: 'left' is no Domain"):
        Decomposition(whole, [("left",)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="cannot be reached"):
        cut = grid(whole, (2, 2))
        cut.interface(type(cut.meetings[0])(0, 3), 10, 0)


LONG = Box((0, 0), (1000, 1))
NOTCHED = Polygon(((0, 0), (1, 0), (1, 0.5), (0.999, 0.5), (0.999, 0.501), (1, 0.501), (1, 1), (0, 1)))
STEP = Polygon(((0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)))
HOLED = difference(Box((-1, -1), (1, 1)), Ball((0.2, 0.1), 0.3))


@pytest.mark.parametrize(
    ("domain", "pieces", "measure", "where"),
    [
        (LONG, (Box((0, 0), (400, 1)), Box((400, 0), (1000, 1))), 1.0, lambda x: x[:, 0] - 400),
        (
            Box((0, 0), (1, 1)), (NOTCHED, Box((0.999, 0.5), (1, 0.501))), 0.003,
            lambda x: torch.stack((x[:, 0] - 0.999, x[:, 1] - 0.5, x[:, 1] - 0.501)).abs().amin(0),
        ),
        (STEP, (Box((0, 0), (1, 2)), Box((1, 0), (2, 1))), 1.0, lambda x: x[:, 0] - 1),
        (Box(0, 9), (Box(0, 2), Box(2, 9)), 1.0, lambda x: x[:, 0] - 2),
        (
            Slab(STEP, 0, 2), (Slab(STEP, 0, 0.5), Slab(STEP, 0.5, 2)), 3.0, lambda x: x[:, 2] - 0.5,
        ),
        (
            Slab(HOLED, 0, 2), (Slab(HOLED, 0, 0.5), Slab(HOLED, 0.5, 2)), 4 - math.pi * 0.09, lambda x: x[:, 2] - 0.5,
        ),
        (
            Box((0, 0, 0), (1, 1, 1)),
            (Slab(Polygon(((0, 0), (1, 0), (0, 1))), 0, 1), Slab(Polygon(((1, 0), (1, 1), (0, 1))), 0, 1)),
            math.sqrt(2), lambda x: x[:, 0] + x[:, 1] - 1,
        ),
    ],
)  # fmt: skip
def test_an_interface_of_boxes_polygons_and_slabs_is_known_however_small(
    domain: Domain, pieces: tuple[Domain, Domain], measure: float, where: Callable[[Tensor], Tensor]
) -> None:
    """All points lie on it and fill it evenly, a step along a normal leads from left to right, its size is exact."""
    cut = Decomposition(domain, tuple((one,) for one in pieces))
    assert [(one.left, one.right) for one in cut.meetings] == [(0, 1)]
    found = cut.interface(cut.meetings[0], 400, 1)
    assert found.points.shape == (400, domain.dimension) == found.normals.shape
    assert float(where(found.points).abs().max()) < 1e-12
    step = 1e-6 * found.normals
    assert bool((cut.owner(found.points - step) == 0).double().mean() > 0.99)
    assert bool((cut.owner(found.points + step) == 1).double().mean() > 0.99)
    known = contacts(*pieces, 1e-9)
    assert known is not None
    assert sum(one.measure for one in known) == pytest.approx(measure, rel=5e-3 if domain.hull != domain else 1e-9)
    for axis in range(domain.dimension):
        values = found.points[:, axis].sort().values
        if float(values[-1] - values[0]) > 1e-9:
            assert float((values[1:] - values[:-1]).max()) < 0.5 * float(values[-1] - values[0])


def test_a_small_disc_is_joined_to_what_is_around_it_from_its_own_boundary() -> None:
    """A circle of 1/130 of the square's outline, on whose far side the normals of the left piece point."""
    square, disc = Box((-1, -1), (1, 1)), Ball((0.3, 0.2), 0.01)
    cut = Decomposition(square, ((difference(square, disc),), (disc,)))
    assert [(one.left, one.right) for one in cut.meetings] == [(0, 1)]
    found = cut.interface(cut.meetings[0], 100, 0)
    off = found.points - torch.tensor([0.3, 0.2], dtype=torch.float64)
    torch.testing.assert_close(found.normals, -off / 0.01)


def test_slabs_over_a_plate_and_the_disc_in_its_hole_meet_in_a_cylinder() -> None:
    whole, disc = Slab(Box((-1, -1), (1, 1)), 0, 2), Ball((0.2, 0.1), 0.3)
    cut = Decomposition(whole, (Slab(HOLED, 0, 2), Slab(disc, 0, 2)))
    assert [(one.left, one.right) for one in cut.meetings] == [(0, 1)]
    found = cut.interface(cut.meetings[0], 200, 0)
    off = found.points[:, :2] - torch.tensor([0.2, 0.1], dtype=torch.float64)
    torch.testing.assert_close(off.norm(dim=1), torch.full((200,), 0.3, dtype=torch.float64))
    torch.testing.assert_close(found.normals[:, :2], -off / 0.3)
    assert not bool(found.normals[:, 2].any())
    times = found.points[:, 2].sort().values
    assert float(times[0]) < 0.1 and float(times[-1]) > 1.9 and float((times[1:] - times[:-1]).max()) < 0.2


def test_boxes_that_meet_in_corners_or_edges_or_not_at_all_have_no_interface() -> None:
    cube = Box((0, 0, 0), (1, 1, 1))
    for other in (Box((1, 1, 0), (2, 2, 1)), Box((1, 1, 1), (2, 2, 2)), Box((1.1, 0, 0), (2, 1, 1))):
        assert contacts(cube, other, 1e-9) == []
    assert contacts(Box((0, 0), (1, 1)), Polygon(((1, 1), (2, 1), (2, 2))), 1e-9) == []
    assert contacts(cube, Slab(Ball((0, 0), 1), 2, 3), 1e-9) == []
    assert contacts(Box((0, 0), (1, 1)), Ball((2, 0.5), 1), 1e-9) is None


def test_a_gap_too_small_to_be_met_by_points_shows_in_volumes() -> None:
    with pytest.raises(ValueError, match=r"pieces have 99\.9995\d+% of the domain's volume"):
        Decomposition(Box((0, 0), (1, 1)), ((Box((0, 0), (0.499995, 1)),), (Box((0.5, 0), (1, 1)),)))


def test_a_piece_that_touches_no_other_is_named() -> None:
    two = union(Ball((0.2, 0.2), 0.1), Ball((0.8, 0.8), 0.1))
    with pytest.raises(ValueError, match="touches no other"):
        Decomposition(two, ((Ball((0.2, 0.2), 0.0999),), (Ball((0.8, 0.8), 0.0999),)))


def test_arms_are_rows_of_weights() -> None:
    found = weights_of([["average", "flux"], ["value"]])
    assert found.shape == (2, 9) and found.sum(1).tolist() == [2.0, 1.0]
    assert weights_of(["value"]).shape == (1, 9)
    with pytest.raises(ValueError, match="flux"):
        weights_of(["fluxx"])
    with pytest.raises(ValueError, match="arms, 9"):
        weights_of(torch.ones(3, 8))
