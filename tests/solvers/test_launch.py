"""Noise in one launch, through Triton's interpreter: the words of Philox bit by bit, its normals to rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.solvers.brownian import sample_seeds
from sciode.solvers.brownian.draws import Cells, standard_normals

pytest.importorskip("triton", reason="the launches are Triton")

from sciode.solvers.brownian import launch

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="Triton compiles here: see tests/gpu")

CLOSE = {torch.float64: 1e-14, torch.float32: 1e-6}
FIRST = {
    "a number": 3,
    "beyond 32 bits": 2**40,
    "below zero": -5,
    "one for all": torch.tensor([2**33 - 1]),
    "one a sample": torch.arange(6) * 2**31,
}


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("samples", [0, 1, 700])
def test_seeds_are_those_of_the_reference(seed: int, samples: int) -> None:
    assert torch.equal(launch.seeds(seed, samples, torch.device("cpu")), sample_seeds(seed, samples))


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST.keys())
@pytest.mark.parametrize("channels", [1, 4, 7])
@pytest.mark.parametrize("dtype", CLOSE)
def test_normals_are_those_of_the_reference(first: int | Tensor, channels: int, dtype: torch.dtype) -> None:
    for stride, purpose in ((1, 0), (-1, 2)):
        what: Any = (sample_seeds(7, 6), Cells(first, stride, 5), channels, purpose, dtype)
        ours, reference = launch.draw(*what), standard_normals(*what)
        assert ours.shape == (5, 6, channels)
        # Where the radius nearly vanishes, u rounds near 1: an error of eps there moves it by eps / radius.
        torch.testing.assert_close(ours, reference, rtol=CLOSE[dtype], atol=CLOSE[dtype])


def test_a_step_and_a_sample_more_change_nothing() -> None:
    many = launch.draw(sample_seeds(1, 9), Cells(0, 1, 8), 6, 1, torch.float64)
    few = launch.draw(sample_seeds(1, 4), Cells(2, 1, 3), 6, 1, torch.float64)
    assert torch.equal(many[2:5, :4], few)
