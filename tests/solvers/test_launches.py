"""Loops whose turns the host launches: over static buffers as in CUDA graphs, or over a solve's own tensors."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from sciode import SDETerm, solve
from sciode.solvers.engines import compiled, graphs, launches, machine, walk
from sciode.solvers.engines.lift import own_code
from sciode.solvers.engines.repeat import Part

pytestmark = pytest.mark.usefixtures("forgetful")
TS = torch.linspace(0.0, 2.0, 7, dtype=torch.float64)


class Net(nn.Module):
    """A field with a parameter, which stays where it is, and a buffer, which does not."""

    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[0.3, -0.8, 0.2], [0.9, 0.1, -0.4], [-0.2, 0.5, 0.7]]).double())
        self.register_buffer("shift", torch.tensor([0.1, 0.2, 0.3]).double())

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """tanh(y W + shift sin t)."""
        return torch.tanh(y @ self.w + self.shift * torch.sin(t))


def start(batch: int = 5) -> Tensor:
    return torch.randn(batch, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Recorded(NamedTuple):
    """What stands for a CUDA graph of some turns."""

    loop: graphs.InGraphs
    fresh: bool
    turns: int

    def replay(self) -> None:
        """Do what was recorded."""
        self.loop._launch(self.fresh, self.turns)


@pytest.fixture(autouse=True, params=["static buffers", "its own tensors"])
def turn_by_turn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's loops, on a CPU and with nothing compiled: over static buffers, or over a solve's own tensors."""
    monkeypatch.setattr(graphs.InGraphs, "_captured", lambda loop, fresh, turns: Recorded(loop, fresh, turns))
    monkeypatch.setattr(graphs.InGraphs, "_warm_up", lambda loop: None)
    engine = "graph" if request.param == "static buffers" else "compiled"
    monkeypatch.setattr(launches, "compiled", lambda function, flops: function)
    for module in (machine, walk):
        monkeypatch.setattr(
            module,
            "loop_of",
            lambda _, device, once, uses, first, spare=None: graphs.on_device(engine, once, uses, first, spare),
        )


def test_a_loop_of_launches_holds_this_solves_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    # Noise in stretches of 16 steps, the last one shorter; outputs and tape of one solve must not reach the next.
    monkeypatch.setattr(compiled, "BLOCK_BYTES", 0)
    net = Net()
    term = SDETerm(net, lambda t, y: 0.3 * torch.cos(y), calculus="stratonovich")
    for seed in range(3):
        draw = torch.Generator().manual_seed(seed)
        noise = torch.randn(24, 5, 3, generator=draw, dtype=torch.float64) * 0.3
        net.w.data.mul_(0.9)
        found = []
        for engine in ("compiled", "eager"):
            y0 = (start() + seed).requires_grad_()
            solution = solve(term, y0, TS, method="heun", dt=2 / 24, noise=noise, engine=engine, adjoint="recompute")
            found.append((solution.ys.detach(), *torch.autograd.grad(solution.ys.square().mean(), (y0, net.w))))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_solve_in_inference_mode_does_not_spoil_the_next(unspoilt: Any) -> None:
    unspoilt(Net(), start(), TS)


