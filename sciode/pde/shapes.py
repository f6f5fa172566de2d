"""Regions to put solids into, by name: closed forms and a blend of balls, no file of anyone's."""

from __future__ import annotations

from collections.abc import Mapping
from math import pi
from types import MappingProxyType

import torch
from torch import Tensor

from sciode.pde.meshes import Shape

__all__ = ["SHAPES"]

STAND_IN_BALLS = (
    # (x, y, z), radius: body, tail, head, snout, then the ears from root to tip.
    ((0.0, 0.0, -0.40), 0.52),
    ((0.0, 0.50, -0.62), 0.18),
    ((0.0, -0.30, 0.22), 0.33),
    ((0.0, -0.58, 0.14), 0.16),
    *(
        ((side * (0.13 + 0.05 * k), -0.22 + 0.05 * k, 0.50 + 0.13 * k), 0.13 - 0.01 * k)
        for side in (-1, 1)
        for k in range(4)
    ),
)
STAND_IN_BLEND = 0.06


def _box(points: Tensor) -> Tensor:
    return points.abs().amax(-1) - 1


def _ball(points: Tensor) -> Tensor:
    return points.norm(dim=-1) - 1


def _stand_in(points: Tensor) -> Tensor:
    """A smooth minimum of the balls' distances: -b log sum exp(-distance / b)."""
    centres = points.new_tensor([centre for centre, _ in STAND_IN_BALLS])
    radii = points.new_tensor([radius for _, radius in STAND_IN_BALLS])
    distances = (points.unsqueeze(-2) - centres).norm(dim=-1) - radii
    return -STAND_IN_BLEND * torch.logsumexp(-distances / STAND_IN_BLEND, -1)


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "square": Shape(_box, (-1.0, -1.0), (1.0, 1.0), 4.0),
        "disc": Shape(_ball, (-1.0, -1.0), (1.0, 1.0), pi),
        "cube": Shape(_box, (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0), 8.0),
        "ball": Shape(_ball, (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0), 4 * pi / 3),
        "bunny-stand-in": Shape(_stand_in, (-1.0, -1.0, -1.0), (1.0, 1.0, 1.2)),
    }
)
"""Regions of about [-1, 1]^d: `SHAPES["ball"].mesh(12)`.

"bunny-stand-in" is a two-eared blend of balls. It takes the place of the scanned bunny, whose mesh carries no licence
that lets us ship it; it has its topology (a ball) and its size, not its surface.
"""
