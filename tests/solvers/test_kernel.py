"""The kernel engine, through Triton's interpreter: the solve of `eager`, to rounding, on fields it has not seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sciode
from sciode import PID, Save, SDETerm, Solution, Status, solve
from sciode.solvers.begin import Wish, begin, lay_out
from sciode.solvers.engines import CompileNotice, kernel
from sciode.solvers.engines.kernel import launch as kernel_launch
from sciode.solvers.proceed import onward
from sciode.solvers.terms import as_term
from sciode.testing import HOPF

pytest.importorskip("triton", reason="the kernel engine writes Triton")

pytestmark = [
    pytest.mark.usefixtures("forgetful"),
    # Falling back unasked is a failure.
    pytest.mark.filterwarnings("error::sciode.solvers.engines.CompileNotice"),
]
TS = torch.linspace(0.0, 2.0, 7, dtype=torch.float64)
METHODS = sciode.methods("ode")


def uniform(*shape: int, low: float = 0.0, high: float = 1.0, seed: int = 0) -> Tensor:
    draw = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * draw


def lotka_volterra(t: Tensor, y: Tensor) -> Tensor:
    prey, predator = y.unbind(-1)
    return torch.stack((prey * (1.1 - 0.4 * predator), predator * (0.1 * prey - 0.4)), -1)


def lorenz(t: Tensor, y: Tensor) -> Tensor:
    x, z = y[..., 0:1], y[..., 2:]
    return torch.cat((10 * (y[..., 1:2] - x), x * (28 - z) - y[..., 1:2], x * y[..., 1:2] - 8 / 3 * z), dim=-1)


def fitzhugh_nagumo(t: Tensor, y: Tensor) -> Tensor:
    dy = torch.zeros_like(y)
    dy[:, 0] = y[:, 0] - y[:, 0] ** 3 / 3 - y[:, 1] + 0.5 * torch.cos(t[:, 0]).clamp(min=0)
    dy[:, 1] = 0.08 * (y[:, 0] + 0.7 - 0.8 * y[:, 1])
    return dy


def three_bodies(t: Tensor, y: Tensor, mass: Tensor) -> Tensor:
    place, speed = y.reshape(-1, 2, 3, 2).unbind(1)
    apart = place.unsqueeze(1) - place.unsqueeze(2)
    distance = (apart.square().sum(-1) + torch.eye(3, dtype=y.dtype)).sqrt()
    pull = (mass.reshape(1, 1, 3, 1) * apart / distance.unsqueeze(-1) ** 3).sum(2)
    return torch.stack((speed, pull), 1).flatten(1)


def van_der_pol(t: Tensor, y: Tensor, mu: Tensor) -> Tensor:
    return torch.stack((y[:, 1], mu * (1 - y[:, 0].square()) * y[:, 1] - y[:, 0]), 1)


class Net(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(uniform(8, 2, low=-1, seed=2))
        self.b = nn.Parameter(uniform(8, low=-1, seed=3))
        self.v = nn.Parameter(uniform(2, 8, low=-1, seed=4))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """A tanh network that knows the time."""
        return F.linear(torch.tanh(F.linear(y, self.w, self.b) + torch.sin(t)), self.v)


BODIES = torch.tensor([[1.0, 0, -0.5, 0.8, -0.5, -0.8, 0, 0.5, -0.4, -0.3, 0.4, -0.2]], dtype=torch.float64)
UNSEEN: dict[str, tuple[Any, Tensor, Any]] = {
    "Lotka-Volterra": (lotka_volterra, uniform(4, 2, low=1, high=6), None),
    # As many samples as components: nothing about the shapes tells which axis is the batch.
    "Lorenz": (lorenz, uniform(3, 3, low=-5, high=5), None),
    "FitzHugh-Nagumo": (fitzhugh_nagumo, uniform(4, 2, low=-1), None),
    "three bodies": (three_bodies, BODIES + 0.1 * uniform(4, 12), torch.tensor([1.0, 0.8, 1.2], dtype=torch.float64)),
    "van der Pol": (van_der_pol, uniform(4, 2, low=1, high=2), torch.tensor([0.5, 1.0, 3.0, 6.0], dtype=torch.float64)),
    "two layers": (Net(), uniform(4, 2, low=-1), None),
}


def assert_same(ours: Solution, eager: Solution, rtol: float = 1e-9, atol: float = 1e-10) -> None:
    assert (ours.stats.engine, eager.stats.engine) == ("kernel", "eager")
    torch.testing.assert_close(ours.ys, eager.ys, rtol=rtol, atol=atol)
    for name in ("valid", "status"):
        assert torch.equal(getattr(ours, name), getattr(eager, name)), name
    for name in ("nfe", "accepted", "rejected"):
        assert torch.equal(getattr(ours.stats, name), getattr(eager.stats, name)), name


def both(*arguments: Any, **options: Any) -> tuple[Solution, Solution]:
    with torch.no_grad():
        return solve(*arguments, engine="kernel", **options), solve(*arguments, engine="eager", **options)


@pytest.mark.parametrize("case", UNSEEN)
def test_unseen_fields_give_what_eager_gives(case: str) -> None:
    field, y0, args = UNSEEN[case]
    assert_same(*both(field, y0, TS, args=args, rtol=1e-6, atol=1e-8))


@pytest.mark.parametrize("name", sorted(METHODS))
@pytest.mark.parametrize("fixed", [False, True], ids=["adaptive", "fixed"])
def test_every_method_gives_what_eager_gives(name: str, fixed: bool) -> None:
    if not fixed and not METHODS[name].adaptive:
        pytest.skip("the table has no error estimate")
    how: Any = {"dt": 0.13} if fixed else {}
    assert_same(*both(lotka_volterra, uniform(3, 2, low=1, high=6), TS, method=name, **how))


@pytest.mark.parametrize(
    "how",
    [
        {"ts": TS.flip(0)},
        {"controller": PID(pcoeff=0.3, icoeff=0.4, dcoeff=0.1)},
        {"controller": PID(pcoeff=0.2)},
        {"controller": PID(dtmin=0.05, force_dtmin=True, dtmax=0.2)},
        {"controller": PID(dtmin=0.1), "throw": False},
        {"rtol": torch.tensor([1e-3, 1e-6], dtype=torch.float64)},
        {"max_steps": 3, "throw": False},
        {"dt": 0.15, "method": "rk4", "max_steps": 3, "throw": False},
        {"dt": 0.15, "method": "rk4", "ts": TS.flip(0)},
        {"ts": torch.linspace(0, 2, 41, dtype=torch.float64), "rtol": 1e-3},
        {"save": Save(state=False)},
        {"save": Save(fn=lambda t, y: y.square().sum(-1))},
    ],
    ids=lambda how: " ".join(how),
)
def test_every_switch_does_what_it_does_to_eager(how: dict[str, Any]) -> None:
    how = {"ts": TS, **how}
    assert_same(*both(lotka_volterra, uniform(3, 2, low=1, high=6), how.pop("ts"), **how))


def test_samples_have_times_of_their_own() -> None:
    own = torch.stack((TS, 2 * TS, TS + 1), 1)
    own[5:, 1] = torch.nan
    assert_same(*both(Net(), uniform(3, 2), own))


def test_a_single_sample_and_a_state_without_a_batch_are_solved() -> None:
    assert_same(*both(HOPF.field, HOPF.y0[:1], TS))
    assert_same(*both(lorenz, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), TS / 4))


def test_nested_states_come_through() -> None:
    def field(t: Tensor, y: Any, args: Any) -> Any:
        return {"x": y["v"], "v": -args["k"] * y["x"] - args["c"][0] * y["v"]}

    y0 = {"x": uniform(4, 2), "v": uniform(4, 2, seed=1)}
    args = {"k": uniform(4, 1, low=1, high=3), "c": [0.3]}
    ours, eager = both(field, y0, TS, args=args)
    assert ours.stats.engine == "kernel"
    assert torch.equal(ours.stats.accepted, eager.stats.accepted)
    torch.testing.assert_close(ours.ys, eager.ys, rtol=1e-9, atol=1e-11)


def test_single_precision_is_solved_in_single_precision() -> None:
    ours, eager = both(lotka_volterra, uniform(3, 2, low=1, high=6).float(), TS, rtol=1e-4)
    assert ours.ys.dtype == torch.float32
    assert_same(ours, eager, rtol=1e-4, atol=1e-4)


def test_a_sample_that_fails_half_way_leaves_the_others_alone() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.where((t > 1) & (y[:, :1] > 5), torch.nan, -y)

    y0 = torch.full((3, 2), 1.0, dtype=torch.float64)
    y0[1] = 100.0
    ours, eager = both(field, y0, TS, throw=False)
    # The failing sample halves its way to the jump: how often, is a matter of the last bit.
    torch.testing.assert_close(ours.ys, eager.ys, rtol=1e-9, atol=1e-10)
    assert torch.equal(ours.stats.nfe[::2], eager.stats.nfe[::2]) and torch.equal(ours.valid, eager.valid)
    assert ours.status.tolist() == eager.status.tolist() == [0, int(Status.NONFINITE), 0]
    assert_same(*both(field, y0, TS, throw=False, method="rk4", dt=0.1))


def test_a_resumed_solve_is_the_uninterrupted_one() -> None:
    with torch.no_grad():
        whole = solve(Net(), uniform(3, 2), TS, engine="kernel")
        half = solve(Net(), uniform(3, 2), TS[:4], engine="kernel")
        rest = solve(Net(), None, TS[3:], engine="kernel", resume=half)
    torch.testing.assert_close(rest.ys[1:], whole.ys[4:], rtol=1e-12, atol=1e-13)


def test_a_solve_resumes_from_before_a_step_that_its_end_cut_and_that_was_rejected() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        return -y + 50 * torch.exp(-((t - 0.98) ** 2) * 4000)

    ours, eager = both(field, uniform(3, 2), torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=1e-7)
    assert ours.state is not None and eager.state is not None
    assert bool((onward(eager.state).t < eager.state.carry.t).any())
    for a, b in zip(onward(ours.state)[:5], onward(eager.state)[:5], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


SDES = [
    ("euler", "ito", "diagonal"),
    ("euler", "ito", "general"),
    ("heun", "stratonovich", "diagonal"),
    ("heun", "stratonovich", "scalar"),
    ("milstein", "ito", "diagonal"),
    ("milstein", "stratonovich", "scalar"),
    ("reversibleheun", "stratonovich", "diagonal"),
    ("reversibleheun", "stratonovich", "general"),
]


def sde(calculus: Any, noise: Any) -> SDETerm:
    channels = {"diagonal": 0, "scalar": 1, "general": 2}[noise]

    def diffusion(t: Tensor, y: Tensor) -> Tensor:
        if not channels:
            return 0.3 * torch.cos(y + t)
        return 0.3 * torch.stack([torch.cos(y + i) for i in range(channels)], -1)

    return SDETerm(lambda t, y: -y, diffusion, noise=noise, calculus=calculus)


@pytest.mark.parametrize(("method", "calculus", "noise"), SDES)
def test_every_sde_method_walks_the_path_that_eager_walks(method: str, calculus: str, noise: str) -> None:
    term = sde(calculus, noise)
    # Five components take two blocks of the hash; 0.13 does not divide the interval, so the last cell is cut.
    assert_same(*both(term, uniform(3, 5), TS, method=method, dt=0.13, seed=3), rtol=1e-6, atol=1e-8)


def test_noise_runs_backward_and_may_be_given() -> None:
    term = sde("ito", "diagonal")
    assert_same(*both(term, uniform(3, 2), TS.flip(0), dt=0.25, seed=3))
    given = uniform(8, 3, 2, low=-0.5, high=0.5)
    assert_same(*both(term, uniform(3, 2), TS, dt=0.25, noise=given))


GRADIENTS: dict[str, dict[str, Any]] = {
    "tsit5": {},
    "backward": {"ts": TS.flip(0)},
    "vern7": {"method": "vern7", "rtol": 1e-8, "atol": 1e-8},
    "rk4": {"method": "rk4", "dt": 0.15},
    # More outputs in a step than a row of the tape can note.
    "dense output": {"ts": torch.linspace(0, 2, 41, dtype=torch.float64), "rtol": 1e-3},
}


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("case", GRADIENTS)
def test_gradients_are_those_of_the_tape(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Fewer rows than any solve needs: the launch is repeated with as many as it asked for.
    monkeypatch.setattr(kernel_launch, "FIRST_ROWS", 2)
    how = {"ts": TS, **GRADIENTS[case]}
    net, gain = Net(), uniform(4, 1, low=0.5, high=1.5).requires_grad_()
    y0 = uniform(4, 2, low=-1).requires_grad_()

    def field(t: Tensor, y: Tensor, args: Tensor) -> Tensor:
        return net(t, y) * args

    def gradient(**options: Any) -> tuple[Tensor, ...]:
        solution = solve(field, y0, args=gain * 2, **how, **options)
        assert solution.stats.engine == options["engine"]
        return torch.autograd.grad(solution.ys.square().mean(), (y0, gain, *net.parameters()))

    ours, exact = gradient(engine="kernel"), gradient(engine="eager", adjoint="direct")
    for a, b in zip(ours, exact, strict=True):
        # Step sizes follow an error estimate that rounding moves by eps |y| / error, some 1e-10 of it, on each machine
        # otherwise (4e-9 seen in a small component of a gradient).
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("method", ["heun", "milstein", "reversibleheun"])
def test_gradients_of_sde_paths_are_those_of_the_tape(method: str) -> None:
    net = Net()
    term = SDETerm(net, lambda t, y: 0.3 * torch.cos(y), calculus="stratonovich")
    y0 = uniform(4, 2).requires_grad_()

    def gradient(**options: Any) -> tuple[Tensor, ...]:
        solution = solve(term, y0, TS, method=method, dt=0.13, seed=1, **options)
        assert solution.stats.engine == options["engine"]
        return torch.autograd.grad(solution.ys.square().mean(), (y0, *net.parameters()))

    ours, exact = gradient(engine="kernel"), gradient(engine="eager", adjoint="direct")
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("traced_only")
def test_gradients_of_a_longer_path_are_not_those_of_a_shorter_one_solved_before() -> None:
    weight = uniform(2, low=0.2).requires_grad_()
    term = SDETerm(lambda t, y: torch.tanh(weight * y), lambda t, y: 0.3 * torch.cos(y), calculus="stratonovich")
    y0 = uniform(3, 2, low=-1).requires_grad_()

    def gradient(end: float, **options: Any) -> tuple[Tensor, ...]:
        ts = torch.tensor([0.0, end / 2, end], dtype=torch.float64)
        solution = solve(term, y0, ts, method="heun", dt=0.125, seed=1, **options)
        assert solution.stats.engine == options["engine"]
        return torch.autograd.grad(solution.ys.square().mean(), (y0, weight))

    # One kernel serves them all; how many increments are drawn for the way back differs.
    for end in (0.25, 2.0, 0.5):
        ours, exact = gradient(end, engine="kernel"), gradient(end, engine="eager", adjoint="direct")
        torch.testing.assert_close(ours, exact, rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("engine", ["kernel", "compiled"])
def test_arguments_keep_their_place_among_others_that_the_field_does_not_read(engine: Any) -> None:
    def field(t: Tensor, y: Tensor, args: Any) -> Tensor:
        return torch.tanh(args["gain"] * y) - args["decay"] * y

    read = {"gain": uniform(2, seed=1), "decay": uniform(2, seed=2)}
    unread: Any = {"more": uniform(2, low=5, high=9, seed=3)}
    y0 = uniform(3, 2, low=-1, seed=4)

    def solved(args: Any, engine: Any) -> tuple[Tensor, ...]:
        leaves = {name: x.clone().requires_grad_() for name, x in args.items()}
        solution = solve(field, y0, TS[:2], args=leaves, method="midpoint", dt=0.1, engine=engine)
        assert solution.stats.engine == engine
        wanted = [leaves["gain"], leaves["decay"]]
        return solution.ys.detach(), *torch.autograd.grad(solution.ys.square().mean(), wanted)

    for args in (read | unread, unread | read):
        torch.testing.assert_close(solved(args, engine), solved(args, "eager"), rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("engine", ["kernel", "compiled"])
def test_weights_that_become_one_tensor_get_the_gradients_of_both(engine: Any) -> None:
    one, other = (nn.Parameter(uniform(2, 2, low=-1, seed=seed)) for seed in (5, 6))

    class Twice(nn.Module):
        """A layer after another."""

        def __init__(self, first: nn.Parameter, second: nn.Parameter) -> None:
            super().__init__()
            self.first, self.second = first, second

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            """Two layers."""
            return torch.tanh(y @ self.first) @ self.second

    def gradient(net: nn.Module, engine: Any, adjoint: Any) -> tuple[Tensor, ...]:
        how: Any = {"method": "midpoint", "dt": 0.1, "engine": engine, "adjoint": adjoint}
        solution = solve(net, uniform(3, 2, low=-1), TS[:2], batch_dims=1, **how)
        assert solution.stats.engine == engine
        return torch.autograd.grad(solution.ys.square().mean(), list(net.parameters()))

    for net in (Twice(one, other), Twice(one, one)):
        ours, exact = gradient(net, engine, "recompute"), gradient(net, "eager", "direct")
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-11)


def test_whole_numbers_wrap_around_where_their_dtype_does() -> None:
    def field(t: Tensor, y: Tensor, args: Any) -> Tensor:
        small, half = args
        # A sum is an int64 in torch, a product is not.
        return y + small.sum(-1, keepdim=True) / 1e9 + small.long() * 1e-9 + (small * small) / 1e9 + half.float()

    half = torch.tensor([0.3, 1.7], dtype=torch.bfloat16)
    for small in (torch.full((3, 2), 2**31 - 9, dtype=torch.int32), torch.full((3, 2), 101, dtype=torch.uint8)):
        assert_same(*both(field, uniform(3, 2), TS[:3], args=(small, half), method="rk4", dt=0.2))


def test_remainders_have_the_sign_of_the_divisor_and_stay_below_it() -> None:
    def field(t: Tensor, y: Tensor, period: Tensor) -> Tensor:
        inside = torch.log(period - torch.remainder(0.3 * torch.floor(10 * y), period))
        return inside + torch.remainder(y, -0.7) + torch.fmod(y, 0.4) + torch.remainder(y, torch.inf).clamp(max=2)

    # Multiples of 0.3 are, but for rounding, those of 0.1: a quotient that rounds up would leave less than nothing.
    period = torch.tensor(0.1, dtype=torch.float64)
    assert_same(*both(field, uniform(4, 3, low=-2, high=2), TS[:3], args=period, method="euler", dt=0.2))


def test_powers_of_negative_numbers_and_of_zero_are_those_of_torch() -> None:
    def field(t: Tensor, y: Tensor, args: Tensor) -> Tensor:
        return 0.1 * (torch.cos(y**9) + torch.sin(y**10) + torch.sin(y**args) + (0 * y) ** (args - 2))

    exponents = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)
    assert_same(*both(field, uniform(4, 3, low=-1), TS[:3], args=exponents, method="rk4", dt=0.2))


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("engine", ["kernel", "compiled"])
def test_a_negative_number_may_be_the_base_of_a_power(engine: Any) -> None:
    def field(t: Tensor, y: Tensor, args: Tensor) -> Tensor:
        return (-2.0) ** args - y

    exponents = torch.tensor([2.0, 3.0], dtype=torch.float64)
    with torch.no_grad():
        ours, eager = (
            solve(field, uniform(3, 2), TS[:2], args=exponents, method="midpoint", dt=0.2, engine=e)
            for e in (engine, "eager")
        )
    assert ours.stats.engine == engine
    torch.testing.assert_close(ours.ys, eager.ys, rtol=1e-12, atol=1e-13)


REFUSED: dict[str, tuple[Any, Any, str]] = {
    "an operation": (lambda t, y: torch.special.bessel_j0(y), {}, "special_bessel_j0"),
    "coupling": (lambda t, y: y - y.mean(0), {"batch_dims": 1}, "by itself"),
    "a large matrix": (lambda t, y, w: torch.tanh(y @ w) @ w.T, {"args": torch.ones(2, 1500).double()}, "on chip"),
    "one step size": (lotka_volterra, {"coupled": True}, "coupled"),
    "dense output": (lotka_volterra, {"save": "dense"}, 'save="dense"'),
    "backward noise": (sde("ito", "diagonal"), {"dt": 0.3, "ts": TS.flip(0), "seed": 0}, "backward"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_cannot_do_is_named_once_and_done_by_another_engine(case: str) -> None:
    field, how, reason = REFUSED[case]
    if case == "coupling":
        how = {**how, "y0": uniform(3, 2)}
    how = {"ts": TS, "y0": uniform(3, 2, low=1, high=2), **how}
    y0, ts = how.pop("y0"), how.pop("ts")
    with torch.no_grad():
        with pytest.warns(CompileNotice, match=reason):
            first = solve(field, y0, ts, engine="kernel", **how)
        again = solve(field, y0, ts, engine="kernel", **how)
        eager = solve(field, y0, ts, engine="eager", **how)
    assert (first.stats.engine, again.stats.engine) == ("eager", "eager")
    assert torch.equal(first.ys, eager.ys) and torch.equal(again.ys, eager.ys)


def test_the_source_can_be_printed() -> None:
    wish = Wish(None, None, 1e-5, 1e-6, None, Save(), None, False, None, None, ())
    begun = begin(lay_out(as_term(lotka_volterra), uniform(3, 2), TS, None, wish))
    source = kernel.source_of(begun.problem, begun.carry)
    assert "@triton.jit" in source and "def solve(OUT" in source
    assert "y_0 * 0.1" in source, "the field's own arithmetic"
