"""The backend on a CUDA device: the CPU's answers, to rounding, for every method, adjoint and clock."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sciode import Solution, methods, solve
from sciode.testing import noisy

pytestmark = pytest.mark.gpu
DOUBLE = torch.float64
WEIGHTS = torch.linspace(-1.0, 1.2, 9, dtype=DOUBLE).reshape(3, 3)


def both(run: Any) -> tuple[Solution, Solution]:
    return run(torch.device("cpu")), run(torch.device("cuda"))


def states(device: torch.device) -> Tensor:
    return torch.linspace(-1, 1, 15, dtype=DOUBLE, device=device).reshape(5, 3)


@pytest.mark.parametrize("own_times", [False, True])
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("name", methods("ode"))
def test_an_ode_method_gives_the_cpus_answer(name: str, coupled: bool, own_times: bool) -> None:
    if own_times and coupled:
        own_times = False
    options: dict[str, Any] = {} if methods("ode")[name].adaptive else {"dt": 0.03}

    def run(device: torch.device) -> Solution:
        w = WEIGHTS.to(device)
        ts = torch.linspace(0, 1, 6, dtype=DOUBLE)
        times = ts[:, None] * torch.linspace(0.5, 1.0, 5, dtype=DOUBLE) if own_times else ts
        return solve(
            lambda t, y: torch.tanh(y @ w) - t * y, states(device), times, method=name, coupled=coupled, **options
        )

    cpu, cuda = both(run)
    assert cuda.ys.device.type == "cuda"
    torch.testing.assert_close(cuda.ys.cpu(), cpu.ys, rtol=1e-9, atol=1e-11)
    assert torch.equal(cuda.stats.accepted.cpu(), cpu.stats.accepted)


@pytest.mark.parametrize("adapt", [False, True])
@pytest.mark.parametrize("name", methods("sde"))
def test_the_noise_is_the_same_on_both_devices(name: str, adapt: bool) -> None:
    if adapt and not methods("sde")[name].adaptive:
        pytest.skip("it takes fixed steps")
    how: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2} if adapt else {"dt": 0.013}
    term = noisy(name, lambda t, y: -y)
    cpu, cuda = both(lambda device: solve(term, states(device), [0.0, 1.0], seed=11, method=name, **how))
    torch.testing.assert_close(cuda.ys.cpu(), cpu.ys, rtol=1e-9, atol=1e-10)
    assert torch.equal(cuda.stats.steps.cpu(), cpu.stats.steps)


@pytest.mark.parametrize("adjoint", ["direct", "recompute", "backsolve", "auto"])
def test_gradients_are_the_cpus(adjoint: str) -> None:
    found = []
    for device in ("cpu", "cuda"):
        w = WEIGHTS.to(device).requires_grad_()
        y0 = states(torch.device(device)).requires_grad_()
        ys = solve(
            lambda t, y, w: torch.tanh(y @ w), y0, [0.0, 0.5, 1.0], args=w, adjoint=adjoint, rtol=1e-9, atol=1e-9
        ).ys
        found.append([g.cpu() for g in torch.autograd.grad((ys**2).sum(), (y0, w))])
    for got, want in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)


def test_a_failing_sample_and_dense_output_on_the_device() -> None:
    def run(device: torch.device) -> Solution:
        poison = torch.tensor([0.0, torch.nan, 0.0, 0.0, 0.0], dtype=DOUBLE, device=device)[:, None]
        field = lambda t, y: -y + torch.where(t > 0.5, poison, torch.zeros_like(poison))  # noqa: E731
        return solve(field, states(device), [0.0, 1.0], save="dense", throw=False)

    cpu, cuda = both(run)
    assert cuda.status.tolist() == cpu.status.tolist() == [0, 3, 0, 0, 0]
    torch.testing.assert_close(cuda.interpolate(0.3).cpu(), cpu.interpolate(0.3), rtol=1e-10, atol=1e-12)
