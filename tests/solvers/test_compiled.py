"""The compiled engine: the same solve as `eager`, to rounding, whatever is asked of it."""

from __future__ import annotations

import pickle
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sciode
from sciode import PID, Save, SDETerm, Solution, Status, solve
from sciode.solvers.engines import CannotCompile, CompileNotice, choice, compiled, machine, witness
from sciode.solvers.ignition import ignite
from sciode.testing import HOPF, noisy

pytestmark = pytest.mark.usefixtures("forgetful")
TS = torch.linspace(0.0, 2.0, 7, dtype=torch.float64)
ADAPTIVE = [name for name, info in sciode.methods("ode").items() if info.adaptive]


class Net(nn.Module):
    """A small vector field."""

    def __init__(self, size: int = 3, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.w = nn.Parameter(torch.randn(size, size, generator=draw, dtype=torch.float64))
        self.b = nn.Parameter(torch.randn(size, generator=draw, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor, gain: Tensor | None = None) -> Tensor:
        """tanh(y W + b sin t), times a gain."""
        f = torch.tanh(y @ self.w + self.b * torch.sin(t))
        return f if gain is None else f * gain


def start(batch: int = 5, size: int = 3) -> Tensor:
    return torch.randn(batch, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def assert_same(ours: Solution, eager: Solution) -> None:
    assert (ours.stats.engine, eager.stats.engine) == ("compiled", "eager")
    torch.testing.assert_close(ours.ys, eager.ys, rtol=1e-9, atol=1e-11)
    for name in ("valid", "status"):
        assert torch.equal(getattr(ours, name), getattr(eager, name)), name
    for name in ("nfe", "accepted", "rejected"):
        assert torch.equal(getattr(ours.stats, name), getattr(eager.stats, name)), name
    for name, penalty in eager.penalties.items():
        torch.testing.assert_close(ours.penalties[name], penalty, rtol=1e-6, atol=1e-9)


def both(*arguments: Any, **options: Any) -> tuple[Solution, Solution]:
    return solve(*arguments, engine="compiled", **options), solve(*arguments, engine="eager", **options)


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("name", sorted(sciode.methods("ode")))
def test_every_ode_method_gives_what_eager_gives(name: str) -> None:
    how: Any = {} if name in ADAPTIVE else {"dt": 0.13, "batch_dims": 1}
    assert_same(*both(HOPF.field, HOPF.y0, TS, method=name, **how))


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("name", sorted(sciode.methods("sde")))
@pytest.mark.parametrize("noise", ["diagonal", "general"])
def test_every_sde_method_walks_the_path_that_eager_walks(name: str, noise: Any) -> None:
    term = noisy(name, lambda t, y: -y, noise)
    assert_same(*both(term, start(), TS, method=name, dt=0.13, seed=3))


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize(
    "how",
    [
        {"coupled": True},
        {"controller": PID(pcoeff=0.3, icoeff=0.4, dcoeff=0.1)},
        {"controller": PID(dtmin=0.05, force_dtmin=True, dtmax=0.2)},
        {"regularize": ("error", "stiffness")},
        {"save": Save(fn=lambda t, y: y.square().sum(-1))},
        {"dt": 0.3, "method": "rk4"},
        {"max_steps": 3, "throw": False},
    ],
    ids=lambda how: next(iter(how)),
)
def test_every_switch_does_what_it_does_to_eager(how: dict[str, Any]) -> None:
    assert_same(*both(Net(), start(), TS, **how))


@pytest.mark.usefixtures("traced_only")
def test_time_runs_backward_and_samples_have_times_of_their_own() -> None:
    own = torch.stack((TS, 2 * TS, 0.5 * TS, TS + 1, TS), 1)
    own[5:, 1] = torch.nan
    assert_same(*both(Net(), start(), TS.flip(0)))
    assert_same(*both(Net(), start(), own))


@pytest.mark.usefixtures("traced_only")
def test_nested_states_and_arguments_come_through() -> None:
    def field(t: Tensor, y: Any, args: Any) -> Any:
        return {"x": y["v"], "v": -args["k"] * y["x"] - args["c"][0] * y["v"]}

    y0 = {"x": start(4, 2), "v": start(4, 2)}
    args = {"k": torch.full((4, 1), 2.0, dtype=torch.float64), "c": [0.3]}
    ours, eager = both(field, y0, TS, args=args)
    assert torch.equal(ours.stats.accepted, eager.stats.accepted)
    torch.testing.assert_close(ours.ys, eager.ys, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("traced_only")
def test_a_step_that_passes_more_outputs_than_a_turn_can_write_is_taken_once() -> None:
    ts = torch.linspace(0.0, 2.0, 301, dtype=torch.float64)
    ours, eager = both(Net(), start(), ts, rtol=1e-3, atol=1e-3)
    assert_same(ours, eager)
    assert int(eager.stats.accepted.max()) < 20


@pytest.mark.usefixtures("traced_only")
def test_a_sample_that_fails_half_way_leaves_the_others_alone() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.where((t > 1) & (y[:, :1] > 5), torch.nan, -y)

    y0 = torch.full((3, 2), 1.0, dtype=torch.float64)
    y0[1] = 100.0
    ours, eager = both(field, y0, TS, throw=False)
    assert_same(ours, eager)
    assert ours.status.tolist() == [0, int(Status.NONFINITE), 0]


@pytest.mark.usefixtures("traced_only")
def test_a_resumed_solve_is_the_uninterrupted_one() -> None:
    with torch.no_grad():
        whole = solve(Net(), start(), TS, engine="compiled")
        half = solve(Net(), start(), TS[:4], engine="compiled")
        rest = solve(Net(), None, TS[3:], engine="compiled", resume=half)
    torch.testing.assert_close(rest.ys[1:], whole.ys[4:], rtol=1e-12, atol=1e-13)


GRADIENTS = {
    "tsit5": {"method": "tsit5"},
    "vern7": {"method": "vern7", "rtol": 1e-8, "atol": 1e-8},
    "coupled": {"coupled": True},
    "rk4": {"method": "rk4", "dt": 0.15},
    "regularized": {"regularize": ("error", "stiffness")},
    "backward": {"ts": TS.flip(0)},
    "dense output": {"ts": torch.linspace(0, 2, 101, dtype=torch.float64), "rtol": 1e-3},
}


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("case", GRADIENTS)
def test_gradients_are_those_of_the_tape(case: str) -> None:
    how = {"ts": TS, **GRADIENTS[case]}
    net, gain = Net(), torch.linspace(0.5, 1.5, 5, dtype=torch.float64).unsqueeze(-1).requires_grad_()
    y0 = start().requires_grad_()

    def gradient(**options: Any) -> tuple[Tensor, ...]:
        # The gain is not a leaf: it reaches the field through args.
        solution = solve(net, y0, args=gain * 2, **how, **options)
        loss = solution.ys.square().mean() + sum(p.mean() for p in solution.penalties.values())
        return torch.autograd.grad(loss, (y0, gain, *net.parameters()))

    ours, exact = gradient(engine="compiled"), gradient(engine="eager", adjoint="direct")
    for a, b in zip(ours, exact, strict=True):
        # Penalties subtract nearly equal stages, so rounding weighs more there.
        loose = 100 if case == "regularized" else 1
        torch.testing.assert_close(a, b, rtol=loose * 1e-10, atol=loose * 1e-12)


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("method", ["heun", "milstein", "reversibleheun"])
def test_sde_gradients_are_those_of_the_tape(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Noise drawn in several stretches, as in a solve too long for one.
    monkeypatch.setattr(compiled, "BLOCK_BYTES", 0)
    net, y0 = Net(), start().requires_grad_()
    term = SDETerm(net, lambda t, y: 0.3 * torch.cos(y * net.b), calculus="stratonovich")

    def gradient(**options: Any) -> tuple[Tensor, ...]:
        solution = solve(term, y0, TS, method=method, dt=0.017, seed=1, **options)
        return torch.autograd.grad(solution.ys.square().mean(), (y0, *net.parameters()))

    ours, exact = gradient(engine="compiled"), gradient(engine="eager", adjoint="direct")
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("traced_only")
def test_gradients_can_be_differentiated_again() -> None:
    net = Net()
    y0 = start().requires_grad_()

    def curvature(**options: Any) -> Tensor:
        loss = solve(net, y0, TS, **options).ys.square().mean()
        (slope,) = torch.autograd.grad(loss, y0, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), net.w)[0]

    ours, exact = curvature(engine="compiled"), curvature(engine="eager", adjoint="direct")
    torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("traced_only")
def test_two_solves_before_one_backward_and_two_backwards_after_one_solve() -> None:
    net, y0 = Net(), start()
    first, second = (solve(net, y0 * scale, TS, engine="compiled").ys.square().mean() for scale in (1.0, 2.0))
    (together,) = torch.autograd.grad(first + second, net.w, retain_graph=True)
    apart = [torch.autograd.grad(loss, net.w, retain_graph=True)[0] for loss in (first, second)]
    again = torch.autograd.grad(first, net.w)[0]
    torch.testing.assert_close(together, apart[0] + apart[1], rtol=1e-12, atol=1e-14)
    assert torch.equal(again, apart[0])


@pytest.mark.usefixtures("traced_only")
def test_a_field_is_traced_once_for_each_shape_however_often_it_is_made_again() -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    seen = []
    for step in range(12):
        batch = 5 if step % 4 < 3 else 2
        target = torch.full((batch, 3), 0.1 * step, dtype=torch.float64)
        solution = solve(lambda t, y, goal=target: net(t, y) + goal, start(batch), TS, engine="compiled")
        expected = solve(lambda t, y, goal=target: net(t, y) + goal, start(batch), TS, engine="eager")
        torch.testing.assert_close(solution.ys, expected.ys, rtol=1e-9, atol=1e-11)
        optimizer.zero_grad()
        solution.ys.square().mean().backward()
        optimizer.step()
        if step == 6:
            net.load_state_dict(Net(seed=5).state_dict())
        if step == 8:
            net.load_state_dict(Net(seed=6).state_dict(), assign=True)
            optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
        seen.append(sum(lift.traces for lift in witness._lifts.values()))
    # Two batch sizes, and for each the field as a witness, the start, the turn, and the step back.
    assert seen[3:] == [8] * 9


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize(
    ("field", "culprit"),
    [
        (lambda t, y: -y * float(y.sum() > -1e9), "looks at a value"),
        (lambda t, y: -nn.functional.dropout(y, 0.5, training=True), "random"),
        (nn.Sequential(nn.BatchNorm1d(3)).double(), "batch statistics|positional"),
    ],
    ids=["item", "dropout", "batchnorm"],
)
def test_what_cannot_be_compiled_is_named_once_and_solved_all_the_same(field: Any, culprit: str) -> None:
    def called(t: Tensor, y: Tensor) -> Tensor:
        return field(y) if isinstance(field, nn.Module) else field(t, y)

    with torch.random.fork_rng(), pytest.warns(CompileNotice, match=culprit):
        solution = solve(called, start(), TS, dt=0.5, method="rk4", engine="compiled", batch_dims=1)
    assert solution.stats.engine == "eager" and bool((solution.status == 0).all())
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("error", CompileNotice)
        assert solve(called, start(), TS, dt=0.5, method="rk4", engine="compiled", batch_dims=1).stats.engine == "eager"


@pytest.mark.usefixtures("traced_only")
def test_what_one_solve_asks_too_much_is_not_held_against_the_next() -> None:
    def engine(**options: Any) -> str:
        return solve(Net(), start().requires_grad_(), TS, **options).stats.engine

    assert engine(engine="compiled", adjoint="direct") == "compiled"
    with pytest.warns(CompileNotice, match="state is on cpu"):
        assert engine(engine="graph") == "eager"
    assert engine(engine="compiled") == "compiled"


@pytest.mark.usefixtures("traced_only")
def test_auto_compiles_what_repeats_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def engines(count: int) -> list[str]:
        return [solve(Net(), start(), TS).stats.engine for _ in range(count)]

    assert engines(5) == ["eager"] * 5  # SCIODE_COMPILE=0 in the tests
    choice._past.clear()
    monkeypatch.setenv("SCIODE_COMPILE", "1")
    monkeypatch.setattr(choice, "_SECONDS", 0.0)
    assert engines(3) == ["eager"] * 3
    with pytest.warns(CompileNotice, match="compiled now"):
        assert engines(1) == ["compiled"]
    assert engines(2) == ["compiled"] * 2


@pytest.mark.usefixtures("traced_only")
def test_auto_leaves_alone_what_cannot_be_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    table = torch.linspace(0.5, 1.0, 8, dtype=torch.float64)

    def looked_up(t: Tensor, y: Tensor) -> Tensor:
        return -table[min(round(float(t.max())), 7)] * y

    monkeypatch.setenv("SCIODE_COMPILE", "1")
    monkeypatch.setattr(choice, "_SECONDS", 0.0)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", CompileNotice)
        engines = [solve(looked_up, start(), TS, coupled=True).stats.engine for _ in range(7)]
    assert engines == ["eager"] * 7
    assert sum("cannot run this field" in str(notice.message) for notice in heard) == 1


def test_a_loop_in_cpp_is_the_loop_in_python() -> None:
    net, y0 = Net(), start().requires_grad_()

    def gradient(**options: Any) -> tuple[Tensor, ...]:
        # Coarse steps: their sizes follow the error estimate, a difference known to eps |y| / error.
        solution = solve(net, y0, TS, regularize="error", rtol=1e-3, atol=1e-3, **options)
        loss = solution.ys.square().mean() + solution.penalties["error"].mean()
        return solution.ys, *torch.autograd.grad(loss, (y0, *net.parameters()))

    for a, b in zip(gradient(engine="compiled"), gradient(engine="eager", adjoint="direct"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    term = SDETerm(lambda t, y: -y, lambda t, y: 0.3 * y)
    assert_same(*both(term, start(), TS, dt=0.07, seed=2))


def test_where_a_loop_cannot_be_compiled_the_turn_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(once: Any, first: Any) -> Any:
        def repeat(others: list[Tensor], state: list[Tensor] | None, nth: int, turns: int | None) -> Any:
            raise CannotCompile("no loops here")

        return repeat

    monkeypatch.setattr(machine, "in_one_loop", refuse)
    net = Net()
    for scale in (1.0, 0.5, 2.0):
        # Whatever way the weights change, the buffers of the compiled turn hold what they are now.
        net.w.data.mul_(scale)
        assert_same(*both(net, scale * start(), TS, method="bosh3"))


class Teacher(nn.Module):
    """A field with a part that is not differentiated: its own `no_grad` block, and a frozen network in it."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = Net(), Net(seed=7)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The student's slope, scaled by its own norm, plus the teacher's."""
        f = self.student(t, y)
        with torch.no_grad():
            size, target = f.norm(dim=1, keepdim=True), self.teacher(t, y)
        return f * size + target * torch.sin(y)


@pytest.mark.usefixtures("traced_only")
def test_a_fields_own_no_grad_block_ends_where_it_ends() -> None:
    field, y0 = Teacher(), start().requires_grad_()

    def gradient(**options: Any) -> tuple[Tensor, ...]:
        loss = solve(field, y0, TS, method="rk4", dt=0.25, **options).ys.square().mean()
        return torch.autograd.grad(loss, (y0, *field.student.parameters()))

    ours, exact = gradient(engine="compiled"), gradient(engine="eager", adjoint="direct")
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("traced_only")
def test_what_only_a_no_grad_block_reads_asks_for_no_gradient() -> None:
    teacher, encoded = Net(), (torch.ones(3, dtype=torch.float64, requires_grad=True) * 2).sin()

    def field(t: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            return teacher(t, y) * encoded

    # The first solve looks at an evaluation, the later ones at what an evaluation would read.
    for _ in range(3):
        solution = solve(field, start(), TS, engine="compiled")
        assert solution.stats.engine == "compiled" and not solution.ys.requires_grad


@pytest.mark.usefixtures("traced_only")
def test_a_solution_holds_none_of_what_was_compiled_for_it() -> None:
    net = Net()
    for _ in range(2):
        solution = solve(net, start(), TS, engine="compiled")
        assert solution.stats.engine == "compiled" and b"achine" not in pickle.dumps(solution)


@pytest.mark.usefixtures("traced_only")
def test_a_start_that_looked_well_goes_on_from_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def suspicious(problem: Any, plan: Any, y: Tensor) -> Any:
        loop = ignite(problem, plan, y)
        return loop._replace(word=torch.zeros_like(loop.word))

    monkeypatch.setattr(machine, "ignite", suspicious)
    for _ in range(2):
        assert_same(*both(Net(), start(), TS))


class Counting(Net):
    """A field that keeps a tensor in Python."""

    calls = torch.zeros(())

    def forward(self, t: Tensor, y: Tensor, gain: Tensor | None = None) -> Tensor:
        """The net, counted."""
        self.calls = self.calls + 1
        return super().forward(t, y, gain)


@pytest.mark.usefixtures("traced_only")
def test_a_field_that_keeps_tensors_is_refused_and_its_tensors_are_left_alone() -> None:
    field = Counting()
    with pytest.warns(CompileNotice, match="keeps a tensor in Python"):
        solution = solve(field, start(), TS, engine="compiled")
    assert solution.stats.engine == "eager" and field.calls.shape == () and float(field.calls) > 10


@pytest.mark.usefixtures("traced_only")
def test_a_solve_in_inference_mode_does_not_spoil_the_next(unspoilt: Any) -> None:
    unspoilt(Net(), start(), TS)


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("adjoint", ["recompute", "direct"])
def test_a_solve_like_the_last_one_begins_without_a_look(
    adjoint: str, seeded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with seeded(0):
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()

    def gradients() -> tuple[Tensor, ...]:
        ys = solve(lambda t, y: net(y), start(), TS, engine="compiled", adjoint=adjoint).ys
        return torch.autograd.grad(ys.square().mean(), list(net.parameters()))

    expected = gradients()
    monkeypatch.setattr(sys.modules["sciode.solvers.solve"], "begin", None)
    for a, b in zip(gradients(), expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.usefixtures("traced_only")
def test_a_solve_whose_start_has_to_be_looked_at_is_looked_at() -> None:
    def root(t: Tensor, y: Tensor) -> Tensor:
        return torch.sqrt(1 - y) - y

    def solved(y0: Tensor) -> tuple[Solution, Solution]:
        return both(root, y0, TS, throw=False)

    fine, strange = torch.full((3, 2), 0.5).double(), torch.tensor([[0.5], [2.0], [0.5]]).double().repeat(1, 2)
    for y0 in (fine, fine, strange, fine):
        ours, eager = solved(y0)
        assert_same(ours, eager)
        assert torch.equal(ours.status, eager.status) and ours.stats.engine == "compiled"
    with pytest.raises(ValueError, match="contains NaN"):
        solved(fine * torch.nan)


@pytest.mark.usefixtures("traced_only")
def test_a_sample_held_back_by_its_outputs_keeps_its_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "BLOCK_BYTES", 0)
    steady = torch.linspace(0.0, 2.0, 60, dtype=torch.float64)
    crowded = torch.cat((torch.zeros(1), torch.linspace(0.01, 0.04, 58), torch.tensor([2.0]))).double()
    own = torch.stack((crowded, steady, steady), 1)
    term = SDETerm(lambda t, y: -y, lambda t, y: 0.3 + 0.1 * y)
    assert_same(*both(term, start(3), own, dt=0.05, seed=4))


def test_what_torch_deprecates_in_its_own_compiler_is_no_error_where_warnings_are() -> None:
    weight = start(3, 3)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return -y * torch.diagonal(torch.matmul(weight, weight.mT))

    assert_same(*both(field, start(), TS))
