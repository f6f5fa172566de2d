"""Adaptive SDE solves: convergence on the same path, laws, step control, revisited times, gradients, and misuse."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sciode import PID, Save, SDETerm, Status, methods, sample_seeds, solve
from sciode.solvers import advance
from sciode.solvers.begin import Wish, begin, lay_out
from sciode.solvers.brownian import BrownianTree
from sciode.solvers.engines import CompileNotice, kernel

A, B = 0.4, 0.8
TS = torch.tensor([0.0, 0.31, 0.62, 1.0], dtype=torch.float64)
ADAPTIVE = sorted(name for name, info in methods("sde").items() if info.adaptive)


def path_of(seeds: Tensor, t0: float, ts: Tensor, t1: float, channels: int = 1, levels: int = 26) -> Tensor:
    """W(ts) - W(t0) [T, B, m] of the path that a solve in float64 walks between t0 and t1."""
    low, high = min(t0, t1), max(t0, t1)
    start, span = (torch.tensor([x], dtype=torch.float64) for x in (low, high - low))
    tree = BrownianTree(seeds, channels, start, span, levels, False, torch.float64)
    return tree.path(ts[:, None]) - tree.path(torch.tensor([[t0]], dtype=torch.float64))


def geometric(calculus: Any = "ito", noise: Any = "diagonal") -> SDETerm:
    def g(t: Tensor, y: Tensor) -> Tensor:
        return B * y if noise == "diagonal" else (B * y).unsqueeze(-1)

    return SDETerm(lambda t, y: A * y, g, calculus=calculus, noise=noise)


def exact(seeds: Tensor, ts: Tensor, calculus: str) -> Tensor:
    """From 1 at 0."""
    rate = A - B * B / 2 if calculus == "ito" else A
    return torch.exp(rate * ts[:, None, None] + B * path_of(seeds, 0.0, ts, 1.0))


def ornstein(noise_type: str = "additive") -> SDETerm:
    return SDETerm(lambda t, y: -y, lambda t, y: math.sqrt(2) * torch.ones_like(y).unsqueeze(-1), noise=noise_type)  # type: ignore[arg-type]


CASES = [("sriw1", "ito"), ("sosri", "ito"), ("heun", "stratonovich"), ("spark", "stratonovich")]


# ---- convergence and laws


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize(("method", "calculus"), CASES)
def test_it_converges_to_the_solution_on_the_same_path(method: str, calculus: Any, coupled: bool) -> None:
    samples = 100
    seeds, y0 = sample_seeds(1, samples), torch.ones(samples, 1, dtype=torch.float64)
    errors = []
    for tolerance in (1e-1, 1e-2, 1e-3) if method == "heun" else (1e-2, 1e-3, 1e-4):
        solution = solve(geometric(calculus), y0, TS, method=method, rtol=tolerance, atol=tolerance, seed=seeds,
                         coupled=coupled)  # fmt: skip
        errors.append((solution.ys - exact(seeds, TS, calculus)).abs().median(1).values[:, 0])
        assert bool((solution.stats.rejected >= 0).all()) and bool(solution.valid.all())
    # Steps shrink like tolerance^(2/3), and with them the error of a method of order 1 and of outputs between steps;
    # half of that exponent is asked for.
    assert bool((errors[2][1:] < errors[0][1:] * 0.01 ** (1 / 3)).all())
    assert float(errors[2][-1]) < 0.02


@pytest.mark.parametrize("method", ["sra1", "shark", "spark", "heun"])
def test_the_stationary_law_of_an_ornstein_uhlenbeck_process(method: str) -> None:
    samples = 3000
    y0 = torch.zeros(samples, 1, dtype=torch.float64)
    y = solve(ornstein(), y0, [0, 3], method=method, rtol=3e-2, atol=3e-2, seed=1).ys[-1]
    wanted = 1 - math.exp(-6)
    assert abs(float(y.mean())) < 4 / math.sqrt(samples)
    assert abs(float(y.var()) - wanted) < 0.01 + 4 * math.sqrt(2 / samples)


def test_additive_noise_is_followed_between_the_steps() -> None:
    """dy = dW: whatever the steps, outputs are the path itself (a time's rounding moves it by the root of that)."""
    term = SDETerm(lambda t, y: 0 * y, lambda t, y: torch.ones_like(y).unsqueeze(-1), noise="additive")
    seeds = sample_seeds(2, 5)
    for save in ("ts", "dense"):
        solution = solve(term, torch.zeros(5, 1, dtype=torch.float64), TS, method="sra1", seed=seeds, save=save)
        assert int(solution.stats.accepted.max()) < 20
        torch.testing.assert_close(solution.ys, path_of(seeds, 0.0, TS, 1.0), rtol=0, atol=1e-7)
    query = torch.linspace(0, 1, 37, dtype=torch.float64)
    torch.testing.assert_close(solution.interpolate(query), path_of(seeds, 0.0, query, 1.0), rtol=0, atol=1e-7)


@pytest.mark.parametrize("noise", ["diagonal", "scalar", "general"])
def test_the_kind_of_noise_does_not_matter_where_it_says_the_same(noise: str) -> None:
    controller = PID(pcoeff=0.1, icoeff=0.3, revisit=False)
    options: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2, "seed": 3, "controller": controller}
    y0 = torch.tensor([[1.0], [0.5], [-2.0]], dtype=torch.float64)
    for coupled in (False, True):
        found = solve(geometric("stratonovich", noise), y0, TS, method="spark", coupled=coupled, **options)
        plain = solve(geometric("stratonovich"), y0, TS, method="spark", coupled=coupled, **options)
        torch.testing.assert_close(found.ys, plain.ys, rtol=1e-12, atol=1e-13)
        assert torch.equal(found.stats.accepted, plain.stats.accepted)


