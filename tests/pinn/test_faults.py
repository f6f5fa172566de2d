"""What goes wrong in the middle of training is named for its arm, and the last good weights are kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.pde import Box
from sciode.pinn import Face, Hard, Library, Names, Network, Numbers, Problem, dirichlet, muon, solve, strips
from sciode.training import LBFGS, Adam, Broyden, LevenbergMarquardt, NewtonCG

BOX, XT = Box((0, 0), (1, 1)), Names(("x", "t"), ("u",))
LEAST, REACH = 0.2, 0.05
SAME: dict[str, Any] = {"network": Network(8, 2), "numbers": Numbers(64, 16, 1)}


def rooted() -> Problem:
    """u_t + sqrt(u - 0.2) u_x = 0 begins at u = 1 and is pulled to 0, where it is NaN."""
    low = dirichlet(Face("t", -1), lambda x: torch.zeros_like(x[..., :1]), name="initial")
    start = Hard(lambda x: torch.ones_like(x[..., :1]), lambda x: torch.full_like(x[..., :1], REACH))
    return Problem("root", XT, BOX, lambda d, p: d.u_t + torch.sqrt(d.u - LEAST) * d.u_x, (low,), hard=start)


@pytest.mark.parametrize(
    "stage",
    [Adam(200, lr=0.2), LevenbergMarquardt(60, damping=1e-6, tolerance=0.0), muon(400, 0.2, 0.2)],
    ids=["Adam", "LevenbergMarquardt", "muon"],
)
def test_a_stage_that_meets_nan_names_term_and_iteration_and_keeps_the_last_good_weights(stage: Any) -> None:
    found = solve(rooted(), stages=[stage, LBFGS(3)], **SAME)
    assert found.status[0].startswith("non-finite: equation, at iteration ") and found.status[0].endswith("of stage 0")
    assert bool(found.theta.isfinite().all())
    assert float(found(BOX.sample(50, 0)).min()) >= LEAST - REACH


@pytest.mark.parametrize("stage", [LBFGS(60), Broyden(60), NewtonCG(20, rank=8, sweeps=10)])
def test_line_searches_turn_away_from_nan(stage: Any) -> None:
    found = solve(rooted(), stages=[stage], **SAME)
    losses = [entry.loss[0] for entry in found.history]
    assert found.status[0] in ("budget", "stuck", "converged") and losses[-1] < losses[0]


@pytest.mark.parametrize(
    "stage", [Adam(3), LBFGS(3), Broyden(3), NewtonCG(2, rank=4, sweeps=3), LevenbergMarquardt(2), muon(3)]
)
def test_a_run_that_begins_with_nan_says_so_and_leaves_the_weights_it_was_given(stage: Any) -> None:
    def equation(d: Any, p: Any) -> Tensor:
        return d.u_t + torch.sqrt(d.x - 0.5) * d.u_x

    low = dirichlet(Face("t", -1), lambda x: torch.zeros_like(x[..., :1]), name="initial")
    problem = Problem("nowhere", XT, BOX, equation, (low,))
    start = solve(problem, stages=[Library(lambda a, b: [], 1)], **SAME).theta
    found = solve(problem, stages=[stage], **SAME)
    assert found.status == ("non-finite: equation, at iteration 0 of stage 0",)
    assert torch.equal(found.theta, start)


@pytest.mark.parametrize("stage", [LBFGS(5), Broyden(5), NewtonCG(3, rank=4, sweeps=6), LevenbergMarquardt(2), muon(2)])
def test_a_condition_without_a_slope_reaches_no_arm_that_leaves_it_out(stage: Any) -> None:
    """Nor do its second derivatives: an arm beside it is what it is alone."""
    problem = Problem(
        "slopeless", Names(("x",), ("u",)), Box(0, 1), lambda d, p: d.u_xx - 1.0, (dirichlet(Face("x"), 0.0),),
        flux=lambda d, p: (torch.sqrt(0 * d.u**2) * d.u_x,),
    )  # fmt: skip
    cut, how = strips(Box(0, 1), 0, [0.5]), {**SAME, "stages": [stage]}
    both = solve(problem, cut, conditions=[("average",), ("flux",)], **how)
    alone = solve(problem, cut, conditions=("average",), **how)
    assert both.status[1].startswith("non-finite: the gradient")
    assert both.status[0] == alone.status[0] == "budget"
    torch.testing.assert_close(both.theta[0], alone.theta[0], rtol=1e-8, atol=1e-10)
