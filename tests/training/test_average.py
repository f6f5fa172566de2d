"""The average of weights: its law, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sciode.training import Average
from sciode.training.average import power_of


def _ramp(average: Average, network: nn.Linear, steps: int) -> float:
    """Weights that are n after step n."""
    for n in range(1, steps + 1):
        with torch.no_grad():
            network.weight.fill_(float(n))
        average.update(network, n)
    return float(average.network.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [0.05, 0.1, 0.25])
def test_the_power_gives_the_law_its_width(width: float) -> None:
    p = power_of(width)
    u = (np.arange(100_000) + 0.5) / 100_000
    weight = (p + 1) * u**p
    mean = (weight * u).mean()
    assert (weight * (u - mean) ** 2).mean() ** 0.5 == pytest.approx(width, rel=1e-3)


def test_the_average_of_a_ramp_is_the_mean_of_its_law_whenever_it_is_stopped(seeded) -> None:
    with seeded(0):
        network = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    for steps in (200, 1000):
        average = Average(network, width=0.1)
        expected = (average.power + 1) / (average.power + 2)
        assert _ramp(average, network, steps) / steps == pytest.approx(expected, abs=1 / steps)


def test_a_decay_is_the_usual_exponential_average(seeded) -> None:
    with seeded(0):
        network = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        network.weight.data.zero_()
    average = Average(network, decay=0.9)
    aim = sum(0.1 * 0.9 ** (20 - n) * n for n in range(1, 21))
    assert _ramp(average, network, 20) == pytest.approx(aim, rel=1e-12)


def test_the_average_is_a_copy_without_gradients_and_takes_buffers_as_they_are(seeded) -> None:
    with seeded(0):
        network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = Average(network)
    network(torch.ones(4, 2))
    average.update(network, 1)
    assert not any(p.requires_grad for p in average.network.parameters())
    for own, new in zip(average.network.state_dict().values(), network.state_dict().values(), strict=True):
        assert own.data_ptr() != new.data_ptr()
        torch.testing.assert_close(own, new)


def test_widths_and_decays_without_sense_are_refused(seeded) -> None:
    with seeded(0):
        network = nn.Linear(1, 1)
    for wrong in ({"width": 0.0}, {"width": 0.3}, {"decay": 1.0}):
        with pytest.raises(ValueError, match=r"width|decay"):
            Average(network, **wrong)  # type: ignore[arg-type]
