"""The bare field: as many evaluations as a solve makes, and nothing else. No solver of ours can be faster than this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sciode.bench.contestants import Answer, Contestant
from sciode.bench.problems import Problem
from sciode.solvers import solve
from sciode.solvers.engines.recording import recording

__all__ = ["evaluations", "prepare_field"]

_AT_ONCE = 64
"""Most evaluations in one CUDA graph."""


def evaluations(problem: Problem) -> int:
    """Batched evaluations of the field that our solve makes."""
    settings: dict[str, Any] = (
        {"dt": problem.dt} if problem.dt is not None else {"rtol": problem.rtol, "atol": problem.atol}
    )
    with torch.no_grad():
        found = solve(
            problem.field,
            problem.y0,
            problem.ts,
            args=problem.args,
            method="dopri5",
            coupled=problem.coupled,
            engine="eager",
            **settings,
        )
    return found.stats.calls


def prepare_field(problem: Problem, mode: str) -> Contestant:
    """Evaluate f as often as our solve does, in backward mode each time with its vector-Jacobian product.

    On a GPU the evaluations are replayed as CUDA graphs, so that nothing but the device's own work is timed. There is
    no answer to compare: the outputs are not a solution.
    """
    count = evaluations(problem)
    once = _evaluation(problem, mode)
    if problem.y0.is_cuda:
        return Contestant(_replayed(once, count), _no_answer)

    def call() -> None:
        for _ in range(count):
            once()

    return Contestant(call, _no_answer)


def _evaluation(problem: Problem, mode: str) -> Callable[[], Any]:
    t, y, bound = problem.ts[0].to(problem.y0), problem.y0, problem.bound
    weights = tuple(problem.field.parameters()) if isinstance(problem.field, nn.Module) else ()

    def forward() -> Tensor:
        with torch.no_grad():
            return bound(t, y)

    def backward() -> tuple[Tensor, ...]:
        state = y.detach().requires_grad_()
        out = bound(t, state)
        return torch.autograd.grad(out, (state, *weights), out.detach())

    return forward if mode == "forward" else backward


def _replayed(once: Callable[[], Any], count: int) -> Callable[[], None]:
    """The evaluations in graphs, replayed and waited for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        once()
    torch.cuda.current_stream().wait_stream(stream)
    batches, rest = divmod(count, _AT_ONCE)
    graphs = [_captured(once, _AT_ONCE)] * batches if batches else []
    if rest:
        graphs.append(_captured(once, rest))

    def call() -> None:
        for graph in graphs:
            graph.replay()
        torch.cuda.synchronize()

    return call


def _captured(once: Callable[[], Any], times: int) -> Any:
    graph = torch.cuda.CUDAGraph()
    with recording(graph):
        for _ in range(times):
            once()
    return graph


def _no_answer(found: Any) -> Answer:
    raise ValueError("the bare field solves nothing: it has no answer to compare")
