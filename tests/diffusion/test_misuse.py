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
from sciode.diffusion.editing import Region, RegionalNoise, TimeTravel, code, edit_regions, repaint, sdedit
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
    "several times": ("t_end: got a Tensor", lambda m, x: sample(m, x, SCHEDULE, t_end=torch.ones(3))),  # type: ignore[arg-type]
    "no as text": ("denoise_last: got 'no'; pass True", lambda m, x: sample(m, x, SCHEDULE, denoise_last="no")),  # type: ignore[arg-type]
    "info as text": ("return_info: got 'no'", lambda m, x: sample(m, x, SCHEDULE, return_info="no")),  # type: ignore[arg-type]
    "steps as grid": ("how many is `steps`", lambda m, x: sample(m, x, SCHEDULE, grid=10)),  # type: ignore[arg-type]
    "real seeds": ("whole numbers", lambda m, x: sample(m, x, SCHEDULE, sampler="ddpm", seed=torch.ones(4))),
    "real seeds in a list": ("whole numbers", lambda m, x: sample(m, x, SCHEDULE, sampler="ddpm", seed=[1.5] * 4)),  # type: ignore[arg-type]
    "one log_prob for all": (r"one number a sample, \[4\]", _sampled(ClassifierGuidance(lambda x, t: x.mean()))),
    "a measurement cut off": ("no gradient", _sampled(MeasurementGuidance(lambda x0, t: x0.detach().sum(1)))),
    "no function": ("pass a function", lambda m, x: ClassifierGuidance(3.0)),  # type: ignore[arg-type]
    "a model cut off": (
        "model: its value has no gradient",
        lambda m, x: log_likelihood(lambda x, t: m(x, t).detach(), x, SCHEDULE),
    ),
    "a prior of components": ("prior: expected one", lambda m, x: log_likelihood(m, x, SCHEDULE, prior=lambda x: x)),
    "a prior that is a number": ("prior: got 3", lambda m, x: log_likelihood(m, x, SCHEDULE, prior=3)),  # type: ignore[arg-type]
    "a density beyond": ("far beyond the schedule", lambda m, x: log_likelihood(m, x, SCHEDULE, t_start=5.0)),
    "a density before": ("0 <= t_end", lambda m, x: log_likelihood(m, x, SCHEDULE, t_end=-0.1)),
    "half a probe": ("whole number", lambda m, x: log_likelihood(m, x, SCHEDULE, probes=1.5)),  # type: ignore[arg-type]
    "statistics of half": ("half precision", lambda m, x: estimate_ems(m, x.half(), SCHEDULE)),
    "statistics swapped": ("a function and a tensor", lambda m, x: estimate_ems(x, m, SCHEDULE)),  # type: ignore[arg-type]
    "whole noise": ("dtype: expected", lambda m, x: initial_noise(SCHEDULE, (4, 3), dtype=torch.int64)),
    "a negative batch": ("shape: expected", lambda m, x: initial_noise(SCHEDULE, (-4, 3))),
    "a level as text": ("level: got", lambda m, x: sdedit(m, x, SCHEDULE, "0.3")),  # type: ignore[arg-type]
    "half an update": ("whole number", lambda m, x: code(m, x, SCHEDULE, 0.3, updates=2.5)),  # type: ignore[arg-type]
    "half a part": ("whole number", lambda m, x: code(m, x, SCHEDULE, 0.3, anneal=1.5)),  # type: ignore[arg-type]
    "no factor": ("factor > 0", lambda m, x: code(m, x, SCHEDULE, 0.3, factor=float("nan"))),
    "times of another level": ("let them agree", lambda m, x: code(m, x, SCHEDULE, 0.3, grid=[0.9, 0.1], steps=1)),
    "times of other steps": ("make 1 steps", lambda m, x: edit_regions(m, x, SCHEDULE, grid=[1.0, 0.001], steps=4)),
    "an option of sample": ("nfe: no option of an editor", lambda m, x: code(m, x, SCHEDULE, 0.3, nfe=20)),
    "half a repeat": ("whole number", lambda m, x: repaint(m, x, MASK, SCHEDULE, repeats=1.5)),  # type: ignore[arg-type]
    "one region": ("a list of Region", lambda m, x: edit_regions(m, x, SCHEDULE, _region(max)[0])),  # type: ignore[arg-type]
    "regions that run out": ("a list of Region", lambda m, x: edit_regions(m, x, SCHEDULE, iter(_region(max)))),  # type: ignore[arg-type]
    "no energy": ("energy: got 3; pass a function", lambda m, x: _region(3)),
    "an energy cut off": (
        "energy: its value has no gradient",
        lambda m, x: edit_regions(m, x, SCHEDULE, _region(lambda x0, t: x0.detach().sum(1)), steps=2),
    ),
    "a window in steps": (
        "shares of the steps",
        lambda m, x: edit_regions(m, x, SCHEDULE, noise=RegionalNoise(MASK, window=(10, 20))),
    ),
    "half a travel": ("repeats: got 1.5", lambda m, x: TimeTravel(repeats=1.5)),  # type: ignore[arg-type]
    "noise as a number": ("pass RegionalNoise", lambda m, x: edit_regions(m, x, SCHEDULE, noise=0.5)),  # type: ignore[arg-type]
    "more noise than there is": ("inside: got 1.5", lambda m, x: RegionalNoise(MASK, 1.5)),
    "noise below none": ("outside: got -0.1", lambda m, x: RegionalNoise(MASK, outside=-0.1)),
    "no score": ("one number >= 0", _searched(None)),
    "a negative score": ("one number >= 0", _searched(-1.0)),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_raises_a_value_error_with_the_mend(name: str, case) -> None:
    said, misuse = MISUSES[name]
    with pytest.raises(ValueError, match=said):
        misuse(case.model, case.x[:4])


def test_a_score_that_is_no_number_is_the_worst_and_not_the_best() -> None:
    """It compares with nothing: the first would stay the lowest."""
    scores = iter([float("nan"), *(1 / n for n in range(1, 1000))])
    found = search(lambda recipe: next(scores), SCHEDULE, 2, settings=Search(1, 2, 2, 2))
    assert found.score == min(score for _, score in found.tried[1:]) and found.tried[0][1] == float("inf")
