"""Velocities without divergence by construction: the curl of a network's stream function or vector potential."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

__all__ = ["Solenoidal"]


@final
class Solenoidal(nn.Module):
    """u = drift + curl of a potential: in the plane (d psi/dy, -d psi/dx), in space curl A. div u = 0 to rounding.

    A stream function that is constant on a wall lets nothing through it. So psi = 0 on the walls of a box makes a
    velocity between slip walls, whatever the weights are:

        box = Box((-1, -1), (1, 1))
        psi = HardBoundary(Siren(2, 1, 20, 2, omega=5.0), lambda x: 0.0 * x[..., :1], box.vanishing)
        field = Solenoidal(psi)     # on a periodic box psi is Siren(2, 1, 20, 2, embedding=PeriodicEmbedding(periods))

    In space, an A that is normal to the walls on them does the same.

    Parameters
    ----------
    potential: x [..., d] -> [..., k (d == 2) or 3 k (d == 3)], any number k of potentials, one after another: each
        gives a velocity of d components, [..., d] -> [..., k d].
    drift: a constant velocity [d], added to all of them. On a periodic box the curl of a periodic potential has mean 0,
        and the mean velocity is one of the flow's invariants: it belongs here.

    Raises ValueError for a drift that is not of two or three finite numbers, and when called for another number of axes
    or potentials.
    """

    def __init__(self, potential: nn.Module, drift: Sequence[float] = (0.0, 0.0)) -> None:
        super().__init__()
        if len(drift) not in (2, 3) or not all(map(math.isfinite, drift)):
            raise ValueError(f"drift must be two or three finite numbers, one an axis, got {tuple(drift)}")
        self.potential, self.drift = potential, tuple(map(float, drift))

    def forward(self, x: Tensor) -> Tensor:
        """Return u(x)."""
        dimension = len(self.drift)
        if x.ndim < 1 or x.shape[-1] != dimension:
            raise ValueError(f"x must be [..., {dimension}], as many axes as drift has, got {tuple(x.shape)}")
        # One pass of a network for all axes: derivatives of derivatives repeat it several times as it is.
        along = torch.eye(dimension, dtype=x.dtype, device=x.device)
        slopes = vmap(lambda axis: jvp(self.potential, (x,), (axis.expand_as(x),))[1], out_dims=-1)(along)
        components = 1 if dimension == 2 else 3
        if slopes.shape[-2] % components:
            raise ValueError(f"potential gives {slopes.shape[-2]} values: in space it has three components")
        slopes = slopes.unflatten(-2, (-1, components))
        if dimension == 2:
            velocity = torch.stack((slopes[..., 0, 1], -slopes[..., 0, 0]), -1)
        else:
            turned = slopes.mT - slopes
            velocity = torch.stack((turned[..., 1, 2], turned[..., 2, 0], turned[..., 0, 1]), -1)
        # Number by number: no tensor is made on a device, so that a CUDA graph can hold this.
        parts = [velocity[..., axis] + mean for axis, mean in enumerate(self.drift)]
        return torch.stack(parts, -1).flatten(-2)
