"""Second-order neural ODEs: the network is an acceleration."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from sciode.nn.halves import halves

__all__ = ["SecondOrder"]


@final
class SecondOrder(nn.Module):
    """A second-order ODE as a field of y = (x, v): x' = v, v' = f(t, x, v).

    Where data are positions of things with inertia, only the law of motion is left to learn, and x' = v holds exactly.

        field = SecondOrder(Joined(mlp([1 + 2 * D, 64, D], nn.Tanh)))             # f(t, x, v)
        field = SecondOrder(Autonomous(Joined(mlp([2 * D, 64, D], nn.Tanh))))     # f(x, v)

    Parameters
    ----------
    acceleration: f(t, x, v) -> [*batch, D] for x and v [*batch, D]; t as `solve` gives it.

    forward(t, y): y [*batch, 2 D], positions first. Units: v in those of x over time.
    Raises ValueError for an odd last axis of y, or an acceleration of another shape than x.
    Compiles under engine="compiled" if `acceleration` does.
    Source: Norcliffe, Bodnar, Day, Simidjievski, Lio: On Second Order Behaviour in Augmented Neural ODEs (2020).
    """

    def __init__(self, acceleration: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        if not callable(acceleration):
            raise ValueError(f"acceleration: expected a callable f(t, x, v), got {type(acceleration).__name__}")
        self.acceleration = acceleration

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Return (v, f(t, x, v)), [*batch, 2 D]."""
        x, v = halves(y, "(x, v)")
        a = self.acceleration(t, x, v)
        if a.shape != x.shape:
            raise ValueError(f"the acceleration must have the position's shape {tuple(x.shape)}, got {tuple(a.shape)}")
        return torch.cat((v, a), -1)
