"""Every registered ODE method keeps the contract; a method is one constant, registered or not."""

from __future__ import annotations

import pytest
import torch

import sciode
from sciode import Tableau
from sciode.solvers import ExplicitRK
from sciode.testing import FORCED, HOPF, ROTATION, ODEProblem, check_method

ODE = sorted(sciode.methods("ode"))
RALSTON3 = Tableau(
    name="ralston3",
    order=3,
    c=(0, 1 / 2, 3 / 4),
    a=((), (1 / 2,), (0, 3 / 4)),
    b=(2 / 9, 1 / 3, 4 / 9),
    reference="Ralston (1962)",
)


@pytest.mark.parametrize("name", ODE)
def test_a_registered_method_keeps_the_contract_and_its_claims(name: str) -> None:
    info, report = sciode.methods("ode")[name], check_method(name, kind="ode")
    assert report.order is not None and report.order >= info.order - 0.25
    assert report.nfe <= info.stages


def test_the_issues_methods_are_registered() -> None:
    asked = {"euler", "midpoint", "heun", "ralston", "heun3", "bosh3", "rk4", "rk38", "fehlberg2", "tsit5", "dopri5"}
    asked |= {"dopri8", "vern7"}
    assert asked <= set(ODE)
    keyed = sciode.methods()
    assert {("ode", name) for name in ODE} <= set(keyed) and ("sde", "euler") in keyed


@pytest.mark.parametrize("name", ODE)
def test_a_complex_state_is_solved_as_its_real_pair(name: str) -> None:
    def pair(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.stack((-y[..., 1], y[..., 0]), dim=-1)

    z = sciode.solve(ROTATION.field, ROTATION.y0, [0.0, 0.4, 2.0], method=name, dt=0.25, batch_dims=1).ys
    xy = sciode.solve(pair, torch.view_as_real(ROTATION.y0), [0.0, 0.4, 2.0], method=name, dt=0.25, batch_dims=1).ys
    assert z.dtype == torch.complex128
    torch.testing.assert_close(torch.view_as_real(z), xy, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", ODE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_kept_and_resolved(name: str, dtype: torch.dtype) -> None:
    y0 = HOPF.y0.to(dtype)
    seen = set()

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        seen.update({t.dtype, y.dtype})
        return HOPF.field(t, y)

    ys = sciode.solve(field, y0, [0.0, 0.3, 1.0], method=name, dt=0.125, batch_dims=1).ys
    exact = sciode.solve(HOPF.field, HOPF.y0, [0.0, 0.3, 1.0], method=name, dt=0.125, batch_dims=1).ys
    assert ys.dtype == dtype and seen == {dtype}
    assert float((ys - exact).abs().max()) <= 100 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", [name for name in ODE if sciode.methods("ode")[name].adaptive])
@pytest.mark.parametrize("problem", [FORCED, HOPF, ROTATION], ids=lambda p: p.name)
def test_the_error_of_adaptive_steps_follows_the_tolerance(name: str, problem: ODEProblem) -> None:
    info = sciode.methods("ode")[name]
    assert info.error_order is not None

    def error(tolerance: float) -> float:
        ts = [problem.t0, problem.t1]
        ys = sciode.solve(problem.field, problem.y0, ts, method=name, rtol=tolerance, atol=tolerance, batch_dims=1).ys
        return float((ys[-1] - problem.at(problem.t1)).abs().max())

    # Steps shrink like tol^(1/k), where the estimate is O(dt^k), and the error of an order-p method like tol^(p/k). Few
    # steps are far from that limit: six tenths of the exponent are asked for.
    loose, tight = (1e-3, 1e-6) if info.order < 5 else (1e-4, 1e-9)
    assert error(tight) <= error(loose) * (tight / loose) ** (0.6 * info.order / info.error_order)


@pytest.mark.parametrize("method", [RALSTON3, ExplicitRK(RALSTON3)])
def test_a_table_of_ones_own_needs_no_registration(method: Tableau | ExplicitRK) -> None:
    ys = sciode.solve(HOPF.field, HOPF.y0, [0.0, 1.0], method=method, dt=1 / 64, batch_dims=1).ys
    assert float((ys[-1] - HOPF.at(1.0)).abs().max()) < 1e-5
    assert "ralston3" not in sciode.methods("ode")
    report = check_method(method)
    assert report.order is not None and abs(report.order - 3) < 0.25
