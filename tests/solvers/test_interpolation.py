"""`Solution.interpolate`: the method's own dense output, anywhere in the solve."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import sciode
from sciode import solve
from sciode.testing import HOPF

ODE = sorted(sciode.methods("ode"))
MODES = [{"batch_dims": 1}, {"coupled": True}, {"dt": 0.1, "batch_dims": 1}]


@pytest.mark.parametrize("how", MODES)
@pytest.mark.parametrize("sign", [1, -1])
def test_interpolation_agrees_with_output_times(sign: int, how: dict[str, Any]) -> None:
    times = sign * torch.linspace(0, 0.4, 23, dtype=torch.float64)
    at_ts = solve(HOPF.field, HOPF.y0, times, **how).ys
    dense = solve(HOPF.field, HOPF.y0, [0.0, sign * 0.4], save="dense", **how)
    torch.testing.assert_close(dense.interpolate(times), at_ts, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(dense.interpolate(float(times[5])), at_ts[5], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ODE)
def test_interpolation_converges_to_the_exact_solution(name: str) -> None:
    times = torch.linspace(0.013, 0.987, 31, dtype=torch.float64)

    def error(dt: float) -> float:
        dense = solve(HOPF.field, HOPF.y0, [0.0, 1.0], method=name, dt=dt, batch_dims=1, save="dense")
        return float((dense.interpolate(times) - HOPF.at(times)).abs().max())

    order = sciode.methods("ode")[name].order
    # Halving the step divides the error by 2^order; half of that is asked for, down to rounding.
    assert error(1 / 32) <= max(error(1 / 16) / 2 ** (order - 1), 1e-13)


def test_each_sample_may_ask_for_its_own_times() -> None:
    dense = solve(HOPF.field, HOPF.y0, [0.0, 1.0], save="dense", batch_dims=1, rtol=1e-9, atol=1e-9)
    times = torch.rand(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = dense.interpolate(times)
    for i in range(4):
        torch.testing.assert_close(got[:, i], dense.interpolate(times[:, i])[:, i], rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(got[:, i], HOPF.at(times[:, i])[:, i], rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", MODES)
def test_interpolation_meets_the_saved_steps(how: dict[str, Any]) -> None:
    steps = solve(HOPF.field, HOPF.y0, [0.0, 1.0], save="steps", **how)
    dense = solve(HOPF.field, HOPF.y0, [0.0, 1.0], save="dense", **how)
    torch.testing.assert_close(dense.interpolate(steps.ts), steps.ys, rtol=1e-13, atol=1e-13)


def test_outside_the_solve_the_nearest_end_is_returned() -> None:
    dense = solve(HOPF.field, HOPF.y0, [0.0, 1.0], save="dense", batch_dims=1)
    assert torch.equal(dense.interpolate(-3.0), HOPF.y0)
    torch.testing.assert_close(dense.interpolate(7.0), dense.ys[-1], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_interpolation_is_differentiable(adjoint: str) -> None:
    y0 = HOPF.y0.requires_grad_()
    dense = solve(HOPF.field, y0, [0.0, 1.0], save="dense", batch_dims=1, dt=0.125, adjoint=adjoint)
    (got,) = torch.autograd.grad(dense.interpolate(0.3).square().sum(), y0)
    at_ts = solve(HOPF.field, y0, [0.0, 0.3, 1.0], batch_dims=1, dt=0.125, adjoint="direct").ys[1]
    (want,) = torch.autograd.grad(at_ts.square().sum(), y0)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_nested_states_interpolate_to_their_nesting() -> None:
    dense = solve(lambda t, y: {"a": -y["a"]}, {"a": HOPF.y0}, [0.0, 1.0], save="dense")
    assert dense.interpolate(0.5)["a"].shape == (4, 2)
    assert dense.interpolate(torch.tensor([0.5, 0.6]))["a"].shape == (2, 4, 2)


@pytest.mark.parametrize("bad", [[1], [0, 1, 2]], ids=["one", "all"])
@pytest.mark.parametrize("how", [{"method": "tsit5"}, {"method": "midpoint", "dt": 0.25}], ids=str)
def test_a_sample_that_takes_no_step_stays_where_it_is(how: dict[str, Any], bad: list[int]) -> None:
    """Its field is NaN at the start, where it is handed another one's state; or there is one time alone."""
    y0 = torch.tensor([[1.0, 2.0], [1000.0, 1.0], [3.0, 4.0]], dtype=torch.float64)
    sick = torch.tensor([i in bad for i in range(3)]).unsqueeze(-1)
    found = solve(
        lambda t, y: torch.where(sick, torch.nan, -y), y0, [0.0, 1.0], save="dense", batch_dims=1, throw=False, **how
    )
    assert found.status.tolist() == [3 if i in bad else 0 for i in range(3)]
    assert torch.equal(found.interpolate(torch.tensor([0.0, 0.5, 1.0]))[:, bad], y0[bad].expand(3, -1, -1))
    assert torch.equal(found.interpolate(0.5)[bad], y0[bad])
    times = torch.tensor([[0.0, 0.0, 0.0], [torch.nan] * 3], dtype=torch.float64)
    still = solve(lambda t, y: -y, y0, times, save="dense", **how)
    assert torch.equal(still.interpolate(0.5), y0)
