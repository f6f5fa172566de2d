"""Evolutions against exact solutions: orders in time, both modes, faults, what is kept and what is resumed."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sciode.insr import Fit, Galerkin, Points, Trajectory, evolve, plan
from sciode.insr.flat import Flat
from sciode.insr.optimise import Work, fitted
from sciode.nn import HardBoundary, PeriodicEmbedding, Siren
from sciode.pde import Evolution
from sciode.training import Descent, LevenbergMarquardt, isolated_rng

SPEED, DIFFUSION = 0.5, 0.05


def turning(walls: Any = "periodic") -> Evolution:
    """A sine that runs round a ring and fades: u = exp(-D pi^2 t) sin(pi (x - SPEED t))."""

    def exact(x: Tensor, t: Tensor | float) -> Tensor:
        return math.exp(-DIFFUSION * math.pi**2 * float(t)) * torch.sin(math.pi * (x - SPEED * t))

    return Evolution(
        name="turning", lower=(-1.0,), upper=(1.0,), channels=1, walls=walls, initial=lambda x: exact(x, 0.0),
        rate=lambda u, slopes: -SPEED * slopes[..., 0], diffusion=DIFFUSION, exact=exact,
    )  # fmt: skip


def network(told: int = 1, seed: int = 0) -> nn.Module:
    with isolated_rng(seed):
        return Siren(1, told, 6, 1, omega=4.0, embedding=PeriodicEmbedding([2.0])).double()


@cache
def near(told: int) -> nn.Module:
    """A network that knows the initial values already: fitting them is most of what a short evolution costs."""
    field = network(told)
    fit = Fit(Descent(iterations=300), LevenbergMarquardt(iterations=40, tolerance=1e-15, damping=1e-4))
    work = Work(turning(), Flat(field), told, Points(count=300), 0)
    return work.flat.load(fitted(work, fit).theta)


class Sine(nn.Module):
    """u = a sin(pi x) + b cos(pi x): what `turning` does, it does exactly, and its weights obey a linear ODE."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([1.0, 0.0], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.weights[:1] * torch.sin(math.pi * x) + self.weights[1:] * torch.cos(math.pi * x)


def at_rest(field: nn.Module) -> nn.Module:
    """With weights that are 0: such a field is periodic as it is, and not when it moves."""
    for weights in field.parameters():
        nn.init.zeros_(weights)
    return field


FIT = Fit(None, LevenbergMarquardt(iterations=1, tolerance=1e-15))
FEW = Points(count=150)
X = torch.linspace(-1.0, 1.0, 101, dtype=torch.float64).unsqueeze(1)


def run(dt: float, **how: Any) -> Trajectory:
    field = how.pop("field", None) or near(how.pop("told", 1))
    return evolve(turning(), field, [0.0, 0.8], dt=dt, fit=FIT, points=FEW, **how)


def error(found: Trajectory, t: float) -> float:
    exact = torch.vmap(lambda x: turning().exact(x, t))(X)  # type: ignore[misc]
    return float((found(X, t) - exact).norm() / exact.norm())


@pytest.mark.parametrize(
    ("scheme", "order", "told", "steps"),
    [
        ("impliciteuler", 1, 1, (0.1, 0.05)),
        ("implicitmidpoint", 2, 1, (0.2, 0.1)),
        ("cranknicolson", 2, 1, (0.2, 0.1)),
        ("bdf2", 2, 1, (0.1, 0.05)),
        ("radauiia3", 3, 2, (0.4, 0.2)),
        ("gausslegendre4", 4, 3, (0.8, 0.4)),
    ],
)
def test_a_scheme_keeps_the_order_of_its_table(scheme: str, order: int, told: int, steps: tuple[float, float]) -> None:
    errors = [error(run(dt, scheme=scheme, told=told), 0.8) for dt in steps]
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.25, errors


def test_galerkin_has_the_order_of_its_method() -> None:
    fixed = Galerkin("rk4", fixed=True)
    errors = [error(run(dt, mode="galerkin", field=Sine(), galerkin=fixed), 0.8) for dt in (0.4, 0.2)]
    assert abs(np.log2(errors[0] / errors[1]) - 4.0) < 0.25, errors


def test_galerkin_follows_a_network_and_may_choose_its_own_steps() -> None:
    fixed = run(0.05, mode="galerkin", galerkin=Galerkin("rk4", fixed=True, damping=1e-8))
    adaptive = run(0.4, mode="galerkin",
                   galerkin=Galerkin(regularize="error"))  # fmt: skip
    assert error(fixed, 0.8) < 1e-4 and error(adaptive, 0.8) < 1e-4
    assert adaptive.steps[-1].penalties["error"] > 0.0 and not fixed.steps[-1].penalties
    assert all(step.status == "converged" for step in (*fixed.steps[1:], *adaptive.steps[1:]))


