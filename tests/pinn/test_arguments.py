"""What may be said shortly: one instead of a list of one, a number instead of a function; and what a solution says."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.pde import Ball, Box, Polygon, Slab
from sciode.pinn import (
    Decomposition,
    Face,
    Names,
    Network,
    Numbers,
    Problem,
    Reference,
    Unknown,
    Weights,
    dirichlet,
    grid,
    neumann,
    observed,
    robin,
    solve,
    strips,
    windows,
)
from sciode.training import LBFGS, Adam

XT, BOX = Names(("x", "t"), ("u",)), Box((0, 0), (1, 1))
BEND = Slab(Polygon(((0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2))), 0, 1)


def heat(**changes: Any) -> Problem:
    given: dict[str, Any] = {"conditions": dirichlet(Face("t", -1), 0.0, name="start"), **changes}
    return Problem("heat", XT, BOX, lambda d, p: d.u_t - p.k * d.u_xx, parameters={"k": 0.1}, **given)


def test_one_is_a_list_of_one() -> None:
    same: dict[str, Any] = {
        "network": Network(4, 1),
        "numbers": Numbers(8, 4, 4),
        "decomposition": strips(BOX, 1, [0.5]),
    }
    short = solve(heat(), **same, stages=Adam(2), conditions="value", limits=9.0)
    long = solve(heat(conditions=heat().conditions), **same, stages=[Adam(2)], conditions=[["value"]], limits=[9.0])
    assert torch.equal(short.theta, long.theta)
    pieces = Box((0, 0), (1, 0.5)), Box((0, 0.5), (1, 1))
    assert Decomposition(BOX, pieces) == Decomposition(BOX, ((pieces[0],), (pieces[1],))) == same["decomposition"]
    assert Weights(own={"start": 2.0}) == Weights(own=(("start", 2.0),))


def test_a_number_is_a_function_that_is_it_everywhere() -> None:
    x = torch.zeros(5, 2, dtype=torch.float64)
    for made in (dirichlet(Face("x"), 2), neumann(Face("x"), 2.0), robin(Face("x"), 1.0, 2.0, 2.0)):
        assert torch.equal(made.value(x), torch.full((5, 1), 2.0, dtype=torch.float64))
    with pytest.raises(ValueError, match="or be a number; got float"):
        heat(conditions=dirichlet(Face("x"), lambda x: 0.0))  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match=r"k is 1.0; say where its search begins: Unknown\(1.0\)"):
        Problem("x", XT, BOX, lambda d, p: p.k * d.u, unknowns={"k": 1.0})  # type: ignore[dict-item]


def test_slabs_are_cut_in_time_and_boxes_of_space_and_time_everywhere() -> None:
    cut = strips(BEND, 2, [0.25])
    assert cut.pieces == ((Slab(BEND.space, 0, 0.25),), (Slab(BEND.space, 0.25, 1),)) and len(cut.meetings) == 1
    assert grid(BEND, (1, 1, 4)) == strips(BEND, 2, [0.25, 0.5, 0.75])
    over = Slab(Box((0, 0), (1, 2)), 0, 1)
    assert len(grid(over, (2, 1, 2)).meetings) == 4 and len(strips(over, 0, [0.5]).meetings) == 1
    for wrong in (
        lambda: strips(BEND, 0, [0.5]),
        lambda: grid(BEND, (2, 1, 1)),
        lambda: strips(Ball((0, 0), 1), 0, [0.5]),
    ):
        with pytest.raises(ValueError, match=r"is no box, which this cuts: give the pieces, Decomposition"):
            wrong()


def test_a_solution_says_in_one_line_how_it_went_and_takes_lists_of_points() -> None:
    told: Any = observed(torch.tensor([[0.5, 0.5]]), torch.tensor([1.0]))
    found = solve(
        Problem("find", XT, BOX, lambda d, p: d.u_t - p.k * d.u_xx, told, unknowns={"k": Unknown(0.25, positive=True)}),
        network=Network(4, 1), numbers=Numbers(8, 4, 4), stages=Adam(1, lr=1e-12), conditions=[()] * 5,
    )  # fmt: skip
    said = repr(found)
    assert said.startswith("Solution('find': 5 arms; 1 piece of 4 x 1; k 0.25, 0.25, 0.25, 0.25, ...; status budget; ")
    known = solve(heat(exact=lambda x: x[..., :1]), network=Network(4, 1), numbers=Numbers(8, 4, 4), stages=Adam(1))
    assert f"relative error {float(known.error):.2g}" in repr(known) and "\n" not in said
    assert torch.equal(found([[0.5, 0.5]]), found(torch.tensor([[0.5, 0.5]])))  # type: ignore[arg-type]


@pytest.mark.parametrize("windowed", [False, True])
def test_fields_of_any_size_and_length_are_found_where_their_scale_is_said(windowed: bool) -> None:
    """u'' L^2 + 16 u = 0 with u = 1000 sin(4 x / L), L = 50: to rounding the run of u / 1000 on [0, 1]."""

    def made(length: float, size: float, scale: dict[str, float]) -> Problem:
        def exact(x: Tensor) -> Tensor:
            return size * torch.sin(4 * x[..., :1] / length)

        return Problem(
            "wave", Names(("x",), ("u",)), Box(0, length), lambda d, p: d.u_xx * length**2 + 16 * d.u,
            (dirichlet(Face("x"), exact),), exact=exact, scale=scale,
        )  # fmt: skip

    def run(problem: Problem) -> Any:
        length = problem.domain.hull.high[0]
        cut = strips(problem.domain, 0, [0.5 * length])
        return solve(
            problem, windows(cut) if windowed else cut, conditions=("value",), network=Network(8, 1),
            numbers=Numbers(30, 2, 1), stages=[Adam(200, lr=2e-2)],
        )  # fmt: skip

    plain, sized = run(made(1.0, 1.0, {})), run(made(50.0, 1000.0, {"u": 1000.0}))
    torch.testing.assert_close(sized.theta, plain.theta, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sized.error, plain.error, rtol=1e-5, atol=1e-6)
    assert sized.history[-1].loss == pytest.approx([1e6 * loss for loss in plain.history[-1].loss], rel=1e-5)


def test_a_field_far_from_its_scale_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r'u is told to be as large as 300, .* near 1: say scale={"u": 3e\+02}'):
        heat(conditions=dirichlet(Face("t", -1), 300.0))
    heat(conditions=dirichlet(Face("t", -1), 300.0), scale={"u": 200.0})
    for wrong in ({"v": 2.0}, {"u": 0.0}):
        with pytest.raises(ValueError, match="scale must be positive numbers of u"):
            heat(scale=wrong)


def test_functions_of_an_unknown_have_to_be_those_of_tensors() -> None:
    """exp k = 2 is found; Python's own functions would leave k where it begins, and fail when the problem is made."""

    def made(exp: Any) -> Problem:
        told = dirichlet(Face("x"), lambda x: x**2)
        return Problem(
            "bent", Names(("x",), ("u",)), Box(0, 1), lambda d, p: d.u_xx - exp(p.k), (told,),
            unknowns={"k": Unknown(0.0)},
        )  # fmt: skip

    inside = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)[:, None]
    problem = made(torch.exp)
    problem = replace(problem, conditions=(*problem.conditions, observed(inside, inside[:, 0] ** 2)))
    found = solve(problem, network=Network(6, 1), numbers=Numbers(20, 4, 4), stages=[Adam(30, lr=1e-2), LBFGS(200)])
    assert float(found.unknowns["k"]) == pytest.approx(math.log(2), abs=0.02)
    for wrong in (math.exp, lambda k: 1.0 if k > 0 else 2.0):
        with pytest.raises((ValueError, RuntimeError), match=r"Tensor with|only one element"):
            made(wrong)


