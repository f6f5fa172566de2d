"""The count of live bytes."""

from __future__ import annotations

import gc

import torch

from sciode.testing import PeakMemory


def test_what_is_freed_counts_until_then() -> None:
    gc.collect()
    with PeakMemory() as peak:
        first = torch.zeros(1000, dtype=torch.float64)
        del first
        second = torch.zeros(500, dtype=torch.float64)
        view = second[10:]
        third = view + 1
    assert peak.bytes == 8000 and third.shape == (490,)


def test_a_tape_counts() -> None:
    x = torch.ones(100, requires_grad=True)
    peaks = []
    for steps in (5, 50):
        with PeakMemory() as peak:
            y = x
            for _ in range(steps):
                y = y.sin()
            y.sum().backward()
        peaks.append(peak.bytes)
    assert peaks[1] > 45 * 400 > peaks[0]