def test_between_stored_times_u_is_of_fourth_order() -> None:
    errors = []
    for dt in (0.8, 0.4):
        found = run(
            dt, mode="galerkin", field=Sine(), galerkin=Galerkin(fixed=False, method="dopri8", rtol=1e-12, atol=1e-12)
        )
        errors.append(error(found, dt / 2))
    assert 3.75 < np.log2(errors[0] / errors[1]) < 4.25, errors


def test_walls_are_kept_by_a_weight_or_by_construction() -> None:
    def exact(x: Tensor, t: Tensor | float) -> Tensor:
        return math.exp(-DIFFUSION * math.pi**2 * float(t)) * torch.sin(math.pi * (x + 1.0) / 1.0)

    problem = Evolution(name="fading", lower=(-1.0,), upper=(1.0,), channels=1, walls="zero",
                        initial=lambda x: exact(x, 0.0), diffusion=DIFFUSION, exact=exact)  # fmt: skip
    with isolated_rng(0):
        soft = Siren(1, 1, 6, 1, omega=4.0).double()
    fit = Fit(Descent(iterations=300), LevenbergMarquardt(iterations=20, damping=1e-4))
    with isolated_rng(0):
        hard = HardBoundary(Siren(1, 1, 6, 1, omega=4.0), torch.zeros_like, lambda x: 1.0 - x**2).double()
    for field, points in ((soft, FEW), (hard, Points(count=150, weight=0.0))):
        found = evolve(problem, field, [0.0, 0.4], dt=0.2, fit=fit, points=points)
        values = found(torch.tensor([[-1.0], [1.0], [-0.5]], dtype=torch.float64), 0.4)
        assert float(values[:2].abs().max()) < (1e-12 if field is hard else 1e-5)
        assert float(values[2]) == pytest.approx(float(exact(torch.tensor([-0.5]), 0.4)), rel=1e-3)


def test_the_same_seed_gives_the_same_numbers_and_the_callers_network_stays() -> None:
    field = near(1)
    before = [p.clone() for p in field.parameters()]
    first, again = (evolve(turning(), field, [0.0, 0.2], dt=0.1, fit=FIT, points=FEW, seed=3) for _ in range(2))
    assert torch.equal(first.thetas, again.thetas)
    assert all(torch.equal(a, b) for a, b in zip(before, field.parameters(), strict=True))
    other = evolve(turning(), field, [0.0, 0.2], dt=0.1, fit=FIT, points=FEW, seed=4)
    assert not torch.equal(first.thetas, other.thetas)


def test_an_interrupted_evolution_goes_on_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how: dict[str, Any] = {"dt": 0.1, "scheme": "bdf2", "fit": FIT, "points": FEW}
    whole = evolve(turning(), near(1), [0.0, 0.4], **how)
    stepped = plan.stepped

    def dies(work: Any, scheme: Any, thetas: Any, dt: float, optimiser: Any, step: int, attempt: int) -> Any:
        if step == 3:
            raise KeyboardInterrupt
        return stepped(work, scheme, thetas, dt, optimiser, step, attempt)

    with monkeypatch.context() as patch:
        patch.setattr(plan, "stepped", dies)
        with pytest.raises(KeyboardInterrupt):
            evolve(turning(), near(1), [0.0, 0.4], folder=tmp_path, **how)
    resumed = evolve(turning(), near(1), [0.0, 0.4], folder=tmp_path, **how)
    assert torch.equal(resumed.thetas, whole.thetas) and len(resumed.steps) == 5
    longer = evolve(turning(), near(1), [0.0, 0.4, 0.5], folder=tmp_path, **how)
    assert torch.equal(longer.thetas[:5], whole.thetas) and longer.times[-1] == 0.5


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"seed": 1}, "limits"),
        ({"scheme": "cranknicolson"}, "how"),
        ({"dt": 0.05}, "times"),
        ({"problem": replace(turning(), diffusion=0.06)}, "problem"),
        ({"problem": replace(turning(), walls="zero")}, "problem"),
        ({"problem": replace(turning(), rate=lambda u, slopes: -SPEED * slopes[..., 0] * u)}, "problem"),
        ({"field": network(seed=1)}, "start"),
    ],
)
def test_another_evolutions_folder_is_refused(change: dict[str, Any], differs: str, tmp_path: Path) -> None:
    def begun(problem: Any = None, field: Any = None, dt: float = 0.1, **how: Any) -> None:
        options: dict[str, Any] = {"fit": FIT, "points": FEW, "scheme": "impliciteuler", "folder": tmp_path, **how}
        evolve(problem or turning(), field or near(1), [0.0, 0.2], dt=dt, **options)

    begun()
    with pytest.raises(ValueError, match=rf"differs in {differs}: give another folder"):
        begun(**change)


