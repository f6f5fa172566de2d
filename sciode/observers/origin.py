"""Where coordinates count from: maps of the earth lie so far from 0 that float32 would blur them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sciode.data.flow import FlowSet, Space

__all__ = ["check_told_apart", "moved", "origin_of"]

_FAR = 100.0
"""Sides of a box: float32 tells apart what lies 1e-5 of a side from another up to here."""
_BLUR = 1e-3
"""Of the sensors' extent: the most that rounding may move one."""


def origin_of(space: Space) -> tuple[float, ...]:
    """What to take off positions [d]: the lower corner along axes on which the box is far from 0, 0 along others."""
    if space.kind == "sphere":
        return (0.0,) * space.dimension
    sides = zip(space.lower, space.upper, strict=True)
    return tuple(low if max(abs(low), abs(high)) > _FAR * (high - low) else 0.0 for low, high in sides)


def moved(flows: FlowSet, origin: tuple[float, ...]) -> FlowSet:
    """Flows and their space in coordinates that count from `origin` [d]; points are subtracted in float64."""
    if not any(origin):
        return flows
    lower, upper = (
        tuple(x - o for x, o in zip(corner, origin, strict=True)) for corner in (flows.space.lower, flows.space.upper)
    )
    begin = torch.tensor(origin, dtype=torch.float64)
    own = tuple(replace(flow, points=flow.points.double() - begin) for flow in flows)
    return replace(flows, flows=own, space=Space(flows.space.kind, lower, upper))


def check_told_apart(points: Tensor, number: int) -> None:
    """Raise ValueError where float32, in which networks read points [N, d], blurs those of a flow."""
    error = float((points.double() - points.float().double()).abs().max())
    extent = float((points.double().amax(0) - points.double().amin(0)).max())
    if 0.0 < _BLUR * extent < error:
        raise ValueError(
            f"flow {number}: float32 cannot tell its sensors apart, which lie within {extent:g} of each other but "
            f"{float(points.abs().max()):g} from 0: subtract a place near them from all positions, and from the "
            "corners of the space"
        )
