"""Gradients: adjoints against the tape and finite differences, and the promise that none is silently missing."""

from __future__ import annotations

import gc
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from sciode import PID, Backsolve, Error, SDETerm, Solution, Stiffness, methods, sample_seeds, solve
from sciode.solvers.engines import CompileNotice, alone

Seeded = Callable[[int], AbstractContextManager[None]]
DOUBLE = torch.float64
SHARED = torch.linspace(0, 2, 5, dtype=DOUBLE)
OWN = torch.linspace(0, 1, 5, dtype=DOUBLE)[:, None] * torch.linspace(1, 2, 4, dtype=DOUBLE)
OWN[4, 2] = torch.nan


class Setting:
    """A neural field of (t, y, args) with a captured leaf beside its module."""

    def __init__(self, seeded: Seeded) -> None:
        with seeded(3):
            self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).to(DOUBLE)
            self.y0 = torch.randn(4, 2, dtype=DOUBLE).requires_grad_()
            self.scale = (torch.rand(4, 1, dtype=DOUBLE) + 0.5).requires_grad_()
            self.offset = torch.randn(2, dtype=DOUBLE).requires_grad_()

    def field(self, t: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        return self.net(torch.cat((y, t), dim=-1)) * scale + self.offset.sin()

    @property
    def sources(self) -> list[Tensor]:
        return [self.y0, self.scale, self.offset, *self.net.parameters()]

    def gradients(self, ts: Tensor, **options: Any) -> list[Tensor]:
        # A non-leaf in args, as an encoder's output would be.
        solution = solve(self.field, self.y0, ts, args=self.scale * 2, **options)
        loss = (solution.ys**2).sum() + sum(p.sum() for p in solution.penalties.values())
        return list(torch.autograd.grad(loss, self.sources))


@pytest.fixture
def setting(seeded: Seeded) -> Setting:
    return Setting(seeded)


def assert_close(got: list[Tensor], want: list[Tensor], relative: float) -> None:
    for g, w in zip(got, want, strict=True):
        assert (g - w).norm() <= relative * w.norm()


OPTIONS: dict[str, dict[str, Any]] = {
    "tsit5": {},
    "rejections": {"controller": PID(first_step=1.0), "rtol": 1e-7},
    "dopri8": {"method": "dopri8"},
    "not fsal": {"method": "rk4", "dt": 0.13},
    "steps": {"method": "bosh3", "save": "steps"},
    "sums": {"regularize": ("error", "stiffness")},
    "maximum and mean": {"regularize": (Error("max", power=2), Stiffness("mean"))},
}


@pytest.mark.parametrize("ts", [SHARED, OWN, SHARED.flip(0)], ids=["shared", "own times", "backward"])
@pytest.mark.parametrize("how", OPTIONS.values(), ids=OPTIONS)
def test_recompute_is_the_tape(setting: Setting, ts: Tensor, how: dict[str, Any]) -> None:
    want = setting.gradients(ts, adjoint="direct", **how)
    # The penalties subtract nearly equal stages, which costs them digits.
    assert_close(setting.gradients(ts, adjoint="recompute", **how), want, 1e-10 if "regularize" in how else 1e-12)


def test_recompute_is_the_tape_for_a_coupled_batch(setting: Setting) -> None:
    want = setting.gradients(SHARED, adjoint="direct", coupled=True)
    assert_close(setting.gradients(SHARED, adjoint="recompute", coupled=True), want, 1e-12)


@pytest.mark.parametrize("method", ["heun", "milstein", "reversibleheun"])
def test_recompute_is_the_tape_for_an_sde(setting: Setting, method: str) -> None:
    term = SDETerm(setting.field, lambda t, y, a: 0.3 * torch.cos(y) * setting.offset, calculus="stratonovich")
    found = []
    for adjoint in ("direct", "recompute"):
        ys = solve(term, setting.y0, SHARED, args=setting.scale, dt=0.07, seed=5, method=method, adjoint=adjoint).ys
        found.append(list(torch.autograd.grad((ys**2).sum(), setting.sources)))
    assert_close(found[1], found[0], 1e-12)


@pytest.mark.parametrize("ts", [SHARED, OWN], ids=["shared", "own times"])
@pytest.mark.parametrize("seminorm", [True, False])
def test_backsolve_approaches_the_exact_gradient_with_its_tolerance(
    setting: Setting, ts: Tensor, seminorm: bool
) -> None:
    exact = setting.gradients(ts, adjoint="direct", rtol=1e-12, atol=1e-12)
    for tolerance in (1e-6, 1e-9):
        settings = Backsolve(rtol=tolerance, atol=tolerance, seminorm=seminorm)
        got = setting.gradients(ts, adjoint=settings, rtol=1e-12, atol=1e-12)
        assert_close(got, exact, 100 * tolerance)


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_second_derivatives_are_finite_differences_of_first_ones(adjoint: str, seeded: Seeded) -> None:
    y0 = torch.tensor([[0.3, -0.8], [1.1, 0.4]], dtype=DOUBLE, requires_grad=True)
    w = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)

    def end(y0: Tensor, w: Tensor) -> Tensor:
        return solve(lambda t, y, w: torch.sin(w * y), y0, [0.0, 1.0], args=w, method="rk4", dt=0.1, adjoint=adjoint).ys

    with seeded(0):
        assert torch.autograd.gradgradcheck(end, (y0, w))


