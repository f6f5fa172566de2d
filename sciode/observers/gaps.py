"""First readings that are missing, told by those that are there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .surface import surface_inverse
from .wiring import Joined, Wiring

__all__ = ["filled"]


def filled(readings: Tensor, part: Joined, wiring: Wiring, space: Any) -> Tensor:
    """First readings [T, n, c] of joined sensors, NaN = missing, with what the base through all others says in place
    of what is missing.

    So a base is what it would be if silent sensors were left out, and they go on from what their place would read. Of
    a surface, values at which its weights of the missing sensors are 0; where a design has no base, a cubic surface is
    laid through the others. A climate tells a channel by the others too. Nothing is told that is further out than the
    readings by half their width. Missing stays what is not told: a channel that fewer sensors read than a surface has
    polynomials.
    """
    count = int(part.there.sum())  # what fills a room up stands last
    given, points = readings[:, :count].double(), part.points[:count]
    missing = ~given.isfinite()
    if not bool(missing.any()):
        return readings
    if wiring.climate is not None:
        told = wiring.climate.to(given.device).completed(points, given)
    else:
        inverse = surface_inverse(points, space) if part.span.surface is None else part.span.surface
        told = torch.stack([_through(inverse, *one) for one in zip(given, missing, strict=True)])
    low = given.masked_fill(missing, torch.inf).amin(1, keepdim=True)
    high = given.masked_fill(missing, -torch.inf).amax(1, keepdim=True)
    room = 0.5 * (high - low)
    kept = torch.where(high >= low, told.maximum(low - room).minimum(high + room), told)
    return torch.cat((torch.where(missing, kept, given).to(readings), readings[:, count:]), 1)


def _through(inverse: Tensor, given: Tensor, missing: Tensor) -> Tensor:
    """Readings [n, c] with those missing at which the surface's weights of them are 0; see `surface_inverse`."""
    fewest, weights = inverse.shape[0] - inverse.shape[1], inverse[: len(given), : len(given)]
    told = given.clone()
    for channel, silent in enumerate(missing.unbind(1)):
        if bool(silent.any()) and int((~silent).sum()) >= fewest:
            others = weights[silent][:, ~silent] @ given[~silent, channel]
            told[silent, channel] = torch.linalg.solve(weights[silent][:, silent], -others)
    return told
