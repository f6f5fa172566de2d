"""The engines on a CUDA device: the answers and gradients of eager, whatever is done to the field meanwhile."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciode import Save, methods, solve
from sciode.solvers.engines import CompileNotice
from sciode.solvers.tableaux import stochastic
from sciode.testing import noisy

pytestmark = pytest.mark.gpu
DOUBLE = torch.float64
TS = torch.linspace(0.0, 1.0, 6, dtype=DOUBLE)
LOOPS = ("compiled", "graph")


class Net(nn.Module):
    """A small vector field on the device."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.w = nn.Parameter(torch.randn(3, 3, generator=draw, dtype=DOUBLE).cuda())

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """tanh(y W) - t y."""
        return torch.tanh(y @ self.w) - t * y


def states(batch: int = 5) -> Tensor:
    return torch.linspace(-1, 1, 3 * batch, dtype=DOUBLE, device="cuda").reshape(batch, 3)


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("name", methods("ode"))
def test_a_captured_solve_is_the_eager_one(name: str, coupled: bool) -> None:
    how: dict[str, Any] = {} if methods("ode")[name].adaptive else {"dt": 0.07}
    eager, graph = (
        solve(Net(), states(), TS, method=name, coupled=coupled, engine=e, **how) for e in ("eager", "graph")
    )
    assert graph.stats.engine == "graph"
    # dopri8's coefficients reach 1e3, and rounding grows with them.
    torch.testing.assert_close(graph.ys, eager.ys, rtol=1e-9, atol=1e-10)
    assert torch.equal(graph.stats.accepted, eager.stats.accepted)


@pytest.mark.parametrize("name", sorted(methods("sde").keys() - stochastic().keys()))
@pytest.mark.parametrize("noise", ["diagonal", "scalar", "general"])
def test_a_captured_sde_walks_the_same_path_and_back(name: str, noise: Any) -> None:
    net = Net()
    term = noisy(name, net, noise)
    found = []
    for engine in ("eager", "graph"):
        y0 = states().requires_grad_()
        solution = solve(term, y0, TS, method=name, dt=0.013, seed=2, engine=engine, adjoint="recompute")
        assert solution.stats.engine == engine
        found.append((solution.ys.detach(), *torch.autograd.grad(solution.ys.square().sum(), (y0, net.w))))
    for ours, true in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, true, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("engine", LOOPS)
@pytest.mark.parametrize("name", sorted(stochastic()))
def test_adaptive_steps_of_an_sde_are_eagers_and_so_are_their_gradients(name: str, engine: str) -> None:
    net, found, steps = Net(), [], []
    for e in ("eager", engine):
        y0 = states().requires_grad_()
        solution = solve(noisy(name, net), y0, TS, method=name, rtol=1e-2, atol=1e-2, seed=5, engine=e)
        assert solution.stats.engine == e
        steps.append(solution.stats.steps)
        found.append((solution.ys.detach(), *torch.autograd.grad(solution.ys.square().sum(), (y0, net.w))))
    assert torch.equal(*steps)
    for ours, true in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, true, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("engine", LOOPS)
@pytest.mark.parametrize(
    "how", [{"method": "tsit5"}, {"method": "vern7"}, {"method": "rk4", "dt": 0.1}, {"coupled": True}]
)
def test_gradients_are_eagers(engine: str, how: dict[str, Any]) -> None:
    net, found = Net(), []
    for e in ("eager", engine):
        y0 = states().requires_grad_()
        solution = solve(net, y0, TS, engine=e, **how)
        assert solution.stats.engine == e
        found.append(torch.autograd.grad(solution.ys.square().sum(), (y0, net.w)))
    for ours, true in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, true, rtol=1e-9, atol=1e-11)


def test_results_do_not_alias_the_buffers_of_the_graph() -> None:
    net = Net()
    first = solve(net, states(), TS, engine="graph", save=Save(state=True))
    kept = first.ys.detach().clone(), first.stats.accepted.clone()
    second = solve(net, 2 * states(), TS, engine="graph")
    assert torch.equal(first.ys, kept[0]) and torch.equal(first.stats.accepted, kept[1])
    loss = first.ys.square().sum() + second.ys.square().sum()
    (together,) = torch.autograd.grad(loss, net.w, retain_graph=True)
    apart = [torch.autograd.grad(s.ys.square().sum(), net.w, retain_graph=True)[0] for s in (first, second)]
    torch.testing.assert_close(together, apart[0] + apart[1], rtol=1e-12, atol=1e-13)


