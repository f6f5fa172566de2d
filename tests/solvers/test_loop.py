"""The rules of the loop, told by a stepper whose error is dictated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sciode import PID, Solution, SolveError, Status, solve
from sciode.solvers import Step, Stepper
from sciode.testing import HOPF

Rule = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Dictated(Stepper):
    """Euler's step with an error estimate that is a given function of (t, dt), and a log of all attempts."""

    rule: Rule
    log: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    name = "dictated"
    kind = "ode"
    order = 1.0
    adaptive = True
    error_order = 1

    def start(self, field: Any, t: Tensor, y: Tensor, f0: Any) -> tuple[Tensor, ...]:
        return ()

    def step(self, field: Any, noise: Any, t: Tensor, dt: Tensor, y: Tensor, memory: Any) -> Step:
        self.log.append((t.clone(), dt.clone()))
        error = self.rule(t, dt).unsqueeze(-1).expand_as(y)
        return Step(y + dt.unsqueeze(-1) * field.drift(t, y), error, (), None, None, 1)

    def basis(self, field: Any, t: Tensor, dt: Tensor, y: Tensor, step: Step) -> tuple[Tensor, ...]:
        return (step.y1 - y,)

    def weights(self, theta: Tensor, dt: Tensor) -> Tensor:
        return theta.unsqueeze(0)

    @property
    def times(self) -> list[float]:
        """Where each attempt of the only sample began."""
        return [float(t) for t, _ in self.log]

    @property
    def steps(self) -> list[float]:
        """How long each attempt of the only sample was."""
        return [float(dt) for _, dt in self.log]


def one(t: Tensor, y: Tensor) -> Tensor:
    return torch.ones_like(y)


def run(rule: Rule, ts: Any, samples: int = 1, **how: Any) -> tuple[Solution, Dictated]:
    """Solve y' = 1, with the dictated number itself as the scaled error."""
    stepper = Dictated(rule)
    how.setdefault("controller", PID(first_step=0.125))
    y0 = torch.zeros(samples, 1, dtype=torch.float64)
    return solve(one, y0, ts, method=stepper, rtol=1e-14, atol=1.0, batch_dims=1, **how), stepper


def always(value: float) -> Rule:
    return lambda t, dt: torch.full_like(dt, value)


def in_turn(*values: float, then: float = 1.0) -> Rule:
    left = iter(values)
    return lambda t, dt: torch.full_like(dt, next(left, then))


def test_a_rejected_step_does_not_move_time() -> None:
    solution, tried = run(in_turn(0.9, 4.0, 4.0), [0.0, 1.0])
    assert tried.times[1] == tried.times[2] == tried.times[3] == tried.times[0] + tried.steps[0]
    assert int(solution.stats.rejected) == 2
    assert int(solution.stats.accepted) == len(tried.log) - 2


def test_a_rejected_step_does_not_move_the_state() -> None:
    solution, tried = run(in_turn(0.9, 4.0, 4.0), [0.0, 1.0], save="steps")
    torch.testing.assert_close(solution.ys[:, 0, 0], solution.ts[:, 0] if solution.ts.ndim > 1 else solution.ts)
    assert len(solution.ts) == len(tried.log) - 2 + 1


@settings(max_examples=60, deadline=None)
@given(
    errors=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12),
    gains=st.sampled_from([(0.0, 1.0, 0.0), (0.3, 0.4, 0.0), (0.2, 0.3, 0.1)]),
)
def test_a_step_shrinks_after_a_rejection_and_never_after_an_acceptance(errors: list[float], gains: Any) -> None:
    p, i, d = gains
    controller = PID(pcoeff=p, icoeff=i, dcoeff=d, first_step=1.0)
    _, tried = run(in_turn(*errors), [0.0, 1e9], controller=controller, max_steps=len(errors) + 1, throw=False)
    for error, now, after in zip(errors, tried.steps, tried.steps[1:], strict=False):
        assert after < now if error > 1 else after >= now


def test_the_factor_stays_within_its_bounds() -> None:
    _, tried = run(
        in_turn(1e-9, 1e9, 1e-9), [0.0, 100.0], controller=PID(factormin=0.25, factormax=4.0, first_step=1.0)
    )
    assert tried.steps[1] / tried.steps[0] == 4.0
    assert tried.steps[2] / tried.steps[1] == 0.25
    assert tried.steps[3] / tried.steps[2] == 4.0