@pytest.mark.parametrize("adjoint", ["recompute", "direct"])
def test_two_solves_before_one_backward_keep_what_is_theirs(adjoint: str) -> None:
    net, found = Net(), []
    for engine in ("compiled", "eager"):
        first = solve(net, start(), TS, engine=engine, adjoint=adjoint)
        second = solve(net, 2 * start(), TS, engine=engine, adjoint=adjoint)
        assert (first.stats.engine, second.stats.engine) == (engine, engine)
        loss = (first.ys * second.ys).sum()
        found.append((loss, *torch.autograd.grad(loss, net.w, retain_graph=True), *torch.autograd.grad(loss, net.w)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_turns_are_launched_ahead_and_a_solve_that_takes_fewer_is_not_spoilt() -> None:
    net = Net()
    for length in (2.0, 2.0, 0.1, 3.0):
        ours = solve(net, start(), length * TS, engine="compiled")
        eager = solve(net, start(), length * TS, engine="eager")
        torch.testing.assert_close(ours.ys, eager.ys, rtol=1e-9, atol=1e-11)
        assert torch.equal(ours.stats.steps, eager.stats.steps)


def test_loops_that_are_always_as_long_are_launched_whole_and_one_that_is_not_is_not_spoilt() -> None:
    net = Net()
    for length in (2.0, 2.0, 2.0, 2.0, 2.0, 0.1, 3.0, 2.0):
        y0 = start() + 0.01 * length
        ours = solve(net, y0, length * TS, engine="compiled")
        eager = solve(net, y0, length * TS, engine="eager")
        torch.testing.assert_close(ours.ys, eager.ys, rtol=1e-9, atol=1e-11)
        assert torch.equal(ours.stats.steps, eager.stats.steps)


def test_what_a_caller_overwrites_between_solves_is_read_anew() -> None:
    # Also behind autograd's back, where no version of a tensor tells of it.
    net, y0, rtol = Net(), start(), torch.full((3,), 1e-6, dtype=torch.float64)
    for factor in (1.0, 0.5, 2.0, 1.0):
        y0.data.mul_(factor)
        net.shift.data.add_(factor)
        rtol.data.mul_(factor)
        ours, eager = (solve(net, y0, TS, engine=e, rtol=rtol) for e in ("compiled", "eager"))
        torch.testing.assert_close(ours.ys, eager.ys, rtol=1e-9, atol=1e-11)
        assert torch.equal(ours.stats.steps, eager.stats.steps)


def test_a_solve_whose_tape_has_several_blocks_launches_no_turn_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "BLOCK_BYTES", 0)
    launched: list[int] = []
    play = launches.StepByStep.play

    def counted(loop: launches.StepByStep, turns: int) -> None:
        launched.append(turns)
        play(loop, turns)

    monkeypatch.setattr(launches.StepByStep, "play", counted)
    net, counts = Net(), []
    for _ in range(5):
        launched.clear()
        solution = solve(net, start(), TS, engine="compiled", adjoint="recompute", coupled=True, rtol=1e-8, atol=1e-8)
        there = sum(launched)
        torch.autograd.grad(solution.ys.sum(), net.w)
        counts.append((there, sum(launched) - there))
    steps = int(solution.stats.steps[0])
    assert steps > 8, "one block holds 8 rows"
    assert counts[2:] == [(steps, steps)] * 3


def test_nothing_is_compiled_once_graphs_are_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    # A capture ends where something has to be compiled in it: seen where a start had made one tensor for two places.
    def begin(y: Tensor) -> list[Tensor]:
        zero = torch.zeros_like(y)
        return [zero, zero, torch.ones(1, dtype=torch.int64)]

    def turn(a: Tensor, b: Tensor, word: Tensor, y: Tensor) -> list[Tensor]:
        return [a + y, b + 1, (b.amax() < 9).long().reshape(1)]

    graphs_made: list[int] = []

    def captured(loop: graphs.InGraphs, fresh: bool, turns: int) -> Recorded:
        graphs_made.append(counters["stats"]["unique_graphs"])
        return Recorded(loop, fresh, turns)

    monkeypatch.setattr(
        launches,
        "compiled",
        lambda f, flops: torch.compile(own_code(f), backend="eager", fullgraph=True, dynamic=False),
    )
    monkeypatch.setattr(graphs.InGraphs, "_warm_up", graphs.InGraphs._compile)
    monkeypatch.setattr(graphs.InGraphs, "_captured", captured)
    loop = graphs.InGraphs(Part(turn, (0, 1, 2, ~0)), ["read"], Part(begin, (~0,)))
    for k in range(5):
        (a, b, _), _ = loop([torch.full((3,), float(k))], None, 0, None)
        assert torch.equal(a, torch.full((3,), 10.0 * k)) and torch.equal(b, torch.full((3,), 10.0))
    assert len(graphs_made) > 2
    assert set(graphs_made) == {counters["stats"]["unique_graphs"]}


@pytest.mark.parametrize("adjoint", ["recompute", "direct"])
def test_nobody_waits_for_a_way_back_whose_length_is_known(adjoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gradient(scale: float, engine: str) -> tuple[torch.Tensor, ...]:
        y0 = (scale * start()).requires_grad_()
        solution = solve(net, y0, TS, engine=engine, adjoint=adjoint)
        asked.clear()
        return torch.autograd.grad(solution.ys.square().mean(), (y0, net.w))

    net, asked, ask = Net(), [], launches.Launches.ask

    def counted(loop: launches.Launches) -> None:
        asked.append(loop)
        ask(loop)

    monkeypatch.setattr(launches.Launches, "ask", counted)
    # Alike often enough to be launched whole, then longer and shorter.
    for scale in (1.0, 1.0, 1.0, 1.0, 3.0, 0.1):
        ours = gradient(scale, "compiled")
        assert not asked
        for a, b in zip(ours, gradient(scale, "eager"), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_threads_that_solve_alike_get_what_each_gets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share a machine and its buffers, there and back; its tapes have several blocks."""
    monkeypatch.setattr(compiled, "_ROWS", 8)
    net = Net()

    def solved(k: int, engine: str) -> tuple[Tensor, ...]:
        y0 = (start() + k).requires_grad_()
        ours = solve(net, y0, (1 + k) * TS, engine=engine, adjoint="recompute", rtol=1e-7)
        assert ours.stats.engine == engine
        return ours.ys.detach(), *torch.autograd.grad(ours.ys.square().sum(), (y0, net.w))

    workers = 3
    together = Barrier(workers)

    def work(k: int) -> list[tuple[Tensor, ...]]:
        together.wait()
        return [solved(k, "compiled") for _ in range(4)]

    pause = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(workers) as pool:
            found = list(pool.map(work, range(workers)))
    finally:
        sys.setswitchinterval(pause)
    for k, each in enumerate(found):
        expected = solved(k, "eager")
        for ours in each:
            torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("adjoint", ["recompute", "direct"])
@pytest.mark.parametrize("given", [False, True], ids=["seed", "noise"])
def test_a_longer_solve_after_a_shorter_one_has_noise_of_its_own(adjoint: str, given: bool) -> None:
    net = Net()
    term = SDETerm(net, lambda t, y: 0.3 * torch.cos(y), calculus="stratonovich")
    for steps in (4, 16, 4, 9):
        drawn = torch.randn(steps, 5, 3, generator=torch.Generator().manual_seed(steps), dtype=torch.float64)
        how: dict[str, Any] = {"noise": 0.3 * drawn} if given else {"seed": steps}
        found = []
        for engine in ("compiled", "eager"):
            y0 = start().requires_grad_()
            ends = [0.0, steps / 8]
            solution = solve(term, y0, ends, method="reversibleheun", dt=1 / 8, engine=engine, adjoint=adjoint, **how)
            assert solution.stats.engine == engine
            found.append((solution.ys.detach(), *torch.autograd.grad(solution.ys.square().sum(), (y0, net.w))))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
