"""Sampling on CUDA: captured loops, gradients at constant memory, and no wait for the device."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from sciode.bench.sampling import SmallUnet, routes
from sciode.diffusion import ClassifierFree, VPLinear, prepare, sample

pytestmark = pytest.mark.gpu
SCHEDULE = VPLinear()


@pytest.fixture(scope="module")
def net() -> SmallUnet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallUnet(32).cuda()


def _noise(batch: int = 8, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, 1, 28, 28, generator=torch.Generator().manual_seed(seed)).cuda()


@pytest.mark.parametrize("name", ["dpm++-3m", "unipc-3", "bdia", "ddpm", "dpm++-3m-sde", "rk-tsit5", "lcm"])
def test_a_captured_loop_is_sample(name: str, net: SmallUnet) -> None:
    options: dict[str, Any] = {"sampler": name, "steps": 6}
    loop = prepare(net, _noise(), SCHEDULE, **options)
    for seed in (3, 4):
        x = _noise(seed=seed)
        with torch.no_grad():
            wanted = sample(net, x, SCHEDULE, seed=seed, **options)
        torch.testing.assert_close(loop(x, seed=seed), wanted, rtol=1e-4, atol=1e-4)


def test_a_captured_loop_takes_new_conditions(net: SmallUnet) -> None:
    def model(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return net(x + c, t)

    guidance = ClassifierFree(2.0, {"c": torch.zeros(1, 1, 1, 1).cuda()})
    options: dict[str, Any] = {"steps": 5, "guidance": guidance}
    loop = prepare(model, _noise(), SCHEDULE, cond={"c": torch.zeros(8, 1, 1, 1).cuda()}, **options)
    cond = {"c": torch.linspace(-1, 1, 8).reshape(8, 1, 1, 1).cuda()}
    with torch.no_grad():
        wanted = sample(model, _noise(), SCHEDULE, cond=cond, **options)
    torch.testing.assert_close(loop(_noise(), cond=cond), wanted, rtol=1e-4, atol=1e-4)


def test_a_model_that_looks_at_values_is_named(net: SmallUnet) -> None:
    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return net(x, t) if float(t[0]) > 0 else x

    with pytest.raises(RuntimeError, match="graph=False"):
        prepare(model, _noise(), SCHEDULE, steps=3)
    torch.cuda.synchronize()


@pytest.mark.parametrize("name", ["dpm++-3m", "bdia", "dpm++-3m-sde"])
def test_the_prepared_loop_never_waits(name: str, net: SmallUnet) -> None:
    loop = prepare(net, _noise(), SCHEDULE, sampler=name, steps=4, graph=False)
    seeds = torch.arange(8)
    loop(_noise(), seed=seeds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            loop._run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_peak_memory_through_inversion_does_not_grow() -> None:
    """The bar: 100 steps within 1.15 of 10, gradients within 1e-5 of the tape's."""
    rows = {(row.name, row.steps): row for row in routes("cuda", 8, width=32)}
    few, many = (rows["reversible (bdia)", n] for n in (10, 100))
    assert many.peak <= 1.15 * few.peak and max(few.gap, many.gap) <= 1e-5
    assert rows["direct", 100].peak > 5 * rows["direct", 10].peak
    assert rows["checkpoint", 100].peak < 0.2 * rows["direct", 100].peak
