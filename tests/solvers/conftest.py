"""What tests of several engines share, and those of tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciode import solve
from sciode.solvers import probe
from sciode.solvers.engines import choice, machine, march, walk, witness
from sciode.solvers.engines.lift import own_code
from sciode.solvers.engines.repeat import step_by_step


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops, there and back, are traced and repeated, but not compiled: seconds become milliseconds."""
    for module in (machine, march, walk):
        monkeypatch.setattr(
            module, "loop_of", lambda engine, device, once, uses, first, spare=None: step_by_step(once, first)
        )
    monkeypatch.setattr(
        probe, "compiler", lambda f: torch.compile(own_code(f), backend="eager", fullgraph=True, dynamic=False)
    )


@pytest.fixture
def forgetful() -> Iterator[None]:
    """What one test traced or compiled does not serve the next."""
    yield
    witness._lifts.clear()
    choice._past.clear()
    probe._steps_made.clear()


@pytest.fixture
def unspoilt() -> Callable[[nn.Module, Tensor, Tensor], None]:
    """Check that solves of a field under inference mode leave the next ones, and gradients, right."""

    def check(net: nn.Module, y0: Tensor, ts: Tensor) -> None:
        for attempt in range(3):
            with torch.inference_mode(attempt < 2):
                inferred = solve(net, y0 + attempt, ts, engine="compiled")
            expected = solve(net, y0 + attempt, ts, engine="eager")
            torch.testing.assert_close(inferred.ys, expected.ys, rtol=1e-9, atol=1e-11)
        trained = solve(net, y0, ts, engine="compiled")
        weights = list(net.parameters())
        gradients = torch.autograd.grad(trained.ys.square().mean(), weights)
        wanted = torch.autograd.grad(solve(net, y0, ts, engine="eager").ys.square().mean(), weights)
        torch.testing.assert_close(gradients, wanted, rtol=1e-9, atol=1e-12)
        assert trained.stats.engine == "compiled"

    return check


@pytest.fixture(scope="session")
def changes() -> Callable[[Any, float], Iterator[tuple[str, Any]]]:
    """(values, change) -> the (nested) tuple with one number changed, once for every number, and where that is."""

    def changed(values: Any, change: float) -> Iterator[tuple[str, Any]]:
        for i, value in enumerate(values or ()):
            inner = changed(value, change) if isinstance(value, tuple) else [("", value + change)]
            for where, one in inner:
                yield f"[{i}]{where}", (*values[:i], one, *values[i + 1 :])

    return changed
