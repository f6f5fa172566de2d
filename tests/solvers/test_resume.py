"""Resuming: the steps, the controller and the noise go on as if the first solve had not ended."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sciode import PID, Save, SDETerm, solve
from sciode.solvers.proceed import onward

Y0 = torch.tensor([[1.0, -0.5], [0.8, 1.4], [-1.1, 0.6], [0.3, 0.9], [2.0, -1.0], [1.5, 0.2]], dtype=torch.float64)
HOW: dict[str, dict[str, Any]] = {
    "per sample": {},
    "coupled": {"coupled": True},
    "PID": {"controller": PID(pcoeff=0.3, icoeff=0.4, dcoeff=0.1)},
    "not fsal": {"method": "ralston", "rtol": 1e-4},
    "fixed": {"method": "rk4", "dt": 0.013},
}


def swing(t: Tensor, y: Tensor) -> Tensor:
    return torch.sin(3 * t) * y.roll(1, -1) - y**3 + 1


@pytest.mark.parametrize("end", [0.7, 1.0, 1.31])
@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_two_solves_are_one_bit_for_bit(how: dict[str, Any], end: float) -> None:
    whole = solve(swing, Y0, [0.0, end, 1.6, 2.0], **how)
    first = solve(swing, Y0, [0.0, end], **how)
    rest = solve(swing, None, [end, 1.6, 2.0], resume=first)
    assert torch.equal(rest.ys[0], first.ys[-1])
    assert torch.equal(rest.ys[1:], whole.ys[2:])


def test_a_step_that_the_end_cut_and_that_was_rejected_is_tried_whole_again() -> None:
    """From the cut trial on the first solve walks other steps than one without the end: those must not be kept."""

    def late(t: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-((t - 0.95) ** 2) / 2e-4) - 0.1 * y

    y0 = torch.ones(3, 1, dtype=torch.float64)
    how: dict[str, Any] = {"rtol": 1e-7, "atol": 1e-9}
    first = solve(late, y0, [0.0, 1.0], **how)
    run = first.state
    assert run is not None and bool((onward(run).t < run.carry.t).all())
    whole = solve(late, y0, [0.0, 1.0, 1.5], **how)
    assert torch.equal(solve(late, None, [1.0, 1.5], resume=first).ys[1], whole.ys[2])


def test_steps_of_a_resumed_solve_begin_where_the_first_ended() -> None:
    first = solve(swing, Y0, [0.0, 1.0], save="steps")
    rest = solve(swing, None, [1.0, 2.0], resume=first, save="steps")
    assert bool((rest.ts[0] == 1.0).all())
    assert bool((torch.diff(rest.ts, dim=0)[rest.valid[1:]] > 0).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y0": Y0}, "y0: a resumed solve starts from the earlier solution"),
        ({"method": "dopri5"}, "method: a resumed solve keeps the earlier one's"),
        ({"coupled": True}, "coupled: a resumed solve keeps the earlier one's"),
        ({"ts": [1.1, 2.0]}, "ts: a resumed solve starts at the earlier solution's last time"),
        ({"ts": [1.0, 0.0]}, "ts: a resumed solve starts at the earlier solution's last time"),
    ],
)
def test_what_cannot_change_is_refused(change: dict[str, Any], message: str) -> None:
    first = solve(swing, Y0, [0.0, 1.0])
    given: dict[str, Any] = {"y0": None, "ts": [1.0, 2.0], **change}
    with pytest.raises(ValueError, match=message):
        solve(swing, given.pop("y0"), given.pop("ts"), resume=first, **given)


def test_nothing_is_resumed_without_a_state_or_with_a_gradient() -> None:
    with pytest.raises(ValueError, match=r"resume: the earlier solution kept no state; .*Save\(state=True\)"):
        solve(swing, None, [1.0, 2.0], resume=solve(swing, Y0, [0.0, 1.0], save=Save(state=False)))
    with pytest.raises(ValueError, match="resume: no gradient flows back into the earlier solve"):
        solve(swing, None, [1.0, 2.0], resume=solve(swing, Y0.clone().requires_grad_(), [0.0, 1.0]))


@pytest.mark.parametrize("since", [-1.0, 0.48])
def test_a_sample_that_failed_is_shown_where_it_failed(since: float) -> None:
    def sick(t: Tensor, y: Tensor) -> Tensor:
        return torch.where((y[:, :1] > 100) & (t > since), torch.nan, -y)

    y0 = torch.tensor([[1.0, 2.0], [1000.0, 1.0], [3.0, 4.0]], dtype=torch.float64)
    first = solve(sick, y0, [0.0, 1.0], method="midpoint", dt=0.1, batch_dims=1, throw=False)
    second = solve(sick, None, [1.0, 2.0], resume=first, throw=False)
    third = solve(sick, None, [2.0, 3.0], resume=second, throw=False)
    for found in (first, second, third):
        assert found.status.tolist() == [0, 3, 0]
        assert torch.equal(found.ys[-1, 1], first.ys[-1, 1])
    assert (first.ys[-1, 1, 0] > 100).item()


@pytest.mark.parametrize("passed", [True, False], ids=["as args", "captured"])
def test_a_gradient_that_a_resumed_solve_would_lose_is_refused(passed: bool) -> None:
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def field(t: Tensor, y: Tensor, args: Any = None) -> Tensor:
        return -y * (rate if args is None else args)

    how: dict[str, Any] = {"args": rate} if passed else {}
    with torch.no_grad():
        first = solve(field, Y0, [0.0, 1.0], **how)
        assert bool(torch.isfinite(solve(field, None, [1.0, 2.0], resume=first, **how).ys).all())
    with pytest.raises(ValueError, match=r"resume: no gradient flows back.*no_grad"):
        solve(field, None, [1.0, 2.0], resume=first, **how)


@pytest.mark.parametrize("own", [False, True], ids=["one clock", "own times"])
def test_given_increments_end_where_they_end(own: bool) -> None:
    term = SDETerm(lambda t, y: -y, lambda t, y: torch.ones_like(y))
    ts = torch.tensor([0.0, 0.2, 0.5], dtype=torch.float64)
    ts = torch.stack((ts, ts), 1) if own else ts
    y0, given = torch.zeros(2, 1, dtype=torch.float64), torch.ones(2, 2, 1, dtype=torch.float64)
    first = solve(term, y0, ts[:2], dt=0.1, noise=given, batch_dims=1)
    with pytest.raises(ValueError, match="increments of 2 steps"):
        solve(term, None, ts[1:], resume=first)