# ---- one path


@pytest.mark.parametrize(("method", "calculus"), CASES[2:])
def test_a_backward_solve_walks_the_same_path_home(method: str, calculus: Any) -> None:
    seeds, y0 = sample_seeds(4, 50), torch.ones(50, 1, dtype=torch.float64)
    options: dict[str, Any] = {"method": method, "rtol": 1e-3, "atol": 1e-3, "seed": seeds}
    there = solve(geometric(calculus), y0, [0.0, 1.0], **options).ys[-1]
    home = solve(geometric(calculus), there, [1.0, 0.0], **options).ys[-1]
    assert float((there - 1).abs().median()) > 0.3
    assert float((home - 1).abs().median()) < 0.03


def test_a_sample_does_not_know_its_batch() -> None:
    """Not to rounding alone: the same steps. That holds because step lengths have few bits."""
    seeds, y0 = sample_seeds(5, 7), torch.linspace(-1, 2, 14, dtype=torch.float64).reshape(7, 2)
    term = SDETerm(lambda t, y: torch.sin(y) - y, lambda t, y: 0.5 * torch.cos(y))
    options: dict[str, Any] = {"method": "sriw1", "rtol": 1e-3, "atol": 1e-3}
    together = solve(term, y0, TS, seed=seeds, **options)
    order = torch.tensor([5, 2, 6, 0, 1, 4, 3])
    permuted = solve(term, y0[order], TS, seed=seeds[order], **options)
    torch.testing.assert_close(permuted.ys, together.ys[:, order], rtol=1e-11, atol=1e-12)
    assert torch.equal(permuted.stats.accepted, together.stats.accepted[order])
    for i in (0, 6):
        alone = solve(term, y0[i : i + 1], TS, seed=seeds[i : i + 1], batch_dims=1, **options)
        torch.testing.assert_close(alone.ys, together.ys[:, i : i + 1], rtol=1e-11, atol=1e-12)
        assert torch.equal(alone.stats.steps, together.stats.steps[i : i + 1])


def test_output_times_change_no_step_and_no_noise() -> None:
    options: dict[str, Any] = {"method": "sriw1", "rtol": 1e-2, "atol": 1e-2, "seed": 6}
    y0 = torch.ones(4, 1, dtype=torch.float64)
    few, many = (solve(geometric(), y0, ts, **options) for ts in ([0.0, 1.0], torch.linspace(0, 1, 23).double()))
    assert torch.equal(few.ys[-1], many.ys[-1])
    assert torch.equal(few.stats.steps, many.stats.steps)


def test_times_of_their_own_and_ends_in_nan() -> None:
    ts = torch.tensor([[0.0, 1.0], [0.4, 1.5], [math.nan, 2.0]], dtype=torch.float64)
    seeds, y0 = sample_seeds(7, 2), torch.ones(2, 1, dtype=torch.float64)
    options: dict[str, Any] = {"method": "sriw1", "rtol": 1e-3, "atol": 1e-3}
    both = solve(geometric(), y0, ts, seed=seeds, **options)
    second = solve(geometric(), y0[1:], ts[:, 1], seed=seeds[1:], batch_dims=1, **options)
    torch.testing.assert_close(both.ys[:, 1:], second.ys, rtol=1e-10, atol=1e-11)
    assert both.valid[:, 0].tolist() == [True, True, False]


