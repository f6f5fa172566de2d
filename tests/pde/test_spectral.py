"""Periodic reference solutions: exact solutions are met, under every choice of steps, with spectral convergence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from sciode.pde.evolution import Evolution
from sciode.pde.problems import advection, allen_cahn, burgers, heat, taylor_green
from sciode.pde.spectral import solve_periodic

F64 = torch.float64
POINTS = 2.0 * math.pi * torch.rand(40, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
VISCOSITY = 0.1


def potential(x: Tensor, t: Tensor | float) -> Tensor:
    """A positive solution of phi_t = nu Lap phi."""
    decay = math.exp(-VISCOSITY * float(t))
    return 2.0 + decay * x[0].cos() + 0.6 * decay**2 * (x[0] + x[1]).sin()


def cole_hopf(x: Tensor, t: Tensor | float) -> Tensor:
    """u = -2 nu grad log phi solves the vector Burgers equation (Cole 1951, Hopf 1950); any number of times faster."""
    return -2.0 * VISCOSITY * grad(lambda p: potential(p, t).log())(x)


COLE_HOPF = replace(burgers(VISCOSITY), initial=lambda x: cole_hopf(x, 0.0), exact=cole_hopf)


def error(problem: Evolution, n: int, t: float, **how: Any) -> float:
    exact: Any = problem.exact
    found = solve_periodic(problem, n, [0.0, t], **how).at(POINTS)[-1]
    return float((found - vmap(lambda x: exact(x, t))(POINTS)).abs().max())


def test_heat_is_exact_in_one_step_of_exponential_differencing_and_to_tolerance_otherwise() -> None:
    assert error(heat(), 16, 4.0, dt=4.0) < 1e-13
    assert error(heat(1e3), 16, 4.0, dt=0.5) < 1e-13
    assert error(heat(), 16, 4.0) < 1e-8
    assert error(heat(), 16, 4.0, rtol=1e-4) < 1e-3


def test_the_box_may_have_any_place_and_sides() -> None:
    """u = exp(-nu (k^2 + m^2) t) sin k(x + 1) cos m y on a box of other lengths."""
    k, m, nu = 2.0 * math.pi / 3.0, 4.0 * math.pi / 0.5, 0.02

    def exact(x: Tensor, t: Tensor | float) -> Tensor:
        decay = math.exp(-nu * (k**2 + m**2) * float(t))
        return (decay * (k * (x[:1] + 1.0)).sin() * (m * x[1:]).cos()).reshape(1)

    problem = replace(heat(nu), lower=(-1.0, 0.25), upper=(2.0, 0.75), initial=lambda x: exact(x, 0.0), exact=exact)
    assert error(problem, 8, 0.05, dt=1.0) < 1e-13


@pytest.mark.parametrize("how", [{"dt": 0.05}, {}], ids=["etdrk4", "dopri8"])
def test_burgers_meets_the_cole_hopf_solution_with_spectral_convergence(how: dict[str, float]) -> None:
    errors = [error(COLE_HOPF, n, 2.0, **how) for n in (12, 24, 48)]
    # Each doubling squares an error that falls exponentially in n; a scheme of order 4 would gain 16.
    assert errors[1] < errors[0] / 50.0 and errors[2] < max(errors[1] / 500.0, 1e-9)
    assert errors[2] < 1e-7


def test_exponential_differencing_is_of_fourth_order_in_the_step() -> None:
    steep = replace(COLE_HOPF, initial=lambda x: 4.0 * cole_hopf(x, 0.0), exact=None)
    reference = solve_periodic(steep, 32, [0.0, 0.5], rtol=1e-12).values[-1]
    errors = [
        float((solve_periodic(steep, 32, [0.0, 0.5], dt=dt).values[-1] - reference).abs().max())
        for dt in (0.03125, 0.015625, 0.0078125)
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=0.25)
    assert np.log2(errors[1] / errors[2]) == pytest.approx(4.0, abs=0.25)


def bernoulli(start: float) -> Callable[[float], float]:
    """u' = u - u^3: u = u0 e^t / sqrt(1 + u0^2 (e^(2t) - 1))."""
    return lambda t: start * math.exp(t) / math.sqrt(1.0 + start**2 * math.expm1(2.0 * t))


