"""What is known of a solution has to agree with itself where sets touch: disagreements are named, nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.pde import Ball, Box, Domain, Polygon, Slab, difference
from sciode.pinn import Edge, Face, Given, Hard, Names, Periodic, Problem, Walls, dirichlet, observed

SQUARE = Box((0, 0), (1, 1))
BEND = Polygon(((0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)))
HOLE = difference(Box((-1, -1), (1, 1)), Ball((0, 0), 0.3))
LEFT, BOTTOM = Edge(lambda x: x[..., 0] < 1e-9), Edge(lambda x: x[..., 1] < 1e-9)


def one(x: Tensor) -> Tensor:
    return torch.ones_like(x[..., :1])


def zero(x: Tensor) -> Tensor:
    return torch.zeros_like(x[..., :1])


def told(*conditions: Any, domain: Domain = SQUARE, **changes: Any) -> Problem:
    axes = "xyt"[: domain.dimension]
    return Problem("told", Names(tuple(axes), ("u",)), domain, lambda d, p: d.u_x, conditions, **changes)


def named(where: Any, value: Any, name: str) -> Any:
    return dirichlet(where, value, name=name)


@pytest.mark.parametrize(
    ("domain", "first", "second"),
    [
        (SQUARE, Face("x", -1), Face("y", 1)),
        (SQUARE, Face("x", -1), Face("x")),
        (SQUARE, Face("x", 1), Edge(lambda x: x[..., 1] > 1 - 1e-9)),
        (SQUARE, Face("x", 1), Walls()),
        (SQUARE, Face("x", -1), Given(torch.tensor([[0.0, 0.5]]))),
        (SQUARE, Given(torch.tensor([[0.2, 0.0]])), BOTTOM),
        (Slab(BEND, 0, 1), Walls(), Given(torch.tensor([[1.5, 1.0, 0.4]]))),
        (BEND, LEFT, BOTTOM),
        (Slab(BEND, 0, 1), Face("t", -1), Walls()),
        (Slab(SQUARE, 0, 1), Face("t", -1), Face("x", 1)),
        (Slab(BEND, 0, 1), Walls(), Face("t", 1)),
        (Box((0, 0, 0), (1, 1, 1)), Face("t", -1), LEFT),
    ],
)
def test_values_that_differ_where_two_sets_touch_are_named_with_the_point(
    domain: Domain, first: Any, second: Any
) -> None:
    with pytest.raises(ValueError, match=r"a and b tell 1 and 0 at \[[-\d., e]+\], where they meet: mend the data"):
        told(named(first, one, "a"), named(second, zero, "b"), domain=domain)
    told(named(first, one, "a"), named(second, zero, "b"), domain=domain, corners="ignore")


@pytest.mark.parametrize(
    ("domain", "first", "second"),
    [
        (SQUARE, (Face("x", -1), one), (Face("x", 1), zero)),
        (SQUARE, (Face("x", -1), one), (Given(torch.tensor([[0.003, 0.5]])), zero)),
        (BEND, (LEFT, lambda x: 9 * x[..., 1:]), (BOTTOM, lambda x: -7 * x[..., :1])),
        (HOLE, (Edge(lambda x: x.norm(dim=-1) < 0.5), one), (Edge(lambda x: x.norm(dim=-1) > 0.5), zero)),
        (Box((0, 0), (1e-3, 1)), (Edge(lambda x: x[..., 0] < 1e-9), one), (Edge(lambda x: x[..., 0] > 9e-4), zero)),
        (Box(0, 1), (Face("x", -1), one), (Face("x", 1), zero)),
    ],
)
def test_sets_that_do_not_touch_and_values_that_join_are_let_be(domain: Domain, first: Any, second: Any) -> None:
    conditions = named(first[0], first[1], "a"), named(second[0], second[1], "b")
    assert told(*conditions, domain=domain).conditions == conditions


def test_initial_values_have_to_be_periodic_where_the_solution_is() -> None:
    with pytest.raises(ValueError, match=r"start tells 0 at \[0.0, 0.0\] and 1 at \[1.0, 0.0\], which periodic says"):
        told(named(Face("y", -1), lambda x: x[..., :1], "start"), Periodic("x"))
    told(named(Face("y", -1), lambda x: torch.sin(2 * torch.pi * x[..., :1]), "start"), Periodic("x"))


def test_a_hard_constraint_has_to_tell_what_conditions_tell_where_its_distance_is_zero() -> None:
    start = named(Face("y", -1), one, "start")
    with pytest.raises(ValueError, match=r"the hard constraint and start tell 0 and 1 at \[[\d., ]+0.0\]"):
        told(start, hard=Hard(zero, lambda x: x[..., 1:]))
    told(start, hard=Hard(zero, lambda x: 1 - x[..., 1:]))
    told(start, hard=Hard(one, lambda x: x[..., 1:]))


def test_measurements_are_no_boundary_data_and_may_differ() -> None:
    noisy = observed(torch.tensor([[0.0, 0.5]]), torch.tensor([0.3]))
    assert len(told(named(Face("x", -1), one, "wall"), noisy).conditions) == 2
    with pytest.raises(ValueError, match="corners must be"):
        told(corners="igonre")


def test_a_small_part_of_a_boundary_is_reached() -> None:
    """A part of 1/400 of a square's boundary: half of the 512 points are on each side of its middle, to 5 sigma."""
    slit = Edge(lambda x: (x[..., 0] < 1e-9) & ((x[..., 1] - 0.5).abs() < 0.005))
    found = slit.draw(Names(("x", "y"), ("u",)), SQUARE, 512, 0).points
    assert found.shape == (512, 2) and float((found[:, 1] - 0.5).abs().max()) < 0.005
    assert abs(int((found[:, 1] > 0.5).sum()) - 256) < 5 * 512**0.5 / 2
    with pytest.raises(ValueError, match=r"0 of .* points of the boundary lie in this part"):
        Edge(lambda x: x[..., 0] < -1).draw(Names(("x", "y"), ("u",)), SQUARE, 4, 0)