def test_fixed_steps_shorter_than_a_usual_leaf_get_a_deeper_tree() -> None:
    """Two ends in one leaf would see too smooth a path: increments of 0.3 of their variance, and correlated."""
    count, dt = 4000, 2.0**-24
    term = SDETerm(lambda t, y: 0 * y, lambda t, y: torch.ones_like(y).unsqueeze(-1), noise="additive")
    options: dict[str, Any] = {"method": "shark", "dt": dt, "max_steps": 16, "throw": False, "save": "steps"}
    ys = solve(term, torch.zeros(count, 1), [0.0, 1.0], seed=1, **options).ys[:16, :, 0]
    correlations = torch.corrcoef(ys.double().diff(dim=0))
    torch.testing.assert_close(ys.double().diff(dim=0).var(1) / dt, torch.ones(15).double(), rtol=0.12, atol=0)
    assert float(correlations.fill_diagonal_(0).abs().amax()) < 5 / math.sqrt(count)


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
@pytest.mark.parametrize("dt", [None, 0.1])
def test_a_series_of_one_time_spoils_no_gradient(dt: float | None, adjoint: str) -> None:
    """Its path has no length; the others' gradient is what it is without that series."""
    ts = torch.tensor([[0.0, 0.0], [1.0, math.nan]], dtype=torch.float64)
    options: dict[str, Any] = {"method": "sriw1", "rtol": 1e-2, "atol": 1e-2, "dt": dt, "adjoint": adjoint}

    def gradient(count: int) -> Tensor:
        rate = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        term = SDETerm(lambda t, y: -rate * y, lambda t, y: rate * y)
        y0 = torch.ones(count, 1, dtype=torch.float64)
        solution = solve(term, y0, ts[:, :count], seed=sample_seeds(3, count), batch_dims=1, **options)
        assert solution.ys[-1, 1:].tolist() in ([], [[1.0]])
        return torch.autograd.grad(solution.ys[-1].sum(), rate)[0]

    torch.testing.assert_close(gradient(2), gradient(1), rtol=1e-12, atol=0)


def test_float32_walks_the_path_of_a_tree_of_its_own_depth() -> None:
    seeds = sample_seeds(8, 200)
    y0 = torch.ones(200, 1)
    ys = solve(geometric(), y0, TS, method="sriw1", rtol=1e-3, atol=1e-3, seed=seeds).ys
    wanted = torch.exp((A - B * B / 2) * TS[:, None, None] + B * path_of(seeds, 0.0, TS, 1.0, levels=22))
    assert ys.dtype == torch.float32
    assert float((ys[-1] - wanted[-1]).abs().median()) < 5e-3


# ---- step control


def test_steps_are_few_where_it_is_easy() -> None:
    """The noise dies out at t = 1/2: the second half takes fewer steps than a tenth of the first."""

    def g(t: Tensor, y: Tensor) -> Tensor:
        return 1.5 * torch.sigmoid(50 * (0.4 - t)) * y

    term = SDETerm(lambda t, y: -0.1 * y, g)
    solution = solve(term, torch.ones(20, 1, dtype=torch.float64), [0.0, 1.0], method="sriw1", rtol=1e-4, atol=1e-4,
                     seed=9, save="steps")  # fmt: skip
    early, late = (((solution.ts[1:] <= 0.5) == half) & solution.valid[1:] for half in (True, False))
    assert int(late.sum()) * 10 < int(early.sum())
    assert int(solution.stats.rejected.sum()) > 0


@pytest.mark.parametrize("noise", ["diagonal", "general"])
def test_rejected_times_are_revisited_where_the_noise_is_general(noise: str) -> None:
    """By hand, from all trial steps of one sample: where each rejected one ended, a later accepted one ends."""
    trials: list[tuple[float, float]] = []
    term = geometric("stratonovich", noise)
    options: dict[str, Any] = {"method": "spark", "rtol": 1e-4, "atol": 1e-4, "seed": 10}

    original = advance.step_of

    def watched(problem: Any, carry: Any, dt: Any, drawn: Any) -> Any:
        trials.append((float(carry.t[0]), float(carry.t[0]) + float(dt[0])))
        return original(problem, carry, dt, drawn)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(advance, "step_of", watched)
        solution = solve(term, torch.ones(1, 1, dtype=torch.float64), [0, 1], save="steps", batch_dims=1, **options)
    visited = set(solution.ts.flatten().tolist())
    rejected = {end for start, end in trials if end not in visited or (start, end) not in _pairs(solution.ts)}
    assert int(solution.stats.rejected[0]) > 5
    missed = [end for end in rejected if min(abs(end - v) for v in visited) > 1e-12]
    assert (len(missed) == 0) == (noise == "general")