def test_training_sees_every_change_of_the_parameters() -> None:
    net = Net()
    for step in range(6):
        with torch.no_grad():
            net.w.add_(0.01)
        if step == 2:
            net.load_state_dict(Net(seed=4).state_dict())
        if step == 4:
            net.load_state_dict(Net(seed=5).state_dict(), assign=True)
        target = torch.full((3,), 0.1 * step, dtype=DOUBLE, device="cuda")
        graph, eager = (
            solve(lambda t, y, goal=target: net(t, y) + goal, states(), TS, engine=e) for e in ("graph", "eager")
        )
        assert graph.stats.engine == "graph"
        torch.testing.assert_close(graph.ys, eager.ys, rtol=1e-9, atol=1e-11)
        ours, true = (torch.autograd.grad(s.ys.square().sum(), net.w)[0] for s in (graph, eager))
        torch.testing.assert_close(ours, true, rtol=1e-9, atol=1e-11)


def test_a_field_that_waits_for_the_host_is_named_and_solved_eagerly() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        return -y * float(y.abs().max() < 1e9)

    with pytest.warns(CompileNotice, match="looks at a value"):
        solution = solve(field, states(), TS, engine="graph")
    assert solution.stats.engine == "eager"


@torch.library.custom_op("sciode_tests::waits", mutates_args=())
def waits(y: Tensor) -> Tensor:
    """A copy, made in a way that no graph can hold."""
    torch.cuda.synchronize()
    return y.clone()


@waits.register_fake
def _(y: Tensor) -> Tensor:
    return torch.empty_like(y)


def test_a_capture_that_fails_spoils_nothing_that_comes_after_it() -> None:
    with pytest.warns(CompileNotice, match="cannot be captured"):
        found = solve(lambda t, y: -waits(y), states(), TS, engine="graph")
    torch.testing.assert_close(found.ys[-1], states() * torch.exp(-TS[-1]), rtol=1e-2, atol=1e-3)
    draw = torch.Generator("cuda").manual_seed(0)
    assert torch.randn(4, device="cuda", generator=draw).isfinite().all()
    with torch.random.fork_rng(devices=[0]):
        assert torch.randn(4, device="cuda").isfinite().all()
    again = solve(Net(), states(), TS, engine="graph")
    assert again.stats.engine == "graph"


def test_a_repeated_solve_is_looked_at_once() -> None:
    net, y0 = Net(), states()
    with torch.no_grad():
        for _ in range(3):
            solve(net, y0, TS, engine="graph", save=Save(state=False))
        with (
            torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA], acc_events=True
            ) as seen,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            solve(net, y0, TS, engine="graph", save=Save(state=False))
    waits = sum(e.count for e in seen.key_averages() if e.key == "cudaStreamSynchronize")
    # The state's check, the field's check, and the word of the loop; copies of a few numbers to and fro may wait, too.
    assert waits <= 6


@pytest.mark.parametrize("engine", LOOPS)
@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
@pytest.mark.parametrize(
    "how", [{"method": "midpoint", "dt": 0.1}, {"method": "midpoint"}, {"method": "tsit5"}], ids=str
)
def test_a_failed_sample_spoils_no_gradient_of_a_captured_solve(how: dict[str, Any], adjoint: str, engine: str) -> None:
    start = torch.tensor([[1.0, 2.0], [1000.0, 1.0], [3.0, 4.0]], dtype=DOUBLE, device="cuda")

    def gradient(chosen: list[int], engine: str) -> Tensor:
        w = torch.tensor(0.7, dtype=DOUBLE, device="cuda", requires_grad=True)

        def sick(t: Tensor, y: Tensor) -> Tensor:
            return -w * torch.where((y[:, :1] > 100) & (t > 0.48), torch.nan, y)

        options: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2, "batch_dims": 1, "throw": False, **how}
        found = solve(sick, start[chosen], [0.0, 0.3, 1.0], adjoint=adjoint, engine=engine, **options)
        assert found.status.tolist() == [3 if i == 1 else 0 for i in chosen]
        return torch.autograd.grad(found.ys[-1].square().sum(), w)[0]

    torch.testing.assert_close(gradient([0, 1, 2], engine), gradient([0, 2], "eager"), rtol=1e-9, atol=0)


# The weights are leaves of every thread's graph, whatever stream it runs on.
@pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream does not match")
@pytest.mark.parametrize("streams", [False, True], ids=["one stream", "streams of their own"])
def test_threads_share_a_captured_graph_by_turns(streams: bool) -> None:
    net = Net()

    def solved(k: int, engine: str) -> tuple[Tensor, ...]:
        y0 = (states() + k).requires_grad_()
        ours = solve(net, y0, (1 + k) * TS, engine=engine, adjoint="recompute", rtol=1e-7)
        return ours.ys.detach(), *torch.autograd.grad(ours.ys.square().sum(), (y0, net.w))

    def work(k: int) -> list[tuple[Tensor, ...]]:
        with torch.cuda.stream(torch.cuda.Stream() if streams else torch.cuda.default_stream()):
            found = [solved(k, "graph") for _ in range(4)]
            torch.cuda.current_stream().synchronize()
        return found

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(work, range(3)))
    for k, each in enumerate(found):
        for ours in each:
            torch.testing.assert_close(ours, solved(k, "eager"), rtol=1e-8, atol=1e-10)
