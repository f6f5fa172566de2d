"""The range of all that sensors ever read, and who has left it: how a forecast that runs away is told."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sciode.data.flow import FlowSet

__all__ = ["Bounds", "bounds_of"]

_ROOM = 0.5
"""Of the range's width, to both sides: other flows read somewhat more than those of training, what runs away far more.
"""


class Bounds(NamedTuple):
    """lowest, highest: [c] float64, of readings."""

    lowest: Tensor
    highest: Tensor

    def left(self, values: Tensor, least: Tensor | float = 0.0) -> Tensor:
        """Whether values [..., c] lie out by more than half the width, or are no finite numbers: [...] bool.

        least: [c], widths at least, of channels that hardly changed.
        """
        low, high = self.lowest.to(values.device), self.highest.to(values.device)
        room = _ROOM * torch.maximum(high - low, torch.as_tensor(least, dtype=low.dtype, device=values.device))
        return ~((values >= low - room) & (values <= high + room) & values.isfinite()).all(-1)


def bounds_of(flows: FlowSet) -> Bounds:
    """Of the readings that are there, of channels of which each has some."""
    every = torch.cat([flow.values.double().reshape(-1, len(flows.channels)) for flow in flows])
    there = every.isfinite()
    return Bounds(
        torch.where(there, every, torch.inf).amin(0),
        torch.where(there, every, -torch.inf).amax(0),
    )