def _pairs(ts: Tensor) -> set[tuple[float, float]]:
    times = ts.flatten().tolist()
    return set(itertools.pairwise(times))


def test_the_floor_of_the_steps_is_a_leaf_of_the_tree() -> None:
    """A diffusion that no step resolves ends with a status, not with noise that is too smooth."""
    term = SDETerm(lambda t, y: 0 * y, lambda t, y: torch.sin(1e9 * y) * 1e4)
    y0 = torch.ones(2, 1, dtype=torch.float64)
    solution = solve(term, y0, [0, 1], method="sriw1", rtol=1e-9, atol=1e-9, seed=0, throw=False, max_steps=2000)
    assert bool((solution.status == Status.DT_MIN).all())


def test_a_failing_sample_leaves_the_others_untouched() -> None:
    def drift(t: Tensor, y: Tensor) -> Tensor:
        return torch.where((y[:, :1] > 100) & (t > 0.45), torch.nan, -y)

    term = SDETerm(drift, lambda t, y: 0.1 * torch.cos(y))
    y0 = torch.tensor([[1.0, 2.0], [1000.0, 1.0], [3.0, 4.0]], dtype=torch.float64)
    seeds, healthy = sample_seeds(1, 3), torch.tensor([0, 2])
    options: dict[str, Any] = {"method": "sosri", "rtol": 1e-3, "atol": 1e-3}
    solution = solve(term, y0, TS, seed=seeds, throw=False, **options)
    assert solution.status.tolist()[::2] == [0, 0] and int(solution.status[1]) != 0
    again = solve(term, y0[healthy], TS, seed=seeds[healthy], **options)
    torch.testing.assert_close(solution.ys[:, healthy], again.ys, rtol=1e-11, atol=1e-12)
    assert bool(torch.isfinite(solution.ys).all())