@pytest.mark.parametrize("adjoint", ["direct", "recompute", "auto"])
def test_two_solves_before_one_backward_and_two_backwards_over_one_solve(setting: Setting, adjoint: str) -> None:
    def loss() -> Tensor:
        return (solve(setting.field, setting.y0, SHARED, args=setting.scale, adjoint=adjoint).ys ** 2).sum()

    once = torch.autograd.grad(loss(), setting.sources)
    both = torch.autograd.grad(loss() + loss(), setting.sources)
    assert_close(list(both), [2 * g for g in once], 1e-14)
    kept = loss()
    first = torch.autograd.grad(kept, setting.sources, retain_graph=True)
    assert_close(list(torch.autograd.grad(kept, setting.sources)), list(first), 0.0)


@pytest.mark.parametrize("adjoint", ["recompute", "backsolve"])
def test_a_captured_result_of_earlier_computation_is_refused(setting: Setting, adjoint: str) -> None:
    encoded = setting.scale * 2
    with pytest.raises(ValueError, match="pass it through args="):
        solve(lambda t, y: -encoded * y, setting.y0, SHARED, adjoint=adjoint)


@pytest.mark.parametrize("adjoint", ["recompute", "backsolve"])
def test_a_leaf_that_joins_the_field_later_is_refused(setting: Setting, adjoint: str) -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        return -y if float(t.max()) < 1 else -y * setting.offset

    ys = solve(field, setting.y0, SHARED, adjoint=adjoint, coupled=True).ys
    with pytest.raises(RuntimeError, match="did not use at the first time"):
        ys.sum().backward()


