"""What the readings next to a time say about it: the straight line between them, and how far away they are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_AT_ONCE = 512  # series looked at together: bounds the memory


class Surroundings(NamedTuple):
    """For each query and channel [n, Q, C]: the line through its two nearest readings, and the times to them.

    line: interpolated between the last reading before and the next one after; the one there is if there is one, 0 (the
    mean of standardised data) if there is none. before, after: times to them, `cap` where there is none or more.
    """

    line: Tensor
    before: Tensor
    after: Tensor

    def features(self) -> Tensor:
        """Return them side by side, [n, Q, 3C]."""
        return torch.cat(self, -1)


def surroundings(values: Tensor, times: Tensor, queries: Tensor, cap: float) -> Surroundings:
    """Look at values [n, T, C] (NaN = missing) on times [n, T] (NaN = padding) from queries [n, Q]; float32.

    A reading at the very time of a query is the one before it, at distance 0.
    """
    parts = zip(values.split(_AT_ONCE), times.split(_AT_ONCE), queries.split(_AT_ONCE), strict=True)
    found = [_look(value, clock, query, cap) for value, clock, query in parts]
    return Surroundings(*(torch.cat(pieces).float() for pieces in zip(*found, strict=True)))


def _look(values: Tensor, times: Tensor, queries: Tensor, cap: float) -> tuple[Tensor, Tensor, Tensor]:
    length = values.shape[1]
    seen = ~values.isnan()
    place = torch.arange(length).view(1, length, 1)
    last = torch.where(seen, place, -1).cummax(1).values
    upcoming = torch.where(seen, place, length).flip(1).cummin(1).values.flip(1)
    own, asked = times.nan_to_num(nan=torch.inf).contiguous(), queries.nan_to_num(nan=0.0).contiguous()
    row = torch.searchsorted(own, asked, right=True).unsqueeze(-1)
    shape = (-1, -1, values.shape[2])
    # A row of nothing on each side stands for "no reading there".
    left = torch.cat([torch.full_like(last[:, :1], -1), last], 1).gather(1, row.expand(*shape))
    right = torch.cat([upcoming, torch.full_like(upcoming[:, :1], length)], 1).gather(1, row.expand(*shape))
    filled = values.nan_to_num(nan=0.0).double()
    clock = times.nan_to_num(nan=0.0).unsqueeze(-1).expand(*shape)
    query = queries.nan_to_num(nan=0.0).unsqueeze(-1)
    has_left, has_right = left >= 0, right < length
    left, right = left.clamp(min=0), right.clamp(max=length - 1)
    before = torch.where(has_left, query - clock.gather(1, left), cap).clamp(0, cap)
    after = torch.where(has_right, clock.gather(1, right) - query, cap).clamp(0, cap)
    low, high = filled.gather(1, left), filled.gather(1, right)
    gap = (clock.gather(1, right) - clock.gather(1, left)).clamp(min=1e-12)
    between = low + (high - low) * ((query - clock.gather(1, left)) / gap)
    alone = torch.where(has_left, low, torch.where(has_right, high, 0.0))
    return torch.where(has_left & has_right, between, alone), before, after