def test_a_folder_that_went_further_serves_a_shorter_run(tmp_path: Path) -> None:
    how: dict[str, Any] = {"dt": 0.1, "fit": FIT, "points": FEW, "folder": tmp_path, "scheme": "impliciteuler"}
    whole = evolve(turning(), near(1), [0.0, 0.3], **how)
    part = evolve(turning(), near(1), [0.0, 0.1], **how)
    assert part.complete and part.times == (0.0, 0.1) and torch.equal(part.thetas, whole.thetas[:2])


def test_walls_hold_the_weights_of_a_galerkin_step() -> None:
    def exact(x: Tensor, t: Tensor | float) -> Tensor:
        return math.exp(-DIFFUSION * math.pi**2 / 4 * float(t)) * torch.cos(math.pi / 2 * x)

    problem = Evolution(name="cooling", lower=(-1.0,), upper=(1.0,), channels=1, walls="zero",
                        initial=lambda x: exact(x, 0.0), diffusion=DIFFUSION, exact=exact)  # fmt: skip
    with isolated_rng(0):
        field = Siren(1, 1, 6, 1, omega=4.0).double()
    fit = Fit(Descent(iterations=300), LevenbergMarquardt(iterations=20, damping=1e-4))
    errors = []
    for weight in (1.0, 0.0):
        found = evolve(problem, field, [0.0, 2.0], dt=0.5, mode="galerkin", fit=fit, failing="go on",
                       points=Points(150, weight=weight))  # fmt: skip
        errors.append(float((found(X, 2.0) - torch.vmap(lambda x: exact(x, 2.0))(X)).abs().max()))
    assert errors[0] < 1e-3 and errors[0] < 0.3 * errors[1], errors


def test_times_in_float32_are_the_steps_that_were_meant() -> None:
    found = evolve(turning(), near(1), torch.linspace(0, 0.4, 5), dt=0.1, scheme="bdf2", fit=FIT, points=FEW)
    assert len(found.times) == 5 and found(X, torch.linspace(0, 0.4, 3)).shape == (3, 101, 1)


def test_a_fit_tells_the_iterations_of_both_its_stages() -> None:
    both = Fit(Descent(iterations=7), LevenbergMarquardt(iterations=2, tolerance=0.0))
    for fit, count in ((both, 9), (replace(both, refine=None), 7), (Fit(None, None), 0)):
        work = Work(turning(), Flat(network()), 1, FEW, 0)
        assert fitted(work, fit).iterations == count


def test_a_bad_fit_is_no_start(tmp_path: Path) -> None:
    bad = Fit(Descent(iterations=1), None)
    how: dict[str, Any] = {"dt": 0.1, "fit": bad, "points": FEW}
    for _ in range(2):
        found = evolve(turning(), network(), [0.0, 0.1], folder=tmp_path, **how)
        assert not found.complete and found.steps[-1].status == "not fitted" and found.steps[-1].loss > 1e-3
    assert evolve(turning(), network(), [0.0, 0.1], failing="go on", **how).complete


def test_a_steady_state_is_followed_in_either_precision() -> None:
    still = Evolution(name="still", lower=(-1.0,), upper=(1.0,), channels=1, walls="periodic",
                      initial=lambda x: torch.sin(math.pi * x))  # fmt: skip
    for dtype in (torch.float64, torch.float32):
        field = copy.deepcopy(near(1)).to(dtype)
        found = evolve(still, field, [0.0, 0.2], dt=0.1, mode="galerkin", fit=FIT, points=FEW)
        assert found.complete and found.thetas.dtype == dtype
        torch.testing.assert_close(found.thetas[-1], found.thetas[0], rtol=0, atol=1e-5)


def test_weights_that_ask_for_no_gradient_stay() -> None:
    field = copy.deepcopy(near(1))
    frozen = next(iter(field.parameters())).requires_grad_(False)
    found = evolve(turning(), field, [0.0, 0.1], dt=0.1, fit=FIT, points=FEW, failing="go on")
    assert found.thetas.shape[1] == sum(p.numel() for p in field.parameters()) - frozen.numel()
    assert torch.equal(next(iter(found.network.parameters())), frozen)