def test_weights_changed_between_forward_and_backward_are_refused(setting: Setting) -> None:
    ys = solve(setting.field, setting.y0, SHARED, args=setting.scale, adjoint="recompute").ys
    with torch.no_grad():
        next(setting.net.parameters()).mul_(1.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ys.sum().backward()


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_a_failing_sample_leaves_the_others_gradients_finite_and_untouched(adjoint: str) -> None:
    y0 = torch.tensor([[1.0], [2.0], [0.5]], dtype=DOUBLE, requires_grad=True)
    w = torch.tensor(1.5, dtype=DOUBLE, requires_grad=True)
    poison = torch.tensor([[0.0], [torch.nan], [0.0]], dtype=DOUBLE)

    def sick(t: Tensor, y: Tensor) -> Tensor:
        return -w * y + torch.where(t > 0.5, poison, torch.zeros_like(poison))

    failed = solve(sick, y0, SHARED, adjoint=adjoint, throw=False)
    assert failed.status.tolist() == [0, 3, 0]
    healthy = solve(lambda t, y: -w * y, y0, SHARED, adjoint=adjoint)
    got = torch.autograd.grad(failed.ys[:, [0, 2]].sum(), (y0, w))
    want = torch.autograd.grad(healthy.ys[:, [0, 2]].sum(), (y0, w))
    assert_close(list(got), list(want), 1e-14)


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
@pytest.mark.parametrize("method", methods("sde"))
def test_series_with_ends_of_their_own_have_the_gradient_they_have_alone(method: str, adjoint: str) -> None:
    """The one that ends first takes steps of no length until the other ends."""
    ts = torch.tensor([[0.0, 0.0], [0.5, 0.5], [torch.nan, 1.0]], dtype=DOUBLE)
    w = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    stratonovich = method in ("heun", "reversibleheun", "spark")
    additive = method in ("sra1", "shark")

    def g(t: Tensor, y: Tensor) -> Tensor:
        return (w + 0 * y).unsqueeze(-1) if additive else 0.3 * w * torch.cos(y)

    term = SDETerm(lambda t, y: -w * torch.sin(y), g, noise="additive" if additive else "diagonal",
                   calculus="stratonovich" if stratonovich else "ito")  # fmt: skip

    def gradient(samples: slice) -> Tensor:
        times, seeds = ts[:, samples], sample_seeds(4, 2)[samples]
        y0 = torch.ones(len(seeds), 1, dtype=DOUBLE)
        options: dict[str, Any] = {"method": method, "dt": 0.1, "adjoint": adjoint, "engine": "eager", "batch_dims": 1}
        found = solve(term, y0, times, seed=seeds, **options)
        return torch.autograd.grad((found.ys * found.valid.unsqueeze(-1)).sum(), w)[0]

    alone = gradient(slice(0, 1)) + gradient(slice(1, 2))
    torch.testing.assert_close(gradient(slice(0, 2)), alone, rtol=1e-9, atol=0)


def test_func_transforms_agree_with_autograd() -> None:
    y0 = torch.tensor([[0.4, -0.2], [0.9, 0.1]], dtype=DOUBLE)

    def end(y0: Tensor) -> Tensor:
        return solve(lambda t, y: torch.sin(y) - y**3, y0, [0.0, 1.0], batch_dims=1).ys[-1]

    tracked = y0.clone().requires_grad_()
    (want,) = torch.autograd.grad(end(tracked).sum(), tracked)
    torch.testing.assert_close(torch.func.grad(lambda y: end(y).sum())(y0), want, rtol=1e-14, atol=0)
    jacobian = torch.func.jacrev(end)(y0)
    torch.testing.assert_close(jacobian.sum((0, 1)), want, rtol=1e-13, atol=0)
    tangent = torch.func.jvp(end, (y0,), (torch.ones_like(y0),))[1]
    torch.testing.assert_close(tangent, jacobian.sum((2, 3)), rtol=1e-13, atol=0)
    torch.testing.assert_close(torch.func.jacfwd(end)(y0), jacobian, rtol=1e-13, atol=1e-16)
    with pytest.raises(ValueError, match=r"y0: torch\.func\.vmap cannot pass through a solve"):
        torch.func.vmap(end)(y0.unsqueeze(0))


def test_recompute_keeps_the_activations_of_one_step_and_one_state_a_step(seeded: Seeded) -> None:
    """The bar of the design: peak <= 1.3 (one step's activations + steps x state), counted by the allocator."""
    samples, hidden = 256, 256
    with seeded(0):
        net = nn.Sequential(
            nn.Linear(16, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 16)
        )
        net.to(DOUBLE)
        y0 = torch.randn(samples, 16, dtype=DOUBLE)
        for p in net.parameters():
            p.data.mul_(2.5)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return net(y)

    solution = solve(field, y0, [0.0, 3.0], rtol=1e-7, atol=1e-7, coupled=True, adjoint="recompute")
    steps = int(solution.stats.accepted[0])
    assert steps >= 20
    state = y0.numel() * y0.element_size()
    # Two hidden layers, kept once each, and the stage's state and slope, for each of the seven stages.
    step = 7 * (2 * samples * hidden * y0.element_size() + 2 * state)
    peak = peak_bytes(lambda: solution.ys.sum().backward())
    gradients = sum(p.numel() * p.element_size() for p in net.parameters())
    assert peak - 2 * gradients <= 1.3 * (step + steps * state)


def peak_bytes(work: Callable[[], object]) -> int:
    """The highest rise of allocated CPU memory while `work` runs, from the profiler's record of allocations."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profiler:
        work()
    level = peak = 0
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            level += event.nbytes()  # type: ignore[attr-defined]
            peak = max(peak, level)
    return peak


@pytest.mark.parametrize("options", [{"method": "euler", "dt": 0.1}, {}], ids=["euler", "adaptive"])
@pytest.mark.parametrize("adjoint", ["direct", "recompute", "auto"])
def test_a_solve_that_is_over_keeps_nothing_alive(adjoint: str, options: dict[str, Any], seeded: Seeded) -> None:
    """tanh saves its own output: a graph that held it through Python would never be freed."""
    with seeded(0):
        net = torch.nn.Linear(3, 3)
    made: list[weakref.ref[Tensor]] = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        slope = net(y).tanh()
        made.append(weakref.ref(slope))
        return slope

    for backward in (False, True):
        solution = solve(field, torch.ones(4, 3), [0.0, 1.0], batch_dims=1, adjoint=adjoint, engine="eager", **options)
        if backward:
            solution.ys.sum().backward()
        del solution
        gc.collect()
        assert made and not [reference for reference in made if reference() is not None]


@pytest.mark.usefixtures("traced_only", "forgetful")
@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("origin", ["of the weights", "of another solve", "the argument", "an argument twice"])
def test_with_create_graph_inputs_made_of_one_another_count_once(seeded: Seeded, engine: str, origin: str) -> None:
    with seeded(4):
        w = (torch.randn(3, 3, dtype=DOUBLE) / 2).requires_grad_()
        x = torch.randn(2, 3, dtype=DOUBLE).requires_grad_()

    def ends(y0: Tensor, args: tuple[Tensor, Tensor], engine: str, adjoint: str) -> Tensor:
        def field(t: Tensor, y: Tensor, args: tuple[Tensor, Tensor]) -> Tensor:
            return args[0] * torch.tanh(y @ w) + args[1]

        return solve(field, y0, [0.0, 0.4], args=args, method="euler", dt=0.1, engine=engine, adjoint=adjoint).ys[-1]

    def both(engine: str, adjoint: str) -> list[Tensor]:
        one = torch.ones(3, dtype=DOUBLE)
        y0, args = x, (one, one)
        if origin == "of the weights":
            y0 = torch.sin(x @ w)
        elif origin == "of another solve":
            y0 = ends(x, args, engine, adjoint)
        elif origin == "the argument":
            args = (x, x.sin())
        else:
            args = (w[0], w[0])
        loss = ends(y0, args, engine, adjoint).sin().sum()
        first = torch.autograd.grad(loss, (w, x), create_graph=True)
        return [*first, *torch.autograd.grad(first[0].square().sum() + first[1].square().sum(), (w, x))]

    torch.testing.assert_close(both(engine, "recompute"), both("eager", "direct"), rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("traced_only", "forgetful")
@pytest.mark.parametrize("engine", ["compiled", "auto"])
def test_tangents_of_forward_mode_pass_whatever_was_compiled_before(
    monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setenv("SCIODE_COMPILE", "1")
    monkeypatch.setattr("sciode.solvers.engines.choice._SECONDS", 0.0)
    y0 = torch.ones(2, 1, dtype=DOUBLE)

    def decay(y: Tensor) -> Solution:
        return solve(lambda t, y: -y, y, [0.0, 1.0], method="rk4", dt=0.1, engine=engine)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompileNotice)
        names = [decay(y0).stats.engine for _ in range(4)]
        assert names[-1] == "compiled"
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(y0, torch.ones_like(y0))
            primal, tangent = forward_ad.unpack_dual(decay(dual).ys[-1])
    # The equation is linear: the derivative with respect to y0 = 1 is the solution.
    assert tangent is not None
    torch.testing.assert_close(tangent, primal, rtol=1e-12, atol=0)


@pytest.mark.usefixtures("traced_only", "forgetful")
def test_no_other_thread_traces_while_the_first_memory_is_pulled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # The package exports the function of the same name.
    module = sys.modules["sciode.solvers.adjoints.recompute"]
    inner, entered = module.at_the_outset, []

    def watched(*arguments: Any) -> Any:
        def enter() -> None:
            with alone(torch.device("cpu")):
                entered.append(True)

        other = threading.Thread(target=enter, daemon=True)
        other.start()
        other.join(0.2)
        waits.append(not entered)
        return inner(*arguments)

    waits: list[bool] = []
    monkeypatch.setattr(module, "at_the_outset", watched)
    y0 = torch.ones(2, 1, dtype=DOUBLE).requires_grad_()
    solve(lambda t, y: -y, y0, [0.0, 1.0], engine="compiled", adjoint="direct").ys.sum().backward()
    assert waits == [True]