def test_the_i_controller_is_its_formula() -> None:
    _, tried = run(in_turn(0.5, 3.0, 0.6), [0.0, 100.0])
    factors = [b / a for a, b in zip(tried.steps[:3], tried.steps[1:4], strict=True)]
    assert factors == pytest.approx([0.9 / 0.5, 0.9 / 3.0, 0.9 / 0.6], rel=1e-12)


def test_the_pid_controller_remembers_accepted_steps_only() -> None:
    p, i, d = 0.3, 0.4, 0.1
    errors = [0.1, 0.2, 2.5, 0.15]
    controller = PID(pcoeff=p, icoeff=i, dcoeff=d, first_step=0.125)
    _, tried = run(in_turn(*errors), [0.0, 1e4], controller=controller, max_steps=5, throw=False)

    def factor(now: float, before: float, earlier: float) -> float:
        return 0.9 * now ** -(p + i + d) * before ** (p + 2 * d) * earlier**-d

    want = [factor(0.1, 1, 1), factor(0.2, 0.1, 1), factor(2.5, 0.2, 0.1), factor(0.15, 0.2, 0.1)]
    got = [b / a for a, b in zip(tried.steps[:4], tried.steps[1:5], strict=True)]
    assert all(1 <= w <= 10 for w in (want[0], want[1], want[3])) and 0.2 <= want[2] <= 0.9
    assert got == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("end", [0.1 + 0.2, 1 / 3, 1.0, math.pi, 1e-3, -0.7, -math.e])
def test_the_last_step_lands_exactly_on_the_last_time(end: float) -> None:
    solution, _ = run(always(1.0), [0.0, end], save="steps")
    assert float(solution.ts[-1].squeeze()) == end
    assert float(solution.ys[-1]) == pytest.approx(end, rel=1e-14)


def test_no_sliver_is_left_before_the_last_time() -> None:
    _, tried = run(always(0.9), [0.0, 0.3], controller=PID(first_step=0.1))
    assert len(tried.log) == 3


def test_dtmax_is_obeyed() -> None:
    _, tried = run(always(1e-6), [0.0, 1.0], controller=PID(first_step=0.5, dtmax=0.2))
    assert max(tried.steps) <= 0.2
    _, tried = run(always(1e-6), [0.0, -1.0], controller=PID(dtmax=0.2))
    assert min(tried.steps) >= -0.2


def test_a_sample_that_needs_less_than_dtmin_ends_with_that_status() -> None:
    solution, tried = run(
        lambda t, dt: dt.abs() / 1e-3, [0.0, 1.0], controller=PID(first_step=0.125, dtmin=1e-2), throw=False
    )
    assert solution.status.tolist() == [Status.DT_MIN]
    assert min(tried.steps) >= 1e-2
    assert solution.valid[:, 0].tolist() == [True, False]


def test_force_dtmin_goes_on_at_dtmin() -> None:
    controller = PID(first_step=0.125, dtmin=1e-2, force_dtmin=True)
    solution, tried = run(lambda t, dt: dt.abs() / 1e-3, [0.0, 0.5], controller=controller)
    assert solution.status.tolist() == [Status.SUCCESS]
    assert min(tried.steps[:-1]) >= 1e-2
    assert float(solution.ys[-1]) == pytest.approx(0.5, rel=1e-12)


def test_without_dtmin_a_step_that_vanishes_ends_the_sample() -> None:
    solution, _ = run(always(9.0), [0.0, 1.0], throw=False)
    assert solution.status.tolist() == [Status.DT_MIN]
    assert int(solution.stats.accepted) == 0
    assert solution.ys[:, 0, 0].tolist() == [0.0, 0.0]


def test_max_steps_gives_its_status_and_holds_the_last_value() -> None:
    how: dict[str, Any] = {"controller": PID(first_step=0.125, dtmax=0.125), "max_steps": 3}
    solution, tried = run(always(0.5), [0.0, 0.25, 0.5, 1.0], throw=False, **how)
    assert len(tried.log) == 3
    assert solution.status.tolist() == [Status.MAX_STEPS] == [1]
    assert solution.valid[:, 0].tolist() == [True, True, False, False]
    assert solution.ys[:, 0, 0].tolist() == [0.0, 0.25, 0.375, 0.375]
    with pytest.raises(SolveError, match="raise max_steps"):
        run(always(0.5), [0.0, 1.0], **how)


