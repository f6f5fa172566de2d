"""Many models in one solve: parameters stacked along the batch give what the models give one by one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from sciode import SDETerm, Solution, sample_seeds, solve
from sciode.solvers.engines import machine, repeat

pytestmark = [
    pytest.mark.usefixtures("forgetful"),
    # Falling back unasked is a failure.
    pytest.mark.filterwarnings("error::sciode.solvers.engines.CompileNotice"),
]
TS = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)
MODELS, BATCH, SIZE = 3, 5, 2


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(SIZE, 6), nn.Linear(6, SIZE)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(y))) - y * torch.cos(3 * t)


@pytest.fixture
def nets(seeded: Callable[[int], AbstractContextManager[None]]) -> list[Net]:
    with seeded(0):
        return [Net().double() for _ in range(MODELS)]


def states() -> Tensor:
    return torch.randn(MODELS, BATCH, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def ensemble(net: Net) -> Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]:
    """The field of all models at once: t, y [models, batch, ...], and the stacked parameters as args."""

    def one(parameters: dict[str, Tensor], t: Tensor, y: Tensor) -> Tensor:
        return functional_call(net, parameters, (t, y))

    return lambda t, y, parameters: vmap(one)(parameters, t, y)


def together(nets: list[Net], **options: Any) -> tuple[Solution, dict[str, Tensor]]:
    parameters = {name: p.detach().requires_grad_() for name, p in stack_module_state(nets)[0].items()}  # type: ignore
    return solve(ensemble(nets[0]), states(), TS, args=parameters, batch_dims=2, **options), parameters


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_an_ensemble_is_its_models_one_by_one(nets: list[Net], engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A loop that cannot be compiled as a whole would go on turn by turn, many times slower.
    monkeypatch.setattr(machine, "StepByStep", None)
    monkeypatch.setattr(repeat, "step_by_step", None)
    solution, parameters = together(nets, engine=engine)
    assert solution.stats.engine == engine
    gradients = torch.autograd.grad(solution.ys.square().sum(), list(parameters.values()))
    for i, (net, y0) in enumerate(zip(nets, states(), strict=True)):
        alone = solve(net, y0, TS, engine="eager")
        assert torch.equal(solution.stats.accepted[i], alone.stats.accepted)
        torch.testing.assert_close(solution.ys[:, i], alone.ys, rtol=0, atol=1e-12)
        own = torch.autograd.grad(alone.ys.square().sum(), list(net.parameters()))
        for stacked, gradient in zip(gradients, own, strict=True):
            torch.testing.assert_close(stacked[i], gradient, rtol=1e-9, atol=1e-11)


def test_models_with_noise_walk_their_own_paths(nets: list[Net]) -> None:
    stacked, _ = stack_module_state(nets)  # type: ignore
    term = SDETerm(ensemble(nets[0]), lambda t, y, parameters: 0.1 * torch.ones_like(y))
    seeds = sample_seeds(3, MODELS * BATCH).reshape(MODELS, BATCH)
    with torch.no_grad():
        for engine in ("eager", "compiled"):
            solution = solve(term, states(), TS, args=stacked, batch_dims=2, dt=0.1, seed=seeds, engine=engine)
            for i, net in enumerate(nets):
                own = SDETerm(net, lambda t, y: 0.1 * torch.ones_like(y))
                alone = solve(own, states()[i], TS, dt=0.1, seed=seeds[i], engine="eager")
                torch.testing.assert_close(solution.ys[:, i], alone.ys, rtol=0, atol=1e-12)
