"""Slopes are measured right, and the closed forms solve their equations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciode.testing import PROBLEMS, ODEProblem, convergence_order, observed_order


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_the_closed_form_starts_at_y0_and_satisfies_its_equation(problem: ODEProblem) -> None:
    torch.testing.assert_close(problem.at(problem.t0), problem.y0, rtol=1e-14, atol=1e-14)
    times = torch.linspace(problem.t0, problem.t1, 9, dtype=torch.float64)
    h = 1e-3
    ahead, behind = problem.at(times + h), problem.at(times - h)
    far, back = problem.at(times + 2 * h), problem.at(times - 2 * h)
    slope = (8 * (ahead - behind) - (far - back)) / (12 * h)
    field = torch.stack([problem.field(t, y) for t, y in zip(times, problem.at(times), strict=True)])
    # The difference quotient's error is h^4 / 30 times a fifth derivative of size 10 to 300.
    torch.testing.assert_close(slope, field, rtol=0, atol=1e-9)


def test_the_observed_order_of_a_power_is_its_exponent() -> None:
    steps = (4, 8, 16, 32)
    assert observed_order(steps, [n**-3.0 for n in steps]) == pytest.approx(3)


def test_errors_of_rounding_and_of_instability_are_left_out() -> None:
    errors = [float("inf"), 8.0**-4, 16.0**-4, 1e-15]
    assert observed_order((4, 8, 16, 32), errors) == pytest.approx(4)
    with pytest.raises(ValueError, match="larger steps"):
        observed_order((4, 8), [1.0, 1e-15])


def test_a_steep_coarse_slope_does_not_count() -> None:
    steps = (2, 4, 8, 16, 32)
    assert observed_order(steps, [1.0, *(1e-3 * n**-2.0 for n in steps[1:])]) == pytest.approx(2)


def test_a_problem_of_ones_own_has_an_order_too() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        return -y * y

    own = ODEProblem("riccati", field, lambda t, y0: y0 / (1 + y0 * t), ((0.5,), (1.0,), (2.0,)), 0.0, 1.0)
    assert convergence_order("rk4", own) == pytest.approx(4, abs=0.25)
