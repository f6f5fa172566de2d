"""Noise compiled for real: the path that the CPU walks, in few launches and without a word from the device."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from sciode import SDETerm, sample_seeds, solve
from sciode.solvers.brownian import BrownianTree, CounterNoise, Ending
from sciode.solvers.brownian.draws import Cells, kernels_for, standard_normals

pytest.importorskip("triton", reason="the launches are Triton")
pytestmark = pytest.mark.gpu

CLOSE = {torch.float64: 1e-13, torch.float32: 3e-6}
WIENER = SDETerm(lambda t, y: torch.zeros_like(y), lambda t, y: torch.ones_like(y))


def test_triton_works_here() -> None:
    assert kernels_for(torch.device("cuda")) is not None


@contextmanager
def unsynchronised() -> Iterator[None]:
    """Whatever waits for the device raises; torch warns that it may miss some waits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("levels", [12, 26])
def test_a_tree_is_that_of_the_cpu(levels: int, channels: int) -> None:
    low, span = torch.tensor([-1.0], dtype=torch.float64), torch.tensor([3.0], dtype=torch.float64)
    times = torch.linspace(-1.1, 2.1, 600 * 7, dtype=torch.float64).reshape(7, 600)
    path = BrownianTree(sample_seeds(3, 600), channels, low, span, levels, True, torch.float64)
    there = replace(path, seeds=path.seeds.cuda(), low=low.cuda(), span=span.cuda())
    for ours, true in zip(there._at(times.cuda()), path._at(times), strict=True):
        torch.testing.assert_close(ours.cpu(), true, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("seed", [0, -1, 2**31, 2**63 - 1, -(2**63)])
def test_seeds_are_those_of_the_cpu(seed: int) -> None:
    assert torch.equal(sample_seeds(seed, 5000, "cuda").cpu(), sample_seeds(seed, 5000))


@pytest.mark.parametrize("first", [3, 2**40, -5, torch.tensor([2**33 - 1]), torch.arange(600) * 2**31])
@pytest.mark.parametrize("channels", [1, 4, 7])
@pytest.mark.parametrize("dtype", CLOSE)
def test_normals_are_those_of_the_cpu(first: int | Tensor, channels: int, dtype: torch.dtype) -> None:
    seeds = sample_seeds(7, 600)
    there = first.cuda() if isinstance(first, Tensor) else first
    for stride, purpose in ((1, 0), (-1, 2)):
        ours = standard_normals(seeds.cuda(), Cells(there, stride, 5), channels, purpose, dtype)
        reference = standard_normals(seeds, Cells(first, stride, 5), channels, purpose, dtype)
        # Where the radius nearly vanishes an error of eps in log(u) moves it by eps / radius.
        torch.testing.assert_close(ours.cpu(), reference, rtol=CLOSE[dtype], atol=CLOSE[dtype])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("cut", [0.1, 0.03])
@pytest.mark.parametrize("lanes", [1, 40])
def test_blocks_are_those_of_the_cpu(sign: int, cut: float, lanes: int) -> None:
    seeds = sample_seeds(2, 40)
    ending = Ending(9 + np.arange(lanes) % 3, np.full(lanes, cut))
    ours, reference = (
        CounterNoise(s, 5, 0.1, sign, ending, ending, torch.float64).block(2, 10) for s in (seeds.cuda(), seeds)
    )
    torch.testing.assert_close(ours.cpu(), reference, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("ts", [[0.0, 1.0], [1.0, 0.0]])
@pytest.mark.parametrize("dt", [0.125, 0.3])
@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_paths_are_those_of_the_cpu(ts: list[float], dt: float, engine: str) -> None:
    y0 = torch.zeros(30, 3, dtype=torch.float64)
    with torch.no_grad():
        ours = solve(WIENER, y0.cuda(), ts, dt=dt, seed=5, method="euler", engine=engine)
        reference = solve(WIENER, y0, ts, dt=dt, seed=5, method="euler", engine="eager")
    assert ours.stats.engine == engine
    torch.testing.assert_close(ours.ys.cpu(), reference.ys, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("adjoint", ["direct", "recompute"])
def test_a_longer_solve_after_a_shorter_one_has_noise_of_its_own(adjoint: str) -> None:
    term = SDETerm(lambda t, y: torch.sin(y), lambda t, y: 0.3 * torch.cos(y), calculus="stratonovich")
    for steps in (4, 40, 4, 21):
        found = []
        for engine in ("graph", "eager"):
            y0 = torch.ones(30, 3, dtype=torch.float64, device="cuda", requires_grad=True)
            how = {"method": "reversibleheun", "dt": 1 / 8, "seed": steps, "adjoint": adjoint, "engine": engine}
            solution = solve(term, y0, [0.0, steps / 8], **how)
            assert solution.stats.engine == engine
            found.append((solution.ys.detach(), *torch.autograd.grad(solution.ys.square().sum(), y0)))
        for ours, eager in zip(*found, strict=True):
            torch.testing.assert_close(ours, eager, rtol=1e-10, atol=1e-12)


def launches(function: Any) -> int:
    """Kernels and copies that a call puts on the device."""
    function()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as seen:
        function()
        torch.cuda.synchronize()
    return sum(e.count for e in seen.key_averages() if e.device_type.name == "CUDA")


def test_a_block_takes_two_launches_an_end_five_more_and_seeds_one() -> None:
    seeds = sample_seeds(2, 512, "cuda")
    even, uneven = (Ending(np.array([100]), np.array([cut])) for cut in (0.01, 0.004))
    for ending, most in ((even, 2), (uneven, 7)):
        for sign in (1, -1):
            noise = CounterNoise(seeds, 32, 0.01, sign, ending, ending, torch.float32)
            allowed = most if sign > 0 or most == 2 else 20
            assert launches(lambda noise=noise: noise.block(0, 100)) <= allowed
    assert launches(lambda: sample_seeds(2, 512, "cuda")) == 1


def test_noise_never_waits_for_the_device() -> None:
    seeds = sample_seeds(2, 64, "cuda")
    with unsynchronised():
        for cut in (0.01, 0.004):
            ending = Ending(np.array([100]), np.array([cut]))
            for sign in (1, -1):
                CounterNoise(seeds, 8, 0.01, sign, ending, ending, torch.float32).block(0, 100)
        sample_seeds(3, 64, "cuda")
