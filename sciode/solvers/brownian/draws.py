"""Standard normals for (seed, cell, channel, purpose), by the way that is fastest where the seeds are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..transforms import transforming
from .philox import normals, philox, words, write_normals

__all__ = ["Cells", "kernels_for", "standard_normals"]

_AT_ONCE = 2**15
"""Counters of one chunk on a CPU: their words stay in its cache."""


class Cells(NamedTuple):
    """The cells first, first + stride, ...: `count` of them; `first` a number, or one a sample or for all [L] int64."""

    first: int | Tensor
    stride: int
    count: int

    def on(self, device: torch.device) -> Tensor:
        """The cells [count, L]."""
        return self.first + self.stride * torch.arange(self.count, dtype=torch.int64, device=device)[:, None]


def standard_normals(seeds: Tensor, cells: Cells, channels: int, purpose: int, dtype: torch.dtype) -> Tensor:
    """Normals [count, B, channels] for seeds [B]: entry (i, b, c) hangs on (seeds[b], cell i, c, purpose) alone."""
    if transforming():
        return _by_tensors(seeds, cells, channels, purpose, dtype)
    if seeds.device.type == "cpu":
        return _by_arrays(seeds, cells, channels, purpose, dtype)
    kernels = kernels_for(seeds.device)
    if kernels is None:
        return _by_tensors(seeds, cells, channels, purpose, dtype)
    return kernels.draw(seeds, cells, channels, purpose, dtype)


def kernels_for(device: torch.device) -> Any:
    """The module of Triton kernels, where this device can run them, else None."""
    if device.type != "cuda":
        return None
    try:
        from . import launch
    except ImportError:
        return None
    return launch if launch.works(device) else None


def _by_tensors(seeds: Tensor, cells: Cells, channels: int, purpose: int, dtype: torch.dtype) -> Tensor:
    """On any device, and inside `torch.func` transforms: some 150 operations."""
    column = torch.arange(-(-channels // 4), dtype=torch.int64, device=seeds.device)
    low, high = words(cells.on(seeds.device)[..., None])
    k0, k1 = words(seeds[:, None])
    return normals(philox((k0, k1), (low, high, column, purpose)), dtype).flatten(-2)[..., :channels]


def _by_arrays(seeds: Tensor, cells: Cells, channels: int, purpose: int, dtype: torch.dtype) -> Tensor:
    """The words by NumPy, whose integer operations cost a third, a chunk at a time.

    Samples and blocks of four channels lie in one axis, because what NumPy stretches along a short axis it steps
    through a few numbers at a time.
    """
    blocks, samples = -(-channels // 4), seeds.shape[0]
    low, high = words(cells.on(seeds.device).numpy().view(np.uint64))
    k0, k1 = words(np.repeat(seeds.numpy().view(np.uint64), blocks))
    column = np.tile(np.arange(blocks, dtype=np.uint64), samples)
    cells_apart, later = low.shape[1] > 1, bool(high.any())
    if cells_apart:
        low, high = np.repeat(low, blocks, 1), np.repeat(high, blocks, 1)
    out = torch.empty(cells.count, samples * blocks, 4, dtype=dtype)
    wide = min(samples * blocks, _AT_ONCE)
    tall = max(_AT_ONCE // max(wide, 1), 1)
    for b in range(0, samples * blocks, max(wide, 1)):
        part = slice(b, b + wide)
        lane = part if cells_apart else slice(None)
        for i in range(0, cells.count, tall):
            rows = slice(i, i + tall)
            # A number costs less than an array of zeros, and few solves have 2^32 steps.
            above = high[rows, lane] if later else 0
            drawn = philox((k0[part], k1[part]), (low[rows, lane], above, column[part], purpose))
            w0, w1, w2, w3 = (torch.from_numpy(w.view(np.int64)) for w in drawn)
            write_normals(out[rows, part], (w0, w1, w2, w3))
    return out.view(cells.count, samples, blocks * 4)[..., :channels]
