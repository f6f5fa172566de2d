"""Predictions of all kinds say the same."""

from __future__ import annotations

import pytest
import torch

from sciode.diffusion import EDM, PREDICTIONS, RectifiedFlow, VPLinear, convert, sample
from sciode.testing import GaussianMixture

SCHEDULES = {"vp": (VPLinear(), 0.6), "edm": (EDM(), 3.0), "flow": (RectifiedFlow(), 0.6)}


def _truth(name: str):
    schedule, t = SCHEDULES[name]
    draw = {"generator": torch.Generator().manual_seed(0), "dtype": torch.float64}
    x0, eps = torch.randn(4, 3, **draw), torch.randn(4, 3, **draw)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    down, up = schedule.slopes(t)
    every = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0, "score": -eps / sigma, "flow": down * x0 + up * eps}
    return schedule, t, alpha * x0 + sigma * eps, every


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("source", PREDICTIONS)
def test_each_prediction_becomes_every_other(name: str, source: str) -> None:
    schedule, t, x, every = _truth(name)
    for target, wanted in every.items():
        torch.testing.assert_close(
            convert(every[source], x, schedule, t, source, target), wanted, rtol=1e-11, atol=1e-11
        )


def test_times_may_differ_from_sample_to_sample() -> None:
    schedule = VPLinear()
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    both = convert(x, x, schedule, t, "v", "x0")
    each = [convert(x[i : i + 1], x[i : i + 1], schedule, float(t[i]), "v", "x0") for i in range(3)]
    torch.testing.assert_close(both, torch.cat(each), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("prediction", [p for p in PREDICTIONS if p != "eps"])
@pytest.mark.parametrize("sampler", ["dpm++-3m", "deis-tab-2", "rf-solver"])
def test_a_sampler_gives_one_sample_whatever_the_model_predicts(prediction: str, sampler: str) -> None:
    mixture, schedule = GaussianMixture.random(3), VPLinear()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    by_eps = sample(mixture.model(schedule), x, schedule, sampler=sampler, steps=12)
    other = sample(mixture.model(schedule, prediction), x, schedule, sampler=sampler, steps=12, prediction=prediction)
    torch.testing.assert_close(other, by_eps, rtol=1e-9, atol=1e-9)


def test_an_unknown_prediction_is_named() -> None:
    with pytest.raises(ValueError, match="Did you mean 'score'"):
        sample(lambda x, t: x, torch.zeros(1, 2), VPLinear(), prediction="scores")