def test_max_steps_counts_rejections() -> None:
    solution, tried = run(always(1.5), [0.0, 1.0], max_steps=4, throw=False)
    assert len(tried.log) == 4 and int(solution.stats.rejected) == 4
    assert solution.status.tolist() == [Status.MAX_STEPS]


def test_a_nan_error_is_a_rejection() -> None:
    solution, tried = run(in_turn(math.nan, then=0.9), [0.0, 1.0])
    assert int(solution.stats.rejected) == 1
    assert tried.times[1] == 0.0 and tried.steps[1] == pytest.approx(0.2 * tried.steps[0])


def test_an_error_that_stays_nan_ends_the_sample_as_not_finite() -> None:
    solution, _ = run(lambda t, dt: torch.where(t + dt > 0.5, math.nan, 0.9), [0.0, 0.25, 1.0], throw=False)
    assert solution.status.tolist() == [Status.NONFINITE]
    assert solution.valid[:, 0].tolist() == [True, True, False]
    assert 0.25 <= float(solution.ys[-1]) <= 0.5


def test_each_sample_accepts_and_steps_for_itself() -> None:
    def rule(t: Tensor, dt: Tensor) -> Tensor:
        return dt.abs() * torch.tensor([4.0, 40.0], dtype=torch.float64)

    solution, tried = run(rule, [0.0, 1.0], samples=2)
    assert solution.stats.accepted[0] < solution.stats.accepted[1]
    assert (solution.stats.rejected == torch.tensor([0, 1])).all()
    assert tried.log[1][0].tolist() == [0.125, 0.0]


def test_finished_samples_rest_and_do_not_change() -> None:
    def rule(t: Tensor, dt: Tensor) -> Tensor:
        return torch.where(dt == 0, math.inf, 0.9)

    ts = torch.tensor([[0.0, 0.0], [0.25, 5.0]], dtype=torch.float64)
    solution, tried = run(rule, ts, samples=2)
    alone, _ = run(rule, [0.0, 0.25])
    ended = int(solution.stats.accepted[0])
    assert all(float(dt[0]) == 0 for _, dt in tried.log[ended:]) and len(tried.log) > ended
    assert torch.equal(solution.ys[:, 0], alone.ys[:, 0])
    assert solution.status.tolist() == [0, 0]
    assert int(solution.stats.accepted[0]) == int(alone.stats.accepted) and int(solution.stats.rejected[0]) == 0


def test_samples_of_a_batch_step_as_they_do_alone() -> None:
    ts = torch.linspace(0, 1, 7, dtype=torch.float64)
    together = solve(HOPF.field, HOPF.y0, ts, batch_dims=1, rtol=1e-7)
    for i in range(HOPF.y0.shape[0]):
        alone = solve(HOPF.field, HOPF.y0[i : i + 1], ts, batch_dims=1, rtol=1e-7)
        assert alone.stats.accepted[0] == together.stats.accepted[i]
        assert alone.stats.rejected[0] == together.stats.rejected[i]
        torch.testing.assert_close(alone.ys[:, 0], together.ys[:, i], rtol=1e-14, atol=1e-14)


def test_a_coupled_batch_has_one_step_size() -> None:
    coupled = solve(HOPF.field, HOPF.y0, [0.0, 1.0], coupled=True, save="steps")
    apart = solve(HOPF.field, HOPF.y0, [0.0, 1.0], batch_dims=1, save="steps")
    assert coupled.ts.ndim == 1 and apart.ts.ndim == 2
    assert len(set(coupled.stats.accepted.tolist())) == 1 < len(set(apart.stats.accepted.tolist()))
    assert bool(coupled.valid.all())


def test_a_coupled_batch_accepts_by_the_norm_of_the_whole() -> None:
    # Errors 0 and 1.2: the second sample alone would reject; together their root mean square is 0.85.
    def rule(t: Tensor, dt: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.2], dtype=torch.float64)

    solution, _ = run(rule, [0.0, 1.0], samples=2, coupled=True)
    assert solution.stats.rejected.tolist() == [0, 0]


