"""Brownian increments on a fixed grid, hashed from (seed, sample, cell): no storage, no order of drawing.

The cells are anchored at the earlier end of the solve, so a forward and a backward solve over the same interval walk
the same path. If the step does not divide the interval, the backward grid cuts every cell at one and the same offset;
the two pieces of a cell are then tied by a Brownian bridge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .philox import normals, philox, words

__all__ = ["CounterNoise"]

_WHOLE, _BRIDGE, _END = 0, 1, 2


@dataclass(frozen=True, eq=False)
class CounterNoise:
    """Increments W(t_n + dt) - W(t_n) [B, channels] of step n, counted from the start of the solve.

    Step n forward is the n-th cell. Step n backward is the cell `anchor - 1 - n`, or, where a cell is cut, the right
    piece of the cell below followed by the left piece of that cell.
    Arguments: seeds [B] int64; channels m; dt > 0; sign, +1 or -1, the direction of time; cells [L] int64, how many
    steps the solve takes; cut [L], length of its last step; anchor, anchor_cut, the same two of the solve that this one
    resumes (else equal to cells and cut); L is 1 or B.
    """

    seeds: Tensor
    channels: int
    dt: float
    sign: int
    cells: Tensor
    cut: Tensor
    anchor: Tensor
    anchor_cut: Tensor
    dtype: torch.dtype

    @property
    def width(self) -> int:
        """Normals a step."""
        return self.seeds.shape[0] * self.channels

    def block(self, first: int | Tensor, count: int) -> Tensor:
        """Increments of steps first, ..., first + count - 1: [count, B, channels]; `first` may be [L]."""
        n = first + torch.arange(count, dtype=torch.int64, device=self.seeds.device)[:, None]
        steps = self._whole(n) if self.sign > 0 else self._backward(n)
        ending = (n == self.cells - 1) & (self.cut < self.dt)
        if not bool(ending.any()):
            return steps
        return torch.where(ending[..., None], self._ending(n, steps), steps)

    def _backward(self, n: Tensor) -> Tensor:
        cell = self.anchor - 1 - n
        if not bool((self.anchor_cut < self.dt).any()):
            return -self._whole(cell)
        below = self._whole(cell - 1)
        return self._left(cell - 1, below) - below - self._left(cell, self._whole(cell))

    def _ending(self, n: Tensor, steps: Tensor) -> Tensor:
        """The last, shorter step: a piece of the step that would have been taken."""
        if self.sign > 0:
            return self._bridge(n, steps, self.cut, _BRIDGE)
        piece = self._bridge(n, steps, self.cut, _END)
        cell = self.anchor - 1 - n
        same = (self.anchor == self.cells) & (self.anchor_cut == self.cut)
        return torch.where(same[..., None], -self._left(cell, self._whole(cell)), piece)

    def _whole(self, cell: Tensor) -> Tensor:
        return self._draw(cell, _WHOLE) * math.sqrt(self.dt)

    def _left(self, cell: Tensor, whole: Tensor) -> Tensor:
        """Increment over the first `anchor_cut` of a cell whose whole increment is known."""
        return self._bridge(cell, whole, self.anchor_cut, _BRIDGE)

    def _bridge(self, cell: Tensor, whole: Tensor, length: Tensor, purpose: int) -> Tensor:
        """W(length) given W(dt) = whole: mean whole * length/dt, variance length (1 - length/dt)."""
        ratio = (length / self.dt).clamp(max=1)
        spread = (length * (1 - ratio)).sqrt()
        draw = self._draw(cell, purpose)
        return ratio.to(self.dtype)[..., None] * whole + spread.to(self.dtype)[..., None] * draw

    def _draw(self, cell: Tensor, purpose: int) -> Tensor:
        """Standard normals [count, B, channels] for cells [count, L]."""
        blocks = -(-self.channels // 4)
        column = torch.arange(blocks, dtype=torch.int64, device=self.seeds.device)
        low, high = words(cell.expand(cell.shape[0], self.seeds.shape[0])[..., None])
        k0, k1 = words(self.seeds)
        z = normals(philox((k0[:, None], k1[:, None]), (low, high, column, purpose)), self.dtype)
        return z.flatten(-2)[..., : self.channels]
