"""A prepared loop gives what `sample` gives, for new starts, seeds and conditions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.diffusion import ClassifierFree, Discrete, prepare, sample


@pytest.mark.parametrize("name", ["dpm++-3m", "unipc-3", "bdia", "ddpm", "edm-churn", "rk-tsit5", "lcm"])
@pytest.mark.parametrize("denoise_last", [False, True])
def test_it_is_sample(name: str, denoise_last: bool, case) -> None:
    if name == "bdia" and denoise_last:
        pytest.skip("bdia keeps its last state")
    options: dict[str, Any] = {"sampler": name, "steps": 7, "denoise_last": denoise_last}
    loop = prepare(case.model, torch.zeros_like(case.x), case.schedule, **options)
    for seed in (3, 4):
        x = case.x.roll(seed, 0)
        wanted = sample(case.model, x, case.schedule, seed=seed, return_info=True, **options)
        assert torch.equal(loop(x, seed=seed), wanted.x) and loop.nfe == wanted.nfe


def test_a_start_from_pure_noise_is_part_of_the_loop(case) -> None:
    schedule = Discrete(torch.linspace(0.99, 0.0, 50, dtype=torch.float64))
    options: dict[str, Any] = {"prediction": "x0", "steps": 5, "t_end": 1.0}

    def model(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x)

    loop = prepare(model, case.x, schedule, **options)
    assert torch.equal(loop(case.x), sample(model, case.x, schedule, **options)) and loop.nfe == 5


def test_conditions_are_filled_in(case) -> None:
    def model(x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return 0.5 * x + c

    first, second = torch.zeros(12, 3, dtype=torch.float64), torch.ones(12, 3, dtype=torch.float64)
    guidance = ClassifierFree(2.0, {"c": torch.zeros(1, 3, dtype=torch.float64)})
    loop = prepare(model, case.x, case.schedule, steps=4, cond={"c": first}, guidance=guidance)
    for cond in (second, first):
        wanted = sample(model, case.x, case.schedule, steps=4, cond={"c": cond}, guidance=guidance)
        assert torch.equal(loop(case.x, cond={"c": cond}), wanted)
    with pytest.raises(ValueError, match="another structure"):
        loop(case.x, cond={"d": first})


def test_samples_are_not_overwritten(case) -> None:
    loop = prepare(case.model, case.x, case.schedule, steps=3)
    first = loop(case.x)
    kept = first.clone()
    loop(2 * case.x)
    assert torch.equal(first, kept) and not first.requires_grad


def test_misuse_says_the_mend(case) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"graph": True}, "use graph=False"),
        ({"sampler": "adaptive-tsit5"}, "only samplers on a grid"),
        ({"seed": 3}, "none of its options"),
    ]
    for options, said in wrong:
        with pytest.raises(ValueError, match=said):
            prepare(case.model, case.x, case.schedule, **options)
    with pytest.raises(ValueError, match="pass a tensor"):
        prepare(case.model, case.x.numpy(), case.schedule)
    with pytest.raises(ValueError, match="prepared for"):
        prepare(case.model, case.x, case.schedule, steps=3)(case.x[:2])
