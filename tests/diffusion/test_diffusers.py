"""diffusers' schedulers as oracles where they are right, and where they are not."""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch

from sciode.bench.diffusers_peers import PEERS, available, sample_with
from sciode.diffusion.grids import times_of
from sciode.diffusion.path import Path
from sciode.diffusion.samplers.registry import catalogue

pytestmark = [
    pytest.mark.skipif(not available(), reason="diffusers is not installed: pip install sciode[diffusion]"),
    # Its own libraries warn when they are first imported.
    pytest.mark.filterwarnings("ignore"),
]
RIGHT = [name for name, peer in PEERS.items() if peer.ours is not None]
# DPMSolverMultistepScheduler computes its steps in float32, whatever it is given.
SINGLE = 5e-6


@pytest.mark.parametrize("grid", ["log-snr", "karras", "uniform"])
@pytest.mark.parametrize("name", RIGHT)
def test_diffusers_takes_the_same_steps(name: str, grid: str, case, drift) -> None:
    peer, steps = PEERS[name], 12
    path = Path.of(case.schedule, times_of(grid, case.schedule, steps, 1.0, 1e-3))
    assert peer.ours is not None
    ours = drift(catalogue()[peer.ours], case, steps, grid=grid)
    theirs = sample_with(peer, case.model, case.x, path)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11 if "unipc" in name else SINGLE)


def _theirs(name: str, case, steps: int) -> torch.Tensor:
    path = Path.of(case.schedule, times_of("log-snr", case.schedule, steps, 1.0, 1e-3))
    return sample_with(PEERS[name], case.model, case.x, path)


def test_their_third_order_is_of_order_two(case, drift) -> None:
    """Half of the second derivative is missing: reference, section 5.4. If this fails, they have mended it."""
    errors = [case.error(_theirs("dpmsolver++ 3", case, n)) for n in (80, 160)]
    assert math.log2(errors[0] / errors[1]) < 2.4
    assert case.error(drift(catalogue()["dpm++-3m"], case, 160)) < 0.45 * errors[1]


def test_the_third_order_pays_where_steps_are_many(cases, drift) -> None:
    """80 evaluations, three mixtures; at 20 the gain is small or none (notebooks/results)."""
    for one in cases:
        assert one.error(drift(catalogue()["dpm++-3m"], one, 80)) <= 0.55 * one.error(_theirs("dpmsolver++ 3", one, 80))


@pytest.mark.parametrize(("name", "evaluations"), [("unipc-asinh-2", 10), ("unipc-asinh-3", 20)])
def test_noise_in_asinh_of_the_snr_pays_where_steps_are_few(name: str, evaluations: int, cases, drift) -> None:
    """Geometric mean of three mixtures: at most 0.55 of diffusers' third order, without statistics of the model."""
    ratios = [
        one.error(drift(catalogue()[name], one, evaluations)) / one.error(_theirs("dpmsolver++ 3", one, evaluations))
        for one in cases
    ]
    assert max(ratios) < 0.7 and math.prod(ratios) ** (1 / 3) <= 0.55, ratios


def test_their_third_order_sde_is_of_order_one(case, drift) -> None:
    """A sign in the weight of the second derivative: reference, section 5.5."""
    fine = drift(catalogue()["dpm++-3m-sde"], case, 1280)
    errors = [float((_theirs("sde-dpmsolver++ 3", case, n) - fine).square().mean().sqrt()) for n in (80, 160)]
    assert math.log2(errors[0] / errors[1]) < 1.7


def test_their_bh1_divides_by_an_infinite_step_where_the_last_sigma_is_zero(case) -> None:
    """UniPC with bh1 and its default end: the last step is infinitely long, and infinity times zero is added. Ours ends
    by a data prediction. If this fails, they have mended it."""
    from sciode.diffusion.diffusers import SciodeScheduler

    theirs: Any = importlib.import_module("diffusers").UniPCMultistepScheduler(solver_type="bh1")
    kind: Any = SciodeScheduler
    ends = []
    for scheduler in (theirs, kind.from_config(theirs.config, sampler="unipc-2-bh1")):
        scheduler.set_timesteps(8)
        x = case.x
        for t in scheduler.timesteps:
            x = scheduler.step(torch.zeros_like(x), t, x).prev_sample
        ends.append(x)
    assert ends[0].isnan().all() and ends[1].isfinite().all()