@pytest.mark.parametrize("how", [{"dt": 0.01}, {}], ids=["etdrk4", "dopri8"])
def test_allen_cahn_without_slopes_is_an_ordinary_equation_and_keeps_its_phases(how: dict[str, float]) -> None:
    for start in (0.3, -0.05, 1.0):
        problem = replace(allen_cahn(), initial=lambda x, start=start: 0.0 * x[:1] + start)
        found = solve_periodic(problem, 8, [0.0, 0.5, 3.0], **how)
        for values, t in zip(found.values, (0.0, 0.5, 3.0), strict=True):
            torch.testing.assert_close(values, torch.full_like(values, bernoulli(start)(t)), rtol=0.0, atol=1e-9)


def test_both_ways_of_stepping_agree_on_a_stiff_problem_and_finer_grids_change_little() -> None:
    ts = [0.0, 0.5, 1.0]
    explicit = solve_periodic(allen_cahn(), 48, ts)
    exponential = solve_periodic(allen_cahn(), 48, ts, dt=0.005)
    torch.testing.assert_close(explicit.values, exponential.values, rtol=0.0, atol=1e-9)
    finer = solve_periodic(allen_cahn(), 96, ts, dt=0.01)
    coarser = solve_periodic(allen_cahn(), 24, ts, dt=0.01)
    steps = [float((run.at(POINTS) - finer.at(POINTS)).abs().max()) for run in (coarser, explicit)]
    assert steps[1] < 0.05 * steps[0]
    # The tail says how well a grid resolves, without a finer one.
    assert coarser.tail[-1] > 10.0 * explicit.tail[-1] > 100.0 * finer.tail[-1]


def test_a_solution_is_interpolated_exactly_and_periodically() -> None:
    solution = solve_periodic(burgers(), 16, [0.0, 0.1], dt=0.1)
    torch.testing.assert_close(solution.at(POINTS)[0], vmap(burgers().initial)(POINTS), rtol=0.0, atol=1e-12)
    moved = POINTS + torch.tensor([2.0 * math.pi, -4.0 * math.pi], dtype=F64)
    torch.testing.assert_close(solution.at(moved), solution.at(POINTS), rtol=0.0, atol=1e-12)
    nodes = torch.cartesian_prod(*[torch.arange(16, dtype=F64) * (2.0 * math.pi / 16)] * 2)
    torch.testing.assert_close(solution.at(nodes)[0], solution.values[0].reshape(-1, 2), rtol=0.0, atol=1e-12)


def test_output_times_do_not_change_the_solution() -> None:
    sparse = solve_periodic(COLE_HOPF, 16, [0.0, 1.0], dt=0.1).values[-1]
    dense = solve_periodic(COLE_HOPF, 16, torch.linspace(0.0, 1.0, 6, dtype=F64), dt=0.1)
    assert dense.values.shape == (6, 16, 16, 2)
    torch.testing.assert_close(dense.values[-1], sparse, rtol=0.0, atol=1e-12)


def test_momentum_of_a_gradient_flow_is_kept() -> None:
    """Where u = grad psi, (u . grad) u = grad |u|^2/2, so that the mean velocity stays as it is, here 0."""
    means = solve_periodic(COLE_HOPF, 24, [0.0, 1.0], dt=0.05).values.mean((1, 2))
    torch.testing.assert_close(means, torch.zeros_like(means), rtol=0.0, atol=1e-14)


@pytest.mark.parametrize(
    ("problem", "n", "ts", "dt", "message"),
    [
        (advection(), 16, [0.0, 1.0], None, "'advection' is not a periodic problem in 2-D"),
        (taylor_green(), 16, [0.0, 1.0], None, "'taylorgreen' is not a periodic problem"),
        (heat(), 15, [0.0, 1.0], None, "n is 15; it must be even"),
        (heat(), 4, [0.0, 1.0], None, "n is 4; it must be even, and 8"),
        (heat(), 16, [0.0, 0.0], None, "increasing"),
        (heat(), 16, [0.0], None, "increasing"),
        (heat(), 16, [0.0, 1.0], 0.0, "dt is 0.0"),
    ],
)
def test_a_mistake_is_named(problem: Evolution, n: int, ts: list[float], dt: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve_periodic(problem, n, ts, dt=dt)


def test_points_are_a_batch() -> None:
    with pytest.raises(ValueError, match=r"points must be \[N, 2\]"):
        solve_periodic(heat(), 8, [0.0, 1.0], dt=1.0).at(torch.zeros(2))
