"""First readings that are missing, told by those that are there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .surface import surface_inverse
from .wiring import Joined, Wiring

__all__ = ["filled"]

_FEWEST = 3
"""Readings of a channel by which others are told, at least."""


def filled(readings: Tensor, part: Joined, wiring: Wiring, space: Any) -> Tensor:
    """First readings [T, n, c] of joined sensors, NaN = missing, with what the base through all others says in place
    of what is missing.

    So silent sensors go on from what their place would read. Of a surface: values at which its weights of the missing
    sensors are 0, so that it is the one through the others, but no further out than their readings by half their width;
    where a design has no base, a cubic one. By fewer sensors than it has polynomials it tells nothing: the nearest
    reading does, and by fewer than three nothing. Of a climate: the best linear estimate by true readings, which is one
    by other channels too; the nugget is for what is foreseen.
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
        fewest, weights = inverse.shape[0] - inverse.shape[1], inverse[:count, :count]
        told = given.transpose(1, 2).clone()
        for one in told.flatten(0, 1):
            _tell(one, weights, fewest, points, space)
        told = told.transpose(1, 2)
    return torch.cat((told.to(readings), readings[:, count:]), 1)


def _tell(given: Tensor, weights: Tensor, fewest: int, points: Tensor, space: Any) -> None:
    """Fill readings [n] of one channel at points [n, d] in place: by a surface of such weights [n, n], or the
    nearest."""
    silent = ~given.isfinite()
    heard = given[~silent]
    if len(heard) >= max(fewest, _FEWEST):
        told = torch.linalg.solve(weights[silent][:, silent], -(weights[silent][:, ~silent] @ heard))
        low, high = heard.aminmax()
        room = 0.5 * (high - low)
        given[silent] = told.clamp(low - room, high + room)
    elif len(heard) >= _FEWEST:
        apart = space.difference(points[silent].unsqueeze(1), points[~silent]).norm(dim=-1)
        given[silent] = heard[apart.argmin(1)]