def test_a_reference_has_a_row_of_values_for_each_of_its_points() -> None:
    """Values [R] would be compared with those of all R points: an error of nothing in particular."""
    points = BOX.sample(9, 0, dtype=torch.float64)
    rows = points.sum(1, keepdim=True)
    arrays: Any = points.numpy(), rows.numpy()
    found = heat(reference=Reference(*arrays)).reference
    assert found is not None and torch.equal(found.points, points) and torch.equal(found.values, rows)
    for wrong in (
        (points, rows[:, 0]),
        (points, rows[1:]),
        (points[:, 0], rows),
        (points + 1, rows),
        (points, rows.log1p() * math.nan),
    ):
        with pytest.raises(ValueError, match="reference"):
            heat(reference=Reference(*wrong))


def test_an_arm_without_any_weight_is_no_arm_that_has_converged() -> None:
    how = {"network": Network(4, 1), "numbers": Numbers(8, 4, 4), "stages": [LBFGS(3)]}
    with pytest.raises(ValueError, match="none above 0"):
        solve(heat(), weights=Weights(0.0, 0.0, 0.0), **how)
    assert solve(heat(), weights=Weights(0.0, 1.0, 0.0), **how).status == ("budget",)


def test_names_are_letters_and_words_which_equations_can_read() -> None:
    short: Any = ("xt", "temperature"), ("xt", ["u", "v"])
    for given, fields in zip(short, (("temperature",), ("u", "v")), strict=True):
        assert Names(*given) == Names(("x", "t"), fields)
    for taken in ("normal", "points", "of"):
        with pytest.raises(ValueError, match=f"cannot be called {taken}"):
            Names(("x",), (taken,))


def test_measurements_may_be_arrays_and_a_start_is_a_solutions_weights() -> None:
    points = BOX.sample(5, 0, dtype=torch.float64)
    arrays: Any = points.numpy(), points[:, 0].numpy()
    told, same = observed(*arrays), observed(points, points[:, 0])
    assert torch.equal(told.value(points), same.value(points))
    how = {"network": Network(4, 1), "numbers": Numbers(8, 4, 4), "stages": [Adam(2)]}
    found = solve(heat(conditions=told), **how)
    with pytest.raises(ValueError, match=r"solution\.theta"):
        solve(heat(), start=found, **how)  # type: ignore[arg-type]


def test_arguments_of_a_problem_that_were_mistaken_for_others_are_named() -> None:
    sound: dict[str, Any] = {"names": Names(("x",), ("u",)), "domain": Box(0, 1), "equation": lambda d, p: d.u_xx}
    for changes, says in (
        ({"names": (("x",), ("u",))}, "give Names"),
        ({"domain": [(0, 1)]}, "give Box"),
        ({"conditions": (0.0,)}, "give dirichlet"),
        ({"conditions": dirichlet("x", 0.0)}, "'x' is no set"),  # type: ignore[arg-type]
        ({"parameters": {"nu": "small"}}, "give a number"),
    ):
        with pytest.raises(ValueError, match=says):
            Problem(**{"name": "kinds", **sound, **changes})