def test_a_step_that_does_not_converge_is_tried_again_then_stops_or_goes_on() -> None:
    weak = LevenbergMarquardt(iterations=1, tolerance=0.0)
    how: dict[str, Any] = {"optimiser": weak, "accept": 1e-11, "attempts": 2}
    stopped = run(0.2, **how)
    assert not stopped.complete and len(stopped.times) == 1
    assert stopped.steps[-1].attempts == 2 and stopped.steps[-1].status == "budget" and stopped.steps[-1].loss > 1e-11
    gone_on = run(0.2, failing="go on", **how)
    assert gone_on.complete and {step.status for step in gone_on.steps[1:]} == {"budget"}


def test_what_is_not_finite_stops_with_the_last_good_weights() -> None:
    empty = Evolution(name="no slope", lower=(-1.0,), upper=(1.0,), channels=1, walls="periodic",
                      initial=lambda x: torch.sin(math.pi * x), rate=lambda u, slopes: u * torch.nan)  # fmt: skip
    for mode in ("optimise", "galerkin"):
        found = evolve(empty, near(1), [0.0, 1.0], dt=0.5, mode=mode, fit=FIT, points=FEW, failing="go on", attempts=1)  # type: ignore[arg-type]
        assert not found.complete and len(found.times) == 1 and found.steps[-1].status != "converged"
        assert bool(torch.isfinite(found.thetas).all()) and bool(torch.isfinite(found(X, 0.0)).all())


def test_a_galerkin_step_that_cannot_follow_says_so() -> None:
    class Standing(nn.Module):
        """a sin(pi x): it may fade and cannot turn."""

        def __init__(self) -> None:
            super().__init__()
            self.size = nn.Parameter(torch.ones(1, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return self.size * torch.sin(math.pi * x)

    found = evolve(turning(), Standing(), [0.0, 0.2], dt=0.1, mode="galerkin", fit=FIT, points=FEW)
    assert not found.complete and found.steps[-1].status == "not followed"
    # Of -SPEED pi cos and -DIFFUSION pi^2 sin it follows the second.
    lost, kept = SPEED * math.pi, DIFFUSION * math.pi**2
    assert found.steps[-1].loss == pytest.approx(lost / math.hypot(lost, kept), rel=0.05)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"scheme": "gausslegendre4"}, "make its outputs 3"),
        ({"scheme": "gauss"}, "gausslegendre4"),
        ({"mode": "galerkins"}, "galerkin"),
        ({"dt": 0.0}, "dt must be positive"),
        ({"ts": [0.0]}, "two times"),
        ({"ts": [0.0, 0.2, 0.1]}, "increasing"),
        ({"ts": [0.0, math.inf]}, "finite"),
        ({"accept": 0.0}, "accept"),
        ({"accept": 1e-9, "optimiser": LevenbergMarquardt(tolerance=0.5)}, "tolerance"),
        ({"galerkin": Galerkin()}, "mode='galerkin'"),
        ({"mode": "galerkin", "optimiser": LevenbergMarquardt()}, "mode='optimise'"),
        ({"mode": "galerkin", "scheme": "cranknicolson"}, "galerkin=Galerkin"),
        ({"scheme": "bdf2", "ts": [0.0, 0.1, 0.25]}, "one length"),
        ({"field": nn.Linear(2, 1)}, "point"),
        ({"field": nn.Linear(1, 1).double()}, "PeriodicEmbedding"),
        ({"field": at_rest(nn.Linear(1, 1).double())}, "PeriodicEmbedding"),
        ({"field": nn.Tanh()}, "weights"),
    ],
)
def test_misuse_is_refused_before_the_work_starts(how: dict[str, Any], says: str) -> None:
    problem, field = how.pop("problem", turning()), how.pop("field", None) or near(1)
    options: dict[str, Any] = {"dt": 0.1, "fit": FIT, "points": FEW, **how}
    ts = options.pop("ts", [0.0, 0.2])
    with pytest.raises(ValueError, match=says):
        evolve(problem, field, ts, **options)


@pytest.mark.parametrize(
    "wrong", [{"rtol": -1.0}, {"max_steps": 0}, {"method": "rk5"}, {"method": "rk4"}, {"damping": 0.0}]
)
def test_a_galerkin_step_that_cannot_be_is_refused_when_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"positive|at least|rk"):
        Galerkin(**wrong)


def test_a_time_that_was_not_reached_is_refused() -> None:
    found = evolve(turning(), near(1), [0.0, 0.1], dt=0.1, fit=FIT, points=FEW)
    with pytest.raises(ValueError, match=r"reaches from 0 to 0\.1"):
        found(X, 0.2)
    assert found(X, [0.0, 0.05, 0.1]).shape == (3, 101, 1)