@pytest.mark.parametrize("how", [{"batch_dims": 1}, {"coupled": True}, {"dt": 0.03, "batch_dims": 1}])
def test_adding_output_times_changes_no_step(how: dict[str, Any]) -> None:
    few = solve(HOPF.field, HOPF.y0, [0.0, 1.0], **how)
    many = solve(HOPF.field, HOPF.y0, torch.linspace(0, 1, 57, dtype=torch.float64), **how)
    assert torch.equal(few.ys[-1], many.ys[-1])
    assert torch.equal(few.stats.accepted, many.stats.accepted) and torch.equal(few.stats.nfe, many.stats.nfe)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("end", "dt", "count"), [(1, 0.01, 100), (1, 0.1, 10), (1, 1 / 3, 3), (0.3, 0.1, 3), (2, 1e-3, 2000)]
)
def test_fixed_steps_are_counted(end: float, dt: float, count: int, dtype: torch.dtype) -> None:
    ts = torch.tensor([0, end], dtype=dtype)
    solution = solve(one, torch.zeros(2, 1, dtype=dtype), ts, method="euler", dt=dt, batch_dims=1)
    assert solution.stats.accepted.tolist() == [count, count]
    assert float(solution.ys[-1, 0]) == pytest.approx(end, rel=50 * torch.finfo(dtype).eps * math.sqrt(count))


def test_the_nth_fixed_step_starts_at_t0_plus_n_dt() -> None:
    solution, tried = run(always(0.0), [0.5, 1.5], controller=None, dt=0.01)
    assert tried.times == [0.5 + n * 0.01 for n in range(100)]
    assert set(tried.steps[:-1]) == {0.01}
    assert int(solution.stats.accepted) == 100


def test_the_last_fixed_step_is_shortened() -> None:
    _, tried = run(always(0.0), [0.0, 1.0], controller=None, dt=0.3)
    assert tried.times == [0.0, 0.3, 0.6, 3 * 0.3]
    assert tried.steps[3] == 1.0 - 3 * 0.3


def test_fixed_steps_do_not_depend_on_output_times() -> None:
    _, tried = run(always(0.0), [0.0, 0.11, 0.12, 0.9, 1.0], controller=None, dt=0.25)
    assert tried.times == [0.0, 0.25, 0.5, 0.75]


def test_fixed_steps_never_reject() -> None:
    solution, _ = run(always(1e9), [0.0, 1.0], controller=None, dt=0.25)
    assert int(solution.stats.rejected) == 0 and int(solution.stats.accepted) == 4


@pytest.mark.parametrize("how", [{}, {"dt": 0.07}, {"coupled": True}])
def test_backward_time_is_forward_time_of_the_reversed_field(how: dict[str, Any]) -> None:
    ts = torch.tensor([1.0, 0.6, 0.0], dtype=torch.float64)
    back = solve(HOPF.field, HOPF.at(1.0), ts, **how)
    mirrored = solve(lambda s, y: -HOPF.field(-s, y), HOPF.at(1.0), -ts, **how)
    torch.testing.assert_close(back.ys, mirrored.ys, rtol=1e-14, atol=1e-14)
    assert torch.equal(back.stats.accepted, mirrored.stats.accepted)
    assert torch.equal(back.ts, ts)


def test_there_and_back_again_returns_to_the_start() -> None:
    there = solve(HOPF.field, HOPF.y0, [0.0, 1.0], rtol=1e-10, atol=1e-12).ys[-1]
    back = solve(HOPF.field, there, [1.0, 0.0], rtol=1e-10, atol=1e-12).ys[-1]
    torch.testing.assert_close(back, HOPF.y0, rtol=1e-8, atol=1e-8)


def test_nfe_counts_what_was_called() -> None:
    calls = 0

    def counted(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return HOPF.field(t, y)

    solution = solve(counted, HOPF.y0, [0.0, 1.0], coupled=True)
    assert calls == solution.stats.calls == int(solution.stats.nfe[0])
    assert int(solution.stats.nfe[0]) == 2 + 6 * int(solution.stats.steps[0])
