"""Of readings with gaps, the part that has none."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["largest_table", "whole_tables"]


def largest_table(points: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Of points [N, d] and values [F, N, c] the largest table without a gap, if sensors leave in the order of how many
    readings they lack: points [n, d] and values [f, n, c], both in their order; f is 0 where no sensor ever read all
    channels at once.

    A sensor that is silent all the time so costs itself and no frame, one that is silent for a moment costs that frame.
    """
    missing = ~values.isfinite().all(-1)
    order = missing.sum(0).argsort(stable=True)
    whole = missing[:, order].cumsum(1) == 0  # [F, N], of the first sensors of that order
    best = int((whole.sum(0) * (whole.new_ones(len(order)).cumsum(0))).argmax())
    sensors = order[: best + 1].sort().values
    return points[sensors.to(points.device)], values[whole[:, best]][:, sensors]


def whole_tables(points: Tensor, values: Tensor, most: int) -> list[tuple[Tensor, Tensor]]:
    """Tables without a gap, as `largest_table`'s, of frames that the same sensors have read, the largest few."""
    there = values.isfinite().all(-1)
    patterns, which, counts = torch.unique(there, dim=0, return_inverse=True, return_counts=True)
    sizes = counts * patterns.sum(1)
    chosen = sizes.argsort(descending=True, stable=True)[:most].tolist()
    return [
        (points[patterns[number].to(points.device)], values[which == number][:, patterns[number]])
        for number in chosen if sizes[number]
    ]  # fmt: skip
