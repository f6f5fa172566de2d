"""Spaces, and places in them, of the tests of surfaces and climates."""

from __future__ import annotations

import torch
from torch import Tensor

from sciode.data.flow import Space

BOX = Space("periodic", (0.0, 0.0), (1.0, 2.0))
SPHERE = Space("sphere", radius=2.0)


def places(space: Space, count: int, seed: int = 0) -> Tensor:
    """So many [N, d] anywhere in it, float64."""
    draw = torch.Generator().manual_seed(seed)
    if space.kind == "sphere":
        x = torch.randn(count, 3, dtype=torch.float64, generator=draw)
        return 2.0 * x / x.norm(dim=1, keepdim=True)
    low, high = (torch.tensor(side, dtype=torch.float64) for side in (space.lower, space.upper))
    return low + torch.rand(count, 2, dtype=torch.float64, generator=draw) * (high - low)
