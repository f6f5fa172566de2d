"""Local regularizers: where their one step starts, how long it is, what its gradient reaches, under every adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch._dynamo.utils import counters

from sciode import Error, Jacobian, Local, Save, SDETerm, Status, Stiffness, sample_seeds, solve
from sciode.solvers import probe
from sciode.solvers.checks import check_times
from sciode.solvers.engines import CompileNotice
from sciode.solvers.moments import fractions, with_moment

pytestmark = pytest.mark.usefixtures("forgetful")
Y0 = torch.tensor([[2.0, 0.0], [0.5, -1.0], [1.0, 3.0]], dtype=torch.float64)
TS = [0.0, 1.5, 4.0]
KINDS = [
    Local(),
    Local("stiffness"),
    Local(at="accepted"),
    Local(step="solver"),
    Local(at="accepted", step="solver"),
    Local(state="frozen"),
    Local(state="attached"),
    Local("stiffness", state="attached", step="solver"),
]


class Oscillator(nn.Module):
    """Van der Pol's, with its damping a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """x' = v, v' = mu (1 - x^2) v - x."""
        x, v = y.unbind(-1)
        return torch.stack((v, self.mu * (1 - x * x) * v - x), -1)


def penalty(kind: Local, **options: Any) -> Tensor:
    return solve(Oscillator(), Y0, TS, regularize=kind, seed=1, **options).penalties["local"]


def test_fractions_are_uniform_and_hang_on_the_seed_alone() -> None:
    many = fractions(7, 4000)
    assert stats.kstest(many.numpy(), "uniform").pvalue > 1e-3
    assert torch.equal(fractions(7, 10), many[:10])
    assert torch.equal(fractions(sample_seeds(7, 4), 4), many[:4])
    assert not torch.equal(fractions(8, 10), many[:10])


def test_the_random_time_of_many_solves_is_uniform_between_first_and_last() -> None:
    times = check_times(TS, (3,), torch.device("cpu"))
    drawn = []
    for seed in range(400):
        more, moment = with_moment(times, seed)
        drawn.append(float(moment.of(more.rows.T)[0]))
        assert torch.equal(moment.without(more.rows.T), times.rows.T)
    assert stats.kstest(np.array(drawn) / TS[-1], "uniform").pvalue > 1e-3


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_samples_with_times_of_their_own_have_random_times_of_their_own(sign: float) -> None:
    ts = sign * torch.tensor([[0.0, 0.0, 1.0], [1.0, 2.0, 3.0], [2.0, np.nan, 4.0]], dtype=torch.float64)
    more, moment = with_moment(check_times(ts, (3,), torch.device("cpu")), 5)
    drawn = moment.of(more.rows.T) * more.sign * sign
    assert bool(((drawn > ts[0] * sign) & (drawn < torch.tensor([2.0, 2.0, 4.0]))).all())
    assert len(set(drawn.tolist())) == 3
    plain = solve(Oscillator(), Y0, ts)
    watched = solve(Oscillator(), Y0, ts, regularize="local", seed=5)
    torch.testing.assert_close(watched.ts, plain.ts, equal_nan=True)
    assert torch.equal(watched.ys, plain.ys)
    assert torch.equal(watched.valid, plain.valid)


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_they_change_nothing_of_the_solution(kind: Local, engine: str, coupled: bool, traced_only: None) -> None:
    plain = solve(Oscillator(), Y0, TS, engine=engine, coupled=coupled)
    watched = solve(Oscillator(), Y0, TS, engine=engine, coupled=coupled, regularize=kind, seed=1)
    assert torch.equal(plain.ys, watched.ys)
    assert torch.equal(plain.ts, watched.ts)
    assert torch.equal(plain.stats.nfe, watched.stats.nfe)
    assert watched.penalties["local"].shape == (3,)


def step_alone(kind: Local, t: float, y: Tensor, length: float | None) -> Tensor:
    """The penalty of the first step of a new solve from (t, y), of this length or as long as it chooses."""
    measured = Error() if kind.of == "error" else Stiffness()
    if length is not None:
        return solve(Oscillator(), y, [t, t + length], regularize=measured, dt=length).penalties[measured.name]
    found = solve(Oscillator(), y, [t, t + 1e3], regularize=measured, max_steps=1, throw=False)
    return found.penalties[measured.name]


