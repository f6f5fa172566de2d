"""Inversion: exact where a memory is given, stable where it is claimed, approximate and of its order elsewhere."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from sciode.diffusion import VPLinear, invert, round_trip, sample, sampler


def _rmse(found) -> float:
    return float(found.rmse.square().mean().sqrt())


@pytest.mark.parametrize("steps", [10, 40, 100, 200])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 2e-15)])
def test_bdia_comes_back_to_rounding_at_any_number_of_steps(steps: int, dtype, bound: float, case) -> None:
    found = round_trip(case.model, case.x.to(dtype), case.schedule, steps=steps)
    assert found.inverted.exact and found.inverted.growth == 1 and _rmse(found) <= bound


def test_rounding_grows_like_gamma_to_the_minus_n(case) -> None:
    """The law of BDIA below 1, and its warning; the slope of the logarithm is that of 1 / gamma."""
    errors = []
    for steps in (20, 60):
        row = sampler("bdia", gamma=0.6)
        with pytest.warns(UserWarning, match="multiplies rounding") if steps == 60 else nullcontext():
            found = round_trip(case.model, case.x, case.schedule, sampler=row, steps=steps, t_end=0.05)
        assert found.inverted.growth == pytest.approx(0.6 ** -(steps - 1), rel=1e-9)
        errors.append(_rmse(found))
    # Forty steps more multiply by 0.6^-40 = 7.5e8.
    assert 0.6**-34 < errors[1] / errors[0] < 0.6**-46


@pytest.mark.parametrize("name", ["edict", "belm"])
def test_edict_and_belm_come_back_within_their_growth(name: str, case) -> None:
    for steps in (10, 60):
        found = round_trip(case.model, case.x, case.schedule, sampler=name, steps=steps)
        assert found.inverted.exact and found.sampled.memory is not None
        assert _rmse(found) < 2e-16 * 100 * found.inverted.growth
        assert _rmse(found) < 1e-11


def test_belm_multiplies_rounding_by_the_square_of_its_outer_steps(case) -> None:
    """In y = x / alpha: the ratio of the first step of rho to the last, squared."""
    low, high = (float(case.schedule.half_log_snr(t)) for t in (1.0, 1e-3))
    nodes = torch.linspace(low, high, 21, dtype=torch.float64)
    rho, t = torch.exp(-nodes), case.schedule.t_of(nodes)
    alpha = case.schedule.alpha(t)
    wanted = ((rho[1] - rho[0]) / (rho[-1] - rho[-2])) ** 2 * alpha[0] * alpha[1] / (alpha[-1] * alpha[-2])
    found = round_trip(case.model, case.x, case.schedule, sampler="belm", steps=20)
    assert found.inverted.growth == pytest.approx(float(wanted), rel=1e-6)


def test_float32_warns_where_a_growth_is_too_large(case) -> None:
    with pytest.warns(UserWarning, match="float64, or bdia with gamma=1"):
        round_trip(case.model, case.x.float(), case.schedule, sampler="edict", steps=100)


@pytest.mark.parametrize(("name", "order"), [("dpm++-2m", 2), ("rk-rk4", 4), ("rf-solver", 2)])
def test_other_samplers_run_backwards_at_their_order(name: str, order: int, case) -> None:
    errors = [_rmse(round_trip(case.model, case.x, case.schedule, sampler=name, steps=n)) for n in (80, 160)]
    assert math.log2(errors[0] / errors[1]) > order - 0.4
    assert not round_trip(case.model, case.x, case.schedule, sampler=name, steps=20).inverted.exact


def test_an_adaptive_sampler_runs_backwards_at_its_tolerance(case) -> None:
    row = sampler("adaptive-tsit5", rtol=1e-8, atol=1e-9)
    assert _rmse(round_trip(case.model, case.x, case.schedule, sampler=row)) < 1e-5
    assert _rmse(round_trip(case.model, case.x, case.schedule, sampler=sampler("dpm-adaptive-3", rtol=1e-4))) < 2e-2


@pytest.mark.parametrize(("name", "finest"), [("bdia", 400), ("edict", 100), ("belm", 400)])
def test_a_point_that_was_not_sampled_is_inverted_approximately(name: str, finest: int, case) -> None:
    """Sampling from the noise that is found gives the point back, the better the finer (edict: while it is stable)."""
    points = case.mixture.draw(6, seed=2)
    errors = []
    for steps in (finest // 4, finest):
        noise = invert(case.model, points, case.schedule, sampler=name, steps=steps, return_info=True)
        assert not noise.exact and noise.nfe == (2 * steps if name == "edict" else steps)
        again = sample(case.model, noise.x, case.schedule, sampler=name, steps=steps)
        errors.append(float((again - points).square().mean().sqrt()))
    assert errors[1] < errors[0] and errors[1] < 0.03


def test_misuse_says_the_mend(case) -> None:
    x = case.x
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"sampler": "ddpm"}, "draws noise"),
        ({"sampler": sampler("ddim", eta=0.5)}, "with these options draws noise"),
        ({"sampler": "dpm++-3m", "memory": x}, "has no exact inversion"),
        ({"memory": x[:2]}, "expected that of x's own sample"),
    ]
    for options, said in wrong:
        with pytest.raises(ValueError, match=said):
            invert(case.model, x, case.schedule, **options)
    with pytest.raises(ValueError, match="throws away"):
        sample(case.model, x, VPLinear(), sampler="bdia", denoise_last=True)


@pytest.mark.parametrize("name", ["bdia", "ddim"])
def test_half_precision_states_are_inverted_in_float32(name: str) -> None:
    """Memory keeps float32's digits; the way back is that of float32 states from the sample as it was rounded."""

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 0.5 * torch.tanh(x)

    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    options = {"sampler": name, "steps": 10}
    there = sample(model, x, VPLinear(), return_info=True, **options)
    back = invert(model, there.x, VPLinear(), memory=there.memory, **options)
    assert there.x.dtype == back.dtype == torch.bfloat16
    assert there.memory is None or there.memory.dtype == torch.float32
    seen = invert(
        lambda x, t: model(x.to(torch.bfloat16), t).float(), there.x.float(), VPLinear(), memory=there.memory, **options
    )
    assert torch.equal(back, seen.to(torch.bfloat16))
