"""A Brownian tree walked down in one launch, through Triton's interpreter: the path that tensors sum up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciode.solvers.brownian import BrownianTree, sample_seeds, tree

pytest.importorskip("triton", reason="the launches are Triton")

from sciode.solvers.brownian.descent import descend

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="Triton compiles here: see tests/gpu")
DOUBLE = torch.float64
CLOCKS = {
    "one clock": (1, 1),
    "a clock for each sample": (5, 1),
    "an interval for each sample": (5, 5),
    "one clock over their own intervals": (1, 5),
}


def laid(channels: int, levels: int, roots: int = 1, samples: int = 5) -> BrownianTree:
    low, span = torch.linspace(-1.0, 0.5, roots, dtype=DOUBLE), torch.linspace(3.0, 4.0, roots, dtype=DOUBLE)
    return BrownianTree(sample_seeds(3, samples), channels, low, span, levels, True, DOUBLE)


def walked(path: BrownianTree, times: Tensor) -> tuple[Tensor, Tensor]:
    return descend(path.seeds, times, path.low, path.span, path.channels, path.levels, tree._PURPOSE)


@pytest.mark.parametrize("clocks", CLOCKS.values(), ids=CLOCKS.keys())
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_it_is_the_path_that_tensors_sum_up(clocks: tuple[int, int], channels: int) -> None:
    lanes, roots = clocks
    path = laid(channels, 12, roots)
    draw = torch.Generator().manual_seed(0)
    times = path.low.min() + 3 * torch.rand(4, lanes, generator=draw, dtype=DOUBLE)
    for ours, sums in zip(walked(path, times), path._summed(times), strict=True):
        assert ours.shape == (4, 5, channels)
        torch.testing.assert_close(ours, sums, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("levels", [1, 22, 29])
def test_at_ends_of_nodes_at_both_ends_and_beyond_them_it_is_that_path_too(levels: int) -> None:
    path = laid(3, levels)
    leaf = float(path.leaf)
    times = torch.tensor([-1.0, 2.0, 0.5, 0.5 + leaf, 0.5 + 1e-9 * leaf, -1.0 + leaf / 3, 5.0, -7.0], dtype=DOUBLE)
    for ours, sums in zip(walked(path, times[:, None]), path._summed(times[:, None]), strict=True):
        torch.testing.assert_close(ours, sums, rtol=1e-12, atol=1e-13)


def test_neither_other_times_nor_other_samples_have_a_say() -> None:
    path = laid(3, 22)
    times = torch.linspace(-0.9, 1.9, 7, dtype=DOUBLE)[:, None]
    many = walked(path, times)
    few = walked(path.of(torch.tensor([4, 1])), times[2:4])
    for a, b in zip(many, few, strict=True):
        assert torch.equal(a[2:4][:, [4, 1]], b)


def test_a_compiler_sees_one_operation_of_the_right_shape() -> None:
    path = laid(3, 22)
    arguments = (path.seeds, torch.zeros(4, 1, dtype=DOUBLE), path.low, path.span, 3, 22)
    torch.library.opcheck(tree._descended, arguments, test_utils=("test_schema", "test_faketensor"))