@pytest.mark.parametrize("of", ["error", "stiffness"])
def test_the_step_is_the_first_one_of_a_solve_from_the_random_time(of: Any) -> None:
    kind = Local(of)
    t1 = float(fractions(1, 1)) * TS[-1]
    at = solve(Oscillator(), Y0, sorted([*TS, t1])).ys[sorted([*TS, t1]).index(t1)].detach()
    want = torch.cat([step_alone(kind, t1, y[None], None) for y in at])
    torch.testing.assert_close(penalty(kind), want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("at", ["uniform", "accepted"])
def test_the_solvers_own_step_is_the_one_it_took_there(at: Any) -> None:
    """A step of the solver from a time that it stepped from has the error which the solver saw."""
    kind = Local(at=at, step="solver")
    steps = solve(Oscillator(), Y0, TS, save="steps")
    value = penalty(kind)
    for i in range(3):
        count = int(steps.stats.accepted[i])
        starts, lengths = steps.ts[:count, i], steps.ts[: count + 1, i].diff()
        if at == "accepted":
            nth = int(fractions(1, 3)[i] * count)
            t, y = starts[nth], steps.ys[nth, i]
        else:
            t = fractions(1, 1)[0] * TS[-1]
            nth = int((starts <= t).sum()) - 1
            ts = sorted([*TS, float(t)])
            y = solve(Oscillator(), Y0, ts).ys[ts.index(float(t)), i]
        want = step_alone(kind, float(t), y[None].detach(), float(lengths[nth]))
        torch.testing.assert_close(value[i : i + 1], want, rtol=1e-6, atol=0)


def test_accepted_steps_are_drawn_equally_often() -> None:
    steps = solve(Oscillator(), Y0[:1], [0.0, 2.0], save="steps", coupled=True)
    count = int(steps.stats.accepted)
    seen = {}
    for seed in range(20 * count):
        found = solve(Oscillator(), Y0[:1], [0.0, 2.0], regularize=Local(at="accepted", step="solver"), seed=seed)
        key = round(float(found.penalties["local"].detach()), 12)
        seen[key] = seen.get(key, 0) + 1
    assert len(seen) == count
    assert stats.chisquare(list(seen.values())).pvalue > 1e-3


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_adjoint_gives_the_same_gradient(kind: Local, engine: str, traced_only: None) -> None:
    found = []
    for adjoint in ("direct", "recompute", "backsolve"):
        field, y0 = Oscillator(), Y0.clone().requires_grad_()
        # As exact as backsolve, which is approximate, has to be for the comparison.
        ours = solve(field, y0, TS, rtol=1e-9, atol=1e-9, regularize=kind, seed=1, adjoint=adjoint, engine=engine)
        total = ours.penalties["local"].sum() * 1e3 + ours.ys[-1].sum()
        found.append((total.detach(), *torch.autograd.grad(total, (y0, field.mu))))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_detached_state_carries_no_gradient_and_an_attached_one_does() -> None:
    for state in ("detached", "frozen", "attached"):
        y0 = Y0.clone().requires_grad_()
        value = solve(Oscillator(), y0, TS, regularize=Local(state=state), seed=1).penalties["local"]
        (gradient,) = torch.autograd.grad(value.sum(), y0, allow_unused=True)
        assert (gradient is None) == (state != "attached")


def test_a_constant_added_to_a_slope_changes_no_error_unless_the_slope_is_frozen() -> None:
    """The weights of an error estimate sum to 0; with the first slope held fixed they no longer do."""
    slopes = {}
    for state in ("detached", "frozen", "attached"):
        shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
        found = solve(lambda t, y, shift: torch.sin(3 * t) + shift + 0 * y, Y0, TS, args=shift, seed=1,
                      regularize=Local(state=state, step="solver"))  # fmt: skip
        value = found.penalties["local"].sum()
        slopes[state] = float(torch.autograd.grad(value, shift)[0] / value.detach())
    # The tolerance itself, atol + rtol |y|, knows of the shift: that is all that is left.
    assert abs(slopes["detached"]) < 3
    assert abs(slopes["attached"]) < 3
    assert abs(slopes["frozen"]) > 30


def test_an_attached_gradient_is_that_of_finite_differences_where_steps_are_fixed() -> None:
    def value(y0: Tensor, mu: Tensor) -> Tensor:
        def field(t: Tensor, y: Tensor, mu: Tensor) -> Tensor:
            x, v = y.unbind(-1)
            return torch.stack((v, mu * (1 - x * x) * v - x), -1)

        found = solve(field, y0, [0.0, 1.0], args=mu, dt=0.1, regularize=Local(state="attached"), seed=2,
                      rtol=1e-3, atol=1e-3)  # fmt: skip
        return found.penalties["local"]

    mu = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(value, (Y0.clone().requires_grad_(), mu), rtol=1e-4, atol=1e-8)


def test_a_sample_that_failed_counts_as_zero_and_spoils_no_other() -> None:
    def breaking(t: Tensor, y: Tensor) -> Tensor:
        return torch.where((y > 100) & (t > 0.01), torch.nan, -y)

    y0 = torch.tensor([[1.0], [1000.0], [2.0]], dtype=torch.float64, requires_grad=True)
    for at in ("uniform", "accepted"):
        found = solve(breaking, y0, [0.0, 1.0], regularize=Local(at=at), seed=3, throw=False)
        value = found.penalties["local"]
        assert bool(value.isfinite().all())
        assert bool((value[[0, 2]] > 0).all())


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("kind", [Local(), Local(at="accepted"), Local(step="solver")], ids=str)
def test_where_no_sample_takes_any_step_there_is_a_status(kind: Local, engine: str, traced_only: None) -> None:
    def broken(t: Tensor, y: Tensor, rate: Tensor) -> Tensor:
        return torch.where(t > 0, torch.nan, -rate * y)

    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    found = solve(broken, Y0, [0.0, 1.0], args=rate, engine=engine, seed=3, throw=False, regularize=kind)
    assert found.status.tolist() == [int(Status.NONFINITE)] * 3
    assert found.penalties["local"].tolist() == [0.0] * 3


@pytest.mark.parametrize("dt", [None, 0.25])
@pytest.mark.parametrize("step", ["heuristic", "solver"])
def test_the_step_never_goes_beyond_the_last_time(step: Any, dt: float | None) -> None:
    def bounded(t: Tensor, y: Tensor, rate: Tensor) -> Tensor:
        return torch.sqrt(1.0001 - t) * rate * y

    for seed in range(12):
        rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        found = solve(bounded, Y0, [0.0, 1.0], args=rate, dt=dt, seed=seed, regularize=Local(step=step))
        value = found.penalties["local"]
        assert bool(value.isfinite().all())
        assert bool(torch.autograd.grad(value.sum(), rate)[0].isfinite())


@pytest.mark.parametrize("of", ["error", "stiffness"])
@pytest.mark.parametrize("kind", [{}, {"at": "accepted"}, {"step": "solver"}, {"state": "attached"}], ids=str)
def test_the_gradient_of_shared_parameters_survives_a_sample_that_failed(kind: dict[str, Any], of: Any) -> None:
    ends = torch.tensor([[0.5], [10.0], [10.0]], dtype=torch.float64)

    def ending(t: Tensor, y: Tensor, rate: Tensor) -> Tensor:
        return torch.sqrt(ends[: len(y)] - t) * rate * y

    for seed in range(4):
        rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        found = solve(ending, torch.ones_like(ends), [0.0, 0.5, 1.0], args=rate, seed=seed, throw=False, max_steps=200,
                      batch_dims=1, regularize=Local(of, **kind))  # fmt: skip
        assert found.status.tolist()[1:] == [0, 0] != found.status.tolist()[:2]
        value = found.penalties["local"]
        assert value[0] == 0 and bool((value[1:] > 0).all())
        assert bool(torch.autograd.grad(value.sum(), rate)[0].isfinite())


def test_the_seed_is_drawn_once_and_reported() -> None:
    torch_state = torch.get_rng_state()
    first = solve(Oscillator(), Y0, TS, regularize="local")
    torch.set_rng_state(torch_state)
    again = solve(Oscillator(), Y0, TS, regularize="local")
    torch.set_rng_state(torch_state)
    assert first.seed == again.seed is not None
    named = solve(Oscillator(), Y0, TS, regularize="local", seed=first.seed)
    assert torch.equal(first.penalties["local"], named.penalties["local"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Local("eror"), "error"),
        (lambda: solve(Oscillator(), Y0, TS, regularize=Local(state="frozen"), method="heun"), "state='detached'"),
        (lambda: Local(at="anywhere"), "uniform"),  # type: ignore[arg-type]
        (lambda: Local(at="accepted", state="attached"), "use at='uniform'"),
        (lambda: solve(Oscillator(), Y0, TS, regularize="local", save="steps"), "save='ts'"),
        (lambda: solve(Oscillator(), Y0, TS, regularize="local", save=Save(fn=lambda t, y: y)), "save='ts'"),
        (lambda: solve(Oscillator(), Y0, TS, regularize="local", method="rk4", dt=0.1), "no error estimate"),
        (lambda: solve(Oscillator(), Y0, TS, regularize=Local("stiffness"), method="bosh3"), "same node"),
        (lambda: solve(SDETerm(lambda t, y: -y, lambda t, y: y), Y0, TS, dt=0.1, regularize=Local(Jacobian())), "ODE"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_beside_a_compiled_loop_the_step_is_compiled_once(traced_only: None) -> None:
    field, y0 = Oscillator(), Y0.clone()
    how: dict[str, Any] = {"engine": "compiled", "regularize": Local(step="solver"), "adjoint": "recompute"}
    for attempt in range(4):
        found = solve(field, y0 + 0.1 * attempt, TS, seed=attempt, **how)
        found.penalties["local"].sum().backward()
        if attempt == 1:
            made = counters["stats"]["unique_graphs"]
        field.mu.data.add_(0.1)
    assert counters["stats"]["unique_graphs"] == made


def test_a_step_that_cannot_be_compiled_is_taken_all_the_same(
    monkeypatch: pytest.MonkeyPatch, traced_only: None
) -> None:
    def refuse(*arguments: Any) -> Tensor:
        raise RuntimeError("for the sake of the test")

    monkeypatch.setattr(probe, "compiler", lambda function: refuse)
    with pytest.warns(CompileNotice, match="local step is not compiled: for the sake"):
        ours = penalty(Local(), engine="compiled")
    torch.testing.assert_close(ours, penalty(Local(), engine="eager"), rtol=1e-6, atol=1e-10)
    torch.testing.assert_close(penalty(Local(), engine="compiled"), ours)
