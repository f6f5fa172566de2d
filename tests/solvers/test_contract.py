"""The contract of SDE steppers, and what every solve keeps: symmetries of time, batch and state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sciode
from sciode import PID, solve
from sciode.testing import HOPF, check_method

ADAPTIVE = ["bosh3", "dopri5", "dopri8", "tsit5", "vern7"]
FIXED = sorted(sciode.methods("ode"))
TS = torch.tensor([0.0, 0.25, 0.75, 1.0], dtype=torch.float64)
few = settings(max_examples=20, deadline=None)
states = st.lists(st.floats(-1.0, 1.0), min_size=8, max_size=8).map(lambda x: torch.tensor(x).double().reshape(4, 2))
hows = st.sampled_from([{"dt": 0.0625, "batch_dims": 1}, {"batch_dims": 1}, {"coupled": True}])


@pytest.mark.parametrize("name", sorted(sciode.methods("sde")))
def test_a_registered_sde_method_keeps_the_contract_of_a_step(name: str) -> None:
    report = check_method(name, kind="sde")
    assert report.kind == "sde" and report.nfe <= sciode.methods("sde")[name].stages


@few
@given(y0=states, method=st.sampled_from(ADAPTIVE), how=hows, shift=st.integers(-32, 32).map(lambda k: k / 4))
def test_a_solve_does_not_know_what_time_it_is(y0: Tensor, method: str, how: Any, shift: float) -> None:
    here = solve(HOPF.field, y0, TS, method=method, **how)
    there = solve(lambda t, y: HOPF.field(t - shift, y), y0, TS + shift, method=method, **how)
    torch.testing.assert_close(there.ys, here.ys, rtol=1e-9, atol=1e-9)
    assert torch.equal(there.stats.accepted, here.stats.accepted)


@few
@given(y0=states, method=st.sampled_from(ADAPTIVE), how=hows, unit=st.sampled_from([-4.0, -1.0, -0.5, 0.25, 2.0, 8.0]))
def test_a_solve_does_not_know_the_unit_or_direction_of_time(y0: Tensor, method: str, how: Any, unit: float) -> None:
    def steps(scale: float) -> Any:
        # The heuristic for the first step has no unit of its own to be scaled by, so the step is given.
        return {**how, **({"dt": scale / 16} if "dt" in how else {"controller": PID(first_step=scale / 16)})}

    plain = solve(HOPF.field, y0, TS, method=method, **steps(1.0))
    other = solve(lambda t, y: HOPF.field(t / unit, y) / unit, y0, TS * unit, method=method, **steps(abs(unit)))
    torch.testing.assert_close(other.ys, plain.ys, rtol=1e-9, atol=1e-9)
    assert torch.equal(other.stats.accepted, plain.stats.accepted)


@few
@given(y0=states, how=hows, order=st.permutations(range(4)))
def test_permuting_the_batch_permutes_the_solution(y0: Tensor, how: Any, order: list[int]) -> None:
    plain, permuted = solve(HOPF.field, y0, TS, **how), solve(HOPF.field, y0[order], TS, **how)
    torch.testing.assert_close(permuted.ys, plain.ys[:, order], rtol=1e-12, atol=1e-13)
    assert torch.equal(permuted.stats.accepted, plain.stats.accepted[order])


@few
@given(y0=states, method=st.sampled_from(FIXED), entries=st.lists(st.floats(-0.4, 0.4), min_size=6, max_size=6))
def test_runge_kutta_commutes_with_affine_maps(y0: Tensor, method: str, entries: list[float]) -> None:
    # Diagonally dominant, so that the inverse's norm is below 5.
    mixing = torch.eye(2).double() + torch.tensor(entries[:4]).double().reshape(2, 2)
    offset = torch.tensor(entries[4:]).double()
    back = torch.linalg.inv(mixing)

    def transformed(t: Tensor, z: Tensor) -> Tensor:
        return HOPF.field(t, (z - offset) @ back.T) @ mixing.T

    ys = solve(HOPF.field, y0, TS, method=method, dt=0.0625, batch_dims=1).ys
    zs = solve(transformed, y0 @ mixing.T + offset, TS, method=method, dt=0.0625, batch_dims=1).ys
    torch.testing.assert_close(zs, ys @ mixing.T + offset, rtol=1e-11, atol=1e-11)


@few
@given(y0=states, method=st.sampled_from(FIXED), cut=st.integers(1, 15))
def test_an_interval_may_be_cut_at_a_step(y0: Tensor, method: str, cut: int) -> None:
    whole = solve(HOPF.field, y0, [0.0, 1.0], method=method, dt=0.0625, batch_dims=1).ys[-1]
    half = solve(HOPF.field, y0, [0.0, cut / 16], method=method, dt=0.0625, batch_dims=1).ys[-1]
    rest = solve(HOPF.field, half, [cut / 16, 1.0], method=method, dt=0.0625, batch_dims=1).ys[-1]
    torch.testing.assert_close(rest, whole, rtol=1e-13, atol=1e-13)


@few
@given(method=st.sampled_from(ADAPTIVE), digits=st.floats(3, 6))
def test_a_hundredth_of_the_tolerance_halves_the_error_at_least(method: str, digits: float) -> None:
    def error(tolerance: float) -> float:
        ys = solve(HOPF.field, HOPF.y0, TS, method=method, rtol=tolerance, atol=tolerance, batch_dims=1).ys
        return float((ys - HOPF.at(TS)).abs().max())

    assert error(10 ** -(digits + 2)) <= error(10**-digits) / 2
