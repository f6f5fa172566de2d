"""What a user gets wrong is named before the work, with the mend; nothing is silently something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sciode.diffusion import (
    ClassifierGuidance,
    MeasurementGuidance,
    VPLinear,
    estimate_ems,
    initial_noise,
    log_likelihood,
    sample,
)  # fmt: skip
from sciode.diffusion.editing import Region, RegionalNoise, code, edit_regions, repaint, sdedit
from sciode.diffusion.search import Search, search

SCHEDULE = VPLinear()
MASK = torch.tensor([True, False, True])


def _region(energy: Any) -> list[Region]:
    return [Region(MASK, energy)]


def _sampled(guidance: Any) -> Callable[..., Any]:
    return lambda m, x: sample(m, x, SCHEDULE, steps=2, guidance=guidance)


def _searched(score: Any) -> Callable[..., Any]:
    return lambda m, x: search(lambda recipe: score, SCHEDULE, 2, settings=Search(1, 2, 2, 2))


MISUSES: dict[str, tuple[str, Callable[..., Any]]] = {
    "a time as text": ("t_start: got '1'", lambda m, x: sample(m, x, SCHEDULE, t_start="1")),  # type: ignore[arg-type]
    "steps as grid": ("how many is `steps`", lambda m, x: sample(m, x, SCHEDULE, grid=10)),  # type: ignore[arg-type]
    "real seeds": ("whole numbers", lambda m, x: sample(m, x, SCHEDULE, sampler="ddpm", seed=torch.ones(4))),
    "one log_prob for all": (r"one number a sample, \[4\]", _sampled(ClassifierGuidance(lambda x, t: x.mean()))),
    "a measurement cut off": ("no gradient", _sampled(MeasurementGuidance(lambda x0, t: x0.detach().sum(1)))),
    "no function": ("pass a function", lambda m, x: ClassifierGuidance(3.0)),  # type: ignore[arg-type]
    "a model cut off": ("no gradient in x", lambda m, x: log_likelihood(lambda x, t: m(x, t).detach(), x, SCHEDULE)),
    "a prior of components": ("prior: expected one", lambda m, x: log_likelihood(m, x, SCHEDULE, prior=lambda x: x)),
    "statistics of half": ("half precision", lambda m, x: estimate_ems(m, x.half(), SCHEDULE)),
    "statistics swapped": ("a function and a tensor", lambda m, x: estimate_ems(x, m, SCHEDULE)),  # type: ignore[arg-type]
    "whole noise": ("dtype: expected", lambda m, x: initial_noise(SCHEDULE, (4, 3), dtype=torch.int64)),
    "a negative batch": ("shape: expected", lambda m, x: initial_noise(SCHEDULE, (-4, 3))),
    "a level as text": ("level: got", lambda m, x: sdedit(m, x, SCHEDULE, "0.3")),  # type: ignore[arg-type]
    "half an update": ("whole number", lambda m, x: code(m, x, SCHEDULE, 0.3, updates=2.5)),  # type: ignore[arg-type]
    "an option of sample": ("nfe: no option of an editor", lambda m, x: code(m, x, SCHEDULE, 0.3, nfe=20)),
    "half a repeat": ("whole number", lambda m, x: repaint(m, x, MASK, SCHEDULE, repeats=1.5)),  # type: ignore[arg-type]
    "one region": ("a list of Region", lambda m, x: edit_regions(m, x, SCHEDULE, _region(max)[0])),  # type: ignore[arg-type]
    "an energy cut off": (
        "energy: its value has no gradient",
        lambda m, x: edit_regions(m, x, SCHEDULE, _region(lambda x0, t: x0.detach().sum(1)), steps=2),
    ),
    "a window in steps": (
        "shares of the steps",
        lambda m, x: edit_regions(m, x, SCHEDULE, noise=RegionalNoise(MASK, window=(10, 20))),
    ),
    "noise as a number": ("pass RegionalNoise", lambda m, x: edit_regions(m, x, SCHEDULE, noise=0.5)),  # type: ignore[arg-type]
    "no score": ("one number >= 0", _searched(None)),
    "a negative score": ("one number >= 0", _searched(-1.0)),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_raises_a_value_error_with_the_mend(name: str, case) -> None:
    said, misuse = MISUSES[name]
    with pytest.raises(ValueError, match=said):
        misuse(case.model, case.x[:4])
