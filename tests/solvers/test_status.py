"""What became of each sample: failures stay with the sample that failed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sciode import SolveError, Status, solve
from sciode.solvers.status import RUNNING
from sciode.testing import HOPF

TS = torch.linspace(0, 1, 6, dtype=torch.float64)
MODES = [{"batch_dims": 1}, {"dt": 0.0625, "batch_dims": 1}]


def breaks(at: float, which: int) -> Any:
    """The Hopf field, NaN for one sample from a time on."""

    def field(t: Tensor, y: Tensor) -> Tensor:
        bad = (t > at) & (torch.arange(len(y)) == which).unsqueeze(-1)
        return torch.where(bad, float("nan"), HOPF.field(t, y))

    return field


@pytest.mark.parametrize("how", MODES)
@pytest.mark.parametrize("at", [-1.0, 0.5])
def test_a_field_that_breaks_for_one_sample_leaves_the_others_bitwise_untouched(at: float, how: dict[str, Any]) -> None:
    well = solve(HOPF.field, HOPF.y0, TS, **how)
    broken = solve(breaks(at, 2), HOPF.y0, TS, throw=False, **how)
    assert broken.status.tolist() == [0, 0, Status.NONFINITE, 0]
    others = [0, 1, 3]
    assert torch.equal(broken.ys[:, others], well.ys[:, others])
    assert torch.equal(broken.stats.accepted[others], well.stats.accepted[others])
    assert bool(broken.valid[:, others].all())


@pytest.mark.parametrize("how", MODES)
def test_a_broken_sample_holds_its_last_value(how: dict[str, Any]) -> None:
    broken = solve(breaks(0.5, 2), HOPF.y0, TS, throw=False, **how)
    valid = broken.valid[:, 2].tolist()
    assert valid == sorted(valid, reverse=True) and valid[1] and not valid[-1]
    assert bool(torch.isfinite(broken.ys).all())
    assert torch.equal(broken.ys[-1, 2], broken.ys[-2, 2])
    held = solve(breaks(-1.0, 2), HOPF.y0, TS, throw=False, **how)
    assert torch.equal(held.ys[:, 2], HOPF.y0[2].expand(6, 2))
    assert held.valid[:, 2].tolist() == [True] + 5 * [False]


@pytest.mark.parametrize("how", MODES)
def test_throw_names_the_first_failing_sample(how: dict[str, Any]) -> None:
    with pytest.raises(SolveError, match=r"sample 2 \(1 of 4 failed\): .*NaN or infinite") as caught:
        solve(breaks(0.5, 2), HOPF.y0, TS, **how)
    assert caught.value.solution.status.tolist() == [0, 0, Status.NONFINITE, 0]
    assert caught.value.solution.ys.shape == (6, 4, 2)


def test_throw_names_a_sample_of_several_batch_axes_by_its_index() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        bad = (t > 0.5) & (torch.arange(4).reshape(2, 2) == 3).unsqueeze(-1)
        return torch.where(bad, float("nan"), HOPF.field(t, y))

    with pytest.raises(SolveError, match=r"sample \(1, 1\) \(1 of 4 failed\)"):
        solve(field, HOPF.y0.reshape(2, 2, 2), TS, batch_dims=2)


def test_without_a_batch_the_solve_is_named() -> None:
    with pytest.raises(SolveError, match=r"^the solve: max_steps"):
        solve(HOPF.field, HOPF.y0[0], TS, max_steps=1)


def test_a_coupled_batch_fails_together() -> None:
    broken = solve(breaks(0.5, 2), HOPF.y0, TS, coupled=True, throw=False)
    assert broken.status.tolist() == 4 * [Status.NONFINITE]
    assert bool(torch.isfinite(broken.ys).all())


def test_success_says_so() -> None:
    solution = solve(HOPF.field, HOPF.y0, TS, batch_dims=1)
    assert solution.message == Status.SUCCESS.message
    assert solution.check() is solution


@pytest.mark.parametrize("status", list(Status))
def test_every_status_has_a_sentence(status: Status) -> None:
    assert len(status.message.split()) >= 5 and not status.message.endswith(".")
    assert status != RUNNING


@pytest.mark.parametrize("how", MODES)
@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_a_failed_sample_does_not_spoil_the_gradient_of_shared_parameters(adjoint: str, how: dict[str, Any]) -> None:
    def gradient(at: float, rows: list[int]) -> Tensor:
        scale = torch.ones(2, dtype=torch.float64, requires_grad=True)
        field = breaks(at, 2)
        solution = solve(lambda t, y, k: k * field(t, y), HOPF.y0, TS, args=scale, adjoint=adjoint, throw=False, **how)
        return torch.autograd.grad(solution.ys[-1, rows].square().sum(), scale)[0]

    others = [0, 1, 3]
    torch.testing.assert_close(gradient(0.5, others), gradient(9.0, others), rtol=1e-13, atol=1e-13)
    assert bool(torch.isfinite(gradient(0.5, [0, 1, 2, 3])).all())


def test_a_solution_that_blows_up_in_finite_time_ends_with_a_status() -> None:
    # y' = y^2 from 1 is infinite at t = 1.
    solution = solve(lambda t, y: y * y, torch.tensor([[1.0], [0.1]]).double(), [0.0, 0.5, 2.0], throw=False)
    assert solution.status[0] != 0 and solution.status[1] == 0
    assert solution.valid[:, 0].tolist() == [True, True, False]
    assert float(solution.ys[1, 0]) == pytest.approx(2.0, rel=1e-3)
    assert float(solution.ys[2, 1]) == pytest.approx(1 / (10 - 2), rel=1e-3)
