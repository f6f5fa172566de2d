"""The kernel engine compiled for real: the solve of `eager` on the same GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sciode import SDETerm, solve
from sciode.bench.problems import lorenz, neural_ode
from sciode.bench.stochastic import neural_sde
from sciode.solvers.engines import choice

pytest.importorskip("triton", reason="the kernel engine writes Triton")
pytestmark = pytest.mark.gpu

TS = torch.linspace(0.0, 5.0, 21, dtype=torch.float64)


def start(batch: int = 100, size: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return (1 + torch.rand(batch, size, generator=draw, dtype=torch.float64)).to("cuda", dtype)


def van_der_pol(t: Tensor, y: Tensor, mu: Tensor) -> Tensor:
    return torch.stack((y[:, 1], mu * (1 - y[:, 0].square()) * y[:, 1] - y[:, 0]), 1)


def functions(t: Tensor, y: Tensor) -> Tensor:
    return (
        torch.tanh(y) * torch.sin(t) - torch.sigmoid(y) + torch.exp(-y * y) + torch.log1p(y * y).sqrt() - 0.1 * y**2.5
    )


def both(*arguments: Any, **options: Any) -> Any:
    with torch.no_grad():
        ours, eager = (solve(*arguments, engine=engine, **options) for engine in ("kernel", "eager"))
    assert ours.stats.engine == "kernel"
    return ours, eager


@pytest.mark.parametrize("method", ["tsit5", "dopri5", "vern7", "bosh3"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_adaptive_solves_are_those_of_eager(method: str, dtype: torch.dtype) -> None:
    mu = torch.linspace(0.5, 5, 100, device="cuda", dtype=dtype)
    ours, eager = both(van_der_pol, start(dtype=dtype), TS, args=mu, method=method, rtol=1e-5, atol=1e-7)
    close = 1e-8 if dtype == torch.float64 else 1e-2
    torch.testing.assert_close(ours.ys, eager.ys, rtol=close, atol=close)
    if dtype == torch.float64:
        assert torch.equal(ours.stats.accepted, eager.stats.accepted)
        assert torch.equal(ours.stats.rejected, eager.stats.rejected)


def test_elementary_functions_are_those_of_torch() -> None:
    ours, eager = both(functions, start(), TS, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(ours.ys, eager.ys, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["heun", "milstein", "reversibleheun"])
def test_paths_are_those_of_eager(method: str) -> None:
    term = SDETerm(lambda t, y: -y, lambda t, y: 0.3 * torch.cos(y), calculus="stratonovich")
    ours, eager = both(term, start(size=5), TS, method=method, dt=0.13, seed=3)
    torch.testing.assert_close(ours.ys, eager.ys, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("dim", "hidden"), [(16, 64), (5, 20), (16, 128)])
def test_networks_in_tiles_are_those_of_eager(dim: int, hidden: int, dtype: torch.dtype) -> None:
    problem = neural_ode(batch=100, dim=dim, hidden=hidden, dtype=dtype).to("cuda")

    def field(t: Tensor, y: Tensor) -> Tensor:
        return problem.field(t, torch.sin(t) + y)

    ours, eager = both(field, problem.y0, problem.ts.to(torch.float64), method="dopri5")
    close = 1e-8 if dtype == torch.float64 else 1e-3
    torch.testing.assert_close(ours.ys, eager.ys, rtol=close, atol=close)
    if dtype == torch.float64:
        assert torch.equal(ours.stats.accepted, eager.stats.accepted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("method", "calculus"), [("euler", "ito"), ("reversibleheun", "stratonovich")])
def test_neural_sdes_walk_the_paths_of_eager(method: str, calculus: Any, dtype: torch.dtype) -> None:
    problem = neural_sde(batch=100, method=method).to("cuda").to(dtype)
    term = SDETerm(problem.field.f, problem.field.g, calculus=calculus)
    ours, eager = both(term, problem.y0, problem.ts.tolist(), method=method, dt=0.013, seed=7, coupled=True)
    close = 1e-10 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(ours.ys, eager.ys, rtol=close, atol=close)


@pytest.mark.filterwarnings("ignore::sciode.solvers.engines.CompileNotice")
@pytest.mark.parametrize(
    ("width", "coupled", "engine"),
    [(64, False, "kernel"), (64, True, "graph"), (512, False, "graph")],
    ids=["small", "one step size", "wide"],
)
def test_auto_takes_the_kernel_for_small_networks_with_steps_of_their_own(
    width: int, coupled: bool, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCIODE_COMPILE", "1")
    monkeypatch.setattr(choice, "_SECONDS", 0.0)
    monkeypatch.setattr(choice, "_past", {})
    problem = neural_ode(batch=100, hidden=width).to("cuda")
    how: dict[str, Any] = {"method": "dopri5", "coupled": coupled}
    with torch.no_grad():
        *first, last = (solve(problem.field, problem.y0, problem.ts.tolist(), **how) for _ in range(5))
        eager = solve(problem.field, problem.y0, problem.ts.tolist(), engine="eager", **how)
    assert first[0].stats.engine == "eager" and last.stats.engine == engine
    torch.testing.assert_close(last.ys, eager.ys, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore::sciode.solvers.engines.CompileNotice")
def test_a_wide_network_does_not_inherit_what_suits_a_narrow_one_of_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIODE_COMPILE", "1")
    monkeypatch.setattr(choice, "_SECONDS", 0.0)
    monkeypatch.setattr(choice, "_past", {})
    found = []
    for width in (64, 512, 64):
        problem = neural_ode(batch=100, hidden=width).to("cuda")
        with torch.no_grad():
            found += [
                solve(problem.field, problem.y0, problem.ts.tolist(), method="dopri5").stats.engine for _ in "12345"
            ]
    assert found[:3] == ["eager"] * 3 and found[3:] == ["kernel"] * 2 + ["graph"] * 5 + ["kernel"] * 5


def test_a_solve_that_repeats_gives_the_same_numbers() -> None:
    mu = torch.linspace(0.5, 5, 100, device="cuda").double()
    with torch.no_grad():
        first, *rest = (solve(van_der_pol, start(), TS, args=mu, engine="kernel") for _ in range(3))
    for again in rest:
        assert torch.equal(first.ys, again.ys) and torch.equal(first.stats.nfe, again.stats.nfe)


def test_many_trajectories_take_little_more_memory_than_their_states_and_outputs() -> None:
    problem = lorenz(batch=100_000, end=1.0).to("cuda")
    with torch.no_grad():
        solve(problem.field, problem.y0, problem.ts, rtol=1e-6, engine="kernel")
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated() - problem.y0.numel() * problem.y0.element_size()
        torch.cuda.reset_peak_memory_stats()
        solve(problem.field, problem.y0, problem.ts, rtol=1e-6, engine="kernel")
    assert torch.cuda.max_memory_allocated() - before <= 2 * problem.least_bytes


def test_gradients_are_those_of_the_tape() -> None:
    def gradient(engine: str, adjoint: str) -> tuple[Tensor, ...]:
        y0, mu = start().requires_grad_(), torch.linspace(0.5, 3, 100, device="cuda").double().requires_grad_()
        solution = solve(van_der_pol, y0, TS, args=mu, engine=engine, adjoint=adjoint)
        assert solution.stats.engine == engine
        return torch.autograd.grad(solution.ys.square().mean(), (y0, mu))

    for a, b in zip(gradient("kernel", "recompute"), gradient("eager", "direct"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
