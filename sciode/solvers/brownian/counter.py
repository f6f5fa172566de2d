"""Brownian increments on a fixed grid, hashed from (seed, sample, cell): no storage, no order of drawing.

The cells are anchored at the earlier end of the solve, so a forward and a backward solve over the same interval walk
the same path. If the step does not divide the interval, the backward grid cuts every cell at one and the same offset;
the two pieces of a cell are then tied by a Brownian bridge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..books import sent
from ..transforms import transforming
from .draws import Cells, standard_normals

__all__ = ["CounterNoise", "Ending", "unit_normals"]

_WHOLE, _BRIDGE, _END = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Ending:
    """Where solves end on the grid: after `cells` [L] int64 steps, the last of length `cut` [L] float64.

    Known to the host, so that nobody has to ask a device; L is 1 (all end alike) or B.
    """

    cells: np.ndarray
    cut: np.ndarray

    def ragged(self, dt: float) -> bool:
        """Whether any last step is shorter than the others."""
        return bool((self.cut < dt).any())

    def sent(self, device: torch.device) -> Tensor:
        """How many steps [L], for those that count them on a device."""
        return sent(self.cells, device)


@dataclass(frozen=True, eq=False)
class CounterNoise:
    """Increments W(t_n + dt) - W(t_n) [B, channels] of step n, counted from the start of the solve.

    Step n forward is the n-th cell. Step n backward is the cell `anchor.cells - 1 - n`, or, where a cell is cut, the
    right piece of the cell below followed by the left piece of that cell.
    Arguments: seeds [B] int64; channels m; dt > 0; sign, +1 or -1, the direction of time; ending, of this solve;
    anchor, of the one that this solve resumes (else the same); compiled: see `standard_normals`.
    """

    seeds: Tensor
    channels: int
    dt: float
    sign: int
    ending: Ending
    anchor: Ending
    dtype: torch.dtype
    compiled: bool = False

    @property
    def width(self) -> int:
        """Normals a step."""
        return self.seeds.shape[0] * self.channels

    @property
    def steps(self) -> int:
        """Most steps that a sample takes."""
        return int(self.ending.cells.max())

    def block(self, first: int | Tensor, count: int) -> Tensor:
        """Increments of steps first, ..., first + count - 1: [count, B, channels]; `first` may be [L]."""
        if self.sign > 0:
            steps = self._draw(Cells(first, 1, count), _WHOLE).mul_(math.sqrt(self.dt))
        else:
            steps = self._backward(first, count)
        if self.ending.ragged(self.dt):
            self._end(first, steps)
        return steps

    def _backward(self, first: int | Tensor, count: int) -> Tensor:
        top = self._anchor - 1 - first
        if not self.anchor.ragged(self.dt):
            return self._draw(Cells(top, -1, count), _WHOLE).mul_(-math.sqrt(self.dt))
        # The cells top, ..., top - count: all but the first give their right piece, all but the last their left one.
        cells = Cells(top, -1, count + 1)
        whole = self._whole(cells)
        left = self._bridge(cells, whole, self._share(self.anchor), _BRIDGE)
        return (left[1:] - whole[1:]).sub_(left[:-1])

    def _end(self, first: int | Tensor, steps: Tensor) -> None:
        """Write the last, shorter step of every sample: a piece of the step that would have been taken."""
        start, stop = self._rows(first, steps.shape[0])
        if start >= stop:
            return
        rows, first = steps[start:stop], first + start
        piece = self._piece(first, rows)
        if isinstance(first, int) and stop - start == 1 and self.ending.cells.shape[0] == 1:
            rows.copy_(piece)
            return
        last = np.where(self.ending.cut < self.dt, self.ending.cells - 1, -1)
        ends = Cells(first, 1, stop - start).on(steps.device) == sent(last, steps.device)
        rows.copy_(torch.where(ends[..., None], piece, rows))

    def _rows(self, first: int | Tensor, count: int) -> tuple[int, int]:
        """Which rows of a block can be the last of a sample, as far as the host knows."""
        if isinstance(first, Tensor) and (transforming() or first.device.type != "cpu"):
            return 0, count
        last = self.ending.cells - 1 - (first.numpy() if isinstance(first, Tensor) else first)
        return max(int(last.min()), 0), min(int(last.max()) + 1, count)

    def _piece(self, first: int | Tensor, rows: Tensor) -> Tensor:
        """What the steps first, first + 1, ... [rows, B, channels] would be, were each of them the last."""
        count = rows.shape[0]
        if self.sign > 0:
            return self._bridge(Cells(first, 1, count), rows, self._share(self.ending), _BRIDGE)
        # The solve that laid the grid ends with the left piece of its first cell; any other cuts a step anew.
        alike = (self.anchor.cells == self.ending.cells) & (self.anchor.cut == self.ending.cut)
        cells = Cells(self._anchor - 1 - first, -1, count)
        if alike.all():
            return -self._bridge(cells, self._whole(cells), self._share(self.anchor), _BRIDGE)
        piece = self._bridge(Cells(first, 1, count), rows, self._share(self.ending), _END)
        if not alike.any():
            return piece
        left = self._bridge(cells, self._whole(cells), self._share(self.anchor), _BRIDGE)
        return torch.where(sent(alike, rows.device)[:, None], -left, piece)

    @cached_property
    def _anchor(self) -> int | Tensor:
        cells = self.anchor.cells
        return int(cells[0]) if cells.shape[0] == 1 else sent(cells, self.seeds.device)

    def _share(self, ending: Ending) -> tuple[Any, Any]:
        """Of a step's increment the mean that falls to its first `cut`, and the spread around it; numbers or [L, 1]."""
        ratio = np.minimum(ending.cut / self.dt, 1)
        spread = np.sqrt(ending.cut * (1 - ratio))
        if ratio.shape[0] == 1:
            return float(ratio[0]), float(spread[0])
        both = sent(np.stack((ratio, spread))[..., None], self.seeds.device).to(self.dtype)
        return both[0], both[1]

    def _bridge(self, cells: Cells, whole: Tensor, share: tuple[Any, Any], purpose: int) -> Tensor:
        """W(cut) given W(dt) = whole: mean whole * cut/dt, variance cut (1 - cut/dt)."""
        ratio, spread = share
        return whole * ratio + self._draw(cells, purpose).mul_(spread)

    def _whole(self, cells: Cells) -> Tensor:
        return self._draw(cells, _WHOLE).mul_(math.sqrt(self.dt))

    def _draw(self, cells: Cells, purpose: int) -> Tensor:
        return standard_normals(self.seeds, cells, self.channels, purpose, self.dtype, self.compiled)


def unit_normals(seeds: Tensor, stream: int, channels: int, dtype: torch.dtype) -> Tensor:
    """Normal draws [B, channels] beside the noise of an SDE with the same seeds [B]; another stream, other draws."""
    once = Ending(np.array([1]), np.array([1.0]))
    return CounterNoise(seeds ^ stream, channels, 1.0, 1, once, once, dtype).block(0, 1)[0]