def test_the_statistics_count_every_trial() -> None:
    calls = 0

    def drift(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return A * y

    term = SDETerm(drift, lambda t, y: B * y)
    solution = solve(term, torch.ones(1, 1, dtype=torch.float64), [0, 1], method="sosri", rtol=1e-3, atol=1e-3, seed=1,
                     batch_dims=1)  # fmt: skip
    assert calls == solution.stats.calls == int(solution.stats.nfe)
    assert int(solution.stats.steps) == int(solution.stats.accepted + solution.stats.rejected)


# ---- gradients


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_the_gradient_is_that_of_the_same_steps_on_the_same_path(method: str, adjoint: str) -> None:
    """Steps are constants: they are the same for all parameters where the tolerance decides nothing."""
    noise: Any = "additive" if method in ("sra1", "shark") else "diagonal"
    calculus: Any = "stratonovich" if method in ("heun", "spark") else "ito"

    def g(t: Tensor, y: Tensor, a: Tensor) -> Tensor:
        return a[1] * torch.cos(y) if noise == "diagonal" else a[1].expand(*y.shape, 1)

    term = SDETerm(lambda t, y, a: -a[0] * torch.sin(y), g, noise=noise, calculus=calculus)

    def loss(a: Tensor, y0: Tensor) -> Tensor:
        controller = PID(first_step=0.21, dtmax=0.21)
        solution = solve(term, y0, [0.0, 0.37, 1.0], args=a, method=method, rtol=10.0, atol=10.0, seed=5,
                         adjoint=adjoint, controller=controller)  # fmt: skip
        return solution.ys[1:].square().sum()

    a = torch.tensor([0.5, 0.4], dtype=torch.float64, requires_grad=True)
    y0 = torch.tensor([[0.3], [-0.7]], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(loss, (a, y0))


@pytest.mark.parametrize("method", ["sriw1", "spark", "heun"])
def test_both_adjoints_agree_where_steps_are_rejected(method: str, seeded: Any) -> None:
    with seeded(0):
        net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    calculus: Any = "ito" if method == "sriw1" else "stratonovich"
    term = SDETerm(lambda t, y: net(y), lambda t, y: torch.cos(3 * y), calculus=calculus)
    found = []
    for adjoint in ("direct", "recompute"):
        y0 = torch.tensor([[1.0, 0.2], [-0.5, 2.0]], dtype=torch.float64, requires_grad=True)
        solution = solve(term, y0, TS, method=method, rtol=1e-2, atol=1e-2, seed=1, adjoint=adjoint)
        assert int(solution.stats.rejected.min()) > 0
        found.append(torch.autograd.grad(solution.ys.square().sum(), (y0, *net.parameters())))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


# ---- engines


@pytest.mark.usefixtures("traced_only", "forgetful")
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(("method", "noise"), [("heun", "diagonal"), ("spark", "general"), ("sra1", "additive")])
def test_a_loop_on_the_device_takes_the_same_steps(method: str, noise: Any, backward: bool) -> None:
    shapes = {"diagonal": lambda t, y: torch.cos(y), "additive": lambda t, y: torch.ones_like(y).unsqueeze(-1)}
    matrix = lambda t, y: torch.stack((torch.cos(y), 0.3 * y.flip(-1)), -1)  # noqa: E731
    term = SDETerm(lambda t, y: torch.sin(y) - y, shapes.get(noise, matrix), noise=noise, calculus="stratonovich")
    ts, found = TS.flip(0) if backward else TS, []
    for engine in ("compiled", "eager"):
        y0 = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2).requires_grad_()
        solution = solve(term, y0, ts, method=method, rtol=1e-2, atol=1e-2, seed=3, engine=engine)
        assert solution.stats.engine == engine
        found.append((solution.ys.detach(), solution.stats.steps, torch.autograd.grad(solution.ys.square().sum(), y0)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-9, atol=1e-10)
    assert torch.equal(found[0][1], found[1][1])
    torch.testing.assert_close(found[0][2], found[1][2], rtol=1e-8, atol=1e-9)


# ---- misuse


@pytest.mark.parametrize(
    ("term", "options", "message"),
    [
        (geometric(), {}, r"^dt: 'euler' has no error estimate.*pass dt=, or a method that has one: .*'sosri'"),
        (geometric(), {"method": "milstein"}, r"^dt: 'milstein' has no error estimate.*'sriw1'"),
        (geometric("ito", "general"), {}, r"^dt: 'euler' has no error estimate.*none is known"),
        (geometric(), {"method": "sra1"}, "^method: 'sra1' needs additive noise"),
        (geometric("ito", "general"), {"method": "sosri"}, "^method: 'sosri' needs diagonal or scalar"),
        (geometric(), {"method": "spark"}, "^method: 'spark' converges to the stratonovich solution.*'sosri'"),
        (geometric("stratonovich"), {"method": "sriw1"}, "^method: 'sriw1' converges to the ito solution.*'spark'"),
        (geometric(), {"method": "sriw1", "noise": torch.zeros(10, 2, 1)}, "^noise: .*Levy areas; pass seed="),
        (geometric(), {"method": "sriw1", "dt": 0.1, "noise": torch.zeros(10, 2, 1)}, "^noise: .*Levy areas"),
        (geometric("stratonovich"), {"method": "heun", "noise": torch.zeros(10, 2, 1)}, "^noise: .*adaptive steps"),
    ],
)
def test_what_cannot_be_is_refused_with_the_mend(term: SDETerm, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve(term, torch.ones(2, 1, dtype=torch.float64), [0, 1], **options)


class OneClock(nn.Module):
    """A torchsde object."""

    noise_type, sde_type = "diagonal", "stratonovich"

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        """Drift."""
        assert t.ndim == 0
        return A * y

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        """Diffusion."""
        return B * y


def test_an_object_with_one_clock_for_the_batch_shares_its_steps_or_is_refused() -> None:
    y0 = torch.ones(3, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"^coupled: this SDE takes one time.*pass coupled=True, or dt="):
        solve(OneClock(), y0, TS, method="spark", seed=0)
    shared = solve(OneClock(), y0, TS, method="spark", seed=0, coupled=True, rtol=1e-2, atol=1e-2)
    plain = solve(geometric("stratonovich"), y0, TS, method="spark", seed=0, coupled=True, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(shared.ys, plain.ys)


def test_an_adaptive_solve_is_not_resumed() -> None:
    solution = solve(geometric(), torch.ones(2, 1, dtype=torch.float64), [0, 1], method="sriw1", seed=0, rtol=1e-2)
    with pytest.raises(ValueError, match=r"^resume: .*solve the whole interval at once"):
        solve(geometric(), None, [1.0, 2.0], resume=solution)


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("taped", [False, True])
def test_the_kernel_engine_says_that_it_walks_no_tree(taped: bool) -> None:
    wish = Wish("spark", None, 1e-2, 1e-2, None, Save(), None, False, None, 0, ())
    begun = begin(lay_out(geometric("stratonovich", "general"), torch.ones(2, 1), [0.0, 1.0], None, wish))
    reason = kernel.why_not(begun.problem, begun.y0.to("meta"), taped)
    assert reason is not None
    assert "tree" in (kernel.why_not(begun.problem, begun.y0, taped) or "") or "state is on" in reason
    with pytest.warns(CompileNotice, match="the kernel engine cannot run this"):
        solution = solve(geometric("stratonovich"), torch.ones(2, 1), [0, 1], method="spark", rtol=0.1, seed=0,
                         engine="kernel")  # fmt: skip
    assert solution.stats.engine == "eager"


def test_of_many_rejections_in_a_row_the_nearest_times_are_kept() -> None:
    """A stack of 12: pushed where rejected, popped where passed, per sample; more than 12 forget the farthest."""
    none, yes = np.zeros(2, dtype=bool), np.array([True, False])
    ahead = tuple(np.full(2, np.inf) for _ in range(12))
    for k in range(14):
        carry: Any = SimpleNamespace(t=np.zeros(2), ahead=ahead)
        ahead = advance._still_ahead(carry, np.array([14.0 - k, 0.0]), none, yes)
    assert [a[0] for a in ahead] == [float(k) for k in range(1, 13)]
    assert all(a[1] == np.inf for a in ahead)
    ahead = advance._still_ahead(SimpleNamespace(t=np.zeros(2), ahead=ahead), np.zeros(2), yes, none)  # type: ignore[arg-type]
    assert [a[0] for a in ahead] == [*map(float, range(2, 13)), np.inf]


def test_an_ode_may_revisit_too_and_then_hits_the_rejected_times() -> None:
    def pulse(t: Tensor, y: Tensor) -> Tensor:
        return 30 * torch.exp(-(((t - 0.5) / 0.1) ** 2)) - y

    found = [
        solve(pulse, torch.ones(1, 1, dtype=torch.float64), [0.0, 1.0], save="steps", batch_dims=1,
              controller=PID(revisit=revisit, first_step=0.7))
        for revisit in (False, True)
    ]  # fmt: skip
    assert int(found[1].stats.rejected) > 0
    torch.testing.assert_close(found[0].ys[found[0].stats.accepted], found[1].ys[found[1].stats.accepted],
                               rtol=1e-4, atol=1e-5)  # fmt: skip
    assert float((found[1].ts - 0.7).abs().min()) < 1e-12 < float((found[0].ts - 0.7).abs().min())


def test_forward_derivatives_and_functional_transforms() -> None:
    def end(a: Tensor) -> Tensor:
        term = SDETerm(lambda t, y, a: -a[0] * y, lambda t, y, a: a[1] * y)
        y0 = torch.ones(2, 1, dtype=torch.float64)
        return solve(term, y0, [0, 0.5, 1], args=a, method="sriw1", rtol=1e-2, atol=1e-2, seed=1).ys[-1, :, 0]

    a = torch.tensor([0.5, 0.4], dtype=torch.float64)
    forward, backward = torch.func.jacfwd(end)(a), torch.func.jacrev(end)(a)
    torch.testing.assert_close(forward, backward, rtol=1e-9, atol=1e-11)
    p = a.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(end(p).sum(), p)[0], backward.sum(0), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("how", [{}, {"dt": 0.1}], ids=str)
def test_series_of_one_time_stay_where_they_are(how: dict[str, Any]) -> None:
    """Also where there is no other: the path over nothing has no levels to reckon."""
    y0 = torch.ones(2, 1, dtype=torch.float64)
    times = torch.tensor([[0.0, 1.0], [torch.nan, torch.nan]], dtype=torch.float64)
    found = solve(geometric(), y0, times, method="sriw1", seed=0, **how)
    assert torch.equal(found.ys, y0.expand(2, 2, 1)) and found.valid.tolist() == [[True, True], [False, False]]
