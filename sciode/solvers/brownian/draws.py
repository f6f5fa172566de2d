"""Standard normals for (seed, cell, channel, purpose), by the way that is fastest where the seeds are."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..transforms import transforming
from .philox import normals, philox, uniforms, words, write_normals

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


def standard_normals(
    seeds: Tensor, cells: Cells, channels: int, purpose: int, dtype: torch.dtype, compiled: bool = False
) -> Tensor:
    """Normals [count, B, channels] for seeds [B]: entry (i, b, c) hangs on (seeds[b], cell i, c, purpose) alone.

    compiled: whether compiled code may be used on a CPU, which takes some seconds once. The normals are the same.
    """
    if transforming():
        return _by_tensors(seeds, cells, channels, purpose, dtype)
    if seeds.device.type == "cpu":
        return _by_arrays(seeds, cells, channels, purpose, dtype, compiled)
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


def _by_arrays(seeds: Tensor, cells: Cells, channels: int, purpose: int, dtype: torch.dtype, compiled: bool) -> Tensor:
    """A chunk at a time; samples and blocks of four channels lie in one axis.

    What NumPy stretches along a short axis it steps through a few numbers at a time.
    """
    blocks, samples = -(-channels // 4), seeds.shape[0]
    low, high = words(cells.on(seeds.device))
    k0, k1 = (k.unsqueeze(0) for k in words(seeds.repeat_interleave(blocks)))
    column = torch.arange(blocks).repeat(samples).unsqueeze(0)
    each, later = low.shape[1] > 1, bool(high.any())
    if each:
        low, high = low.repeat_interleave(blocks, 1), high.repeat_interleave(blocks, 1)
    out = torch.empty(cells.count, samples * blocks, 4, dtype=dtype)
    wide = max(min(samples * blocks, _AT_ONCE), 1)
    tall = max(_AT_ONCE // wide, 1)
    for b in range(0, samples * blocks, wide):
        part = slice(b, b + wide)
        lane = part if each else slice(None)
        for i in range(0, cells.count, tall):
            rows = slice(i, i + tall)
            key, numbers = (k0[:, part], k1[:, part]), (low[rows, lane], column[:, part])
            # One graph serves all sizes but 1, and a number of steps beyond 2^32 is rare.
            if compiled and not (each or later) and min(numbers[0].shape[0], numbers[1].shape[1]) > 1:
                u = _hashed_in_one(key, numbers, purpose, dtype)
            else:
                u = _hashed(key, numbers, high[rows, lane] if later else None, purpose, dtype)
            write_normals(out[rows, part], u)
    return out.view(cells.count, samples, blocks * 4)[..., :channels]


def _hashed(
    key: tuple[Tensor, Tensor], numbers: tuple[Tensor, Tensor], above: Tensor | None, purpose: int, dtype: torch.dtype
) -> Tensor:
    """Uniforms by NumPy, whose integer operations cost a third; above: the high words of the cells, if any is not 0."""
    k0, k1, low, column = (x.numpy().view(np.uint64) for x in (*key, *numbers))
    high = 0 if above is None else above.numpy().view(np.uint64)
    w0, w1, w2, w3 = (torch.from_numpy(w.view(np.int64)) for w in philox((k0, k1), (low, high, column, purpose)))
    return uniforms((w0, w1, w2, w3), dtype)


def _hashed_in_one(
    key: tuple[Tensor, Tensor], numbers: tuple[Tensor, Tensor], purpose: int, dtype: torch.dtype
) -> Tensor:
    """The same, bit for bit, in a fifth of the time, by code that is compiled once for all sizes."""
    with torch.no_grad():
        return _compiled_hash()(*key, *numbers, torch.tensor(purpose), torch.empty(0, dtype=dtype))


@lru_cache(maxsize=1)
def _compiled_hash() -> Any:
    def hashed(k0: Tensor, k1: Tensor, low: Tensor, column: Tensor, purpose: Tensor, like: Tensor) -> Tensor:
        return uniforms(philox((k0, k1), (low, torch.zeros_like(low), column, purpose)), like.dtype)

    return torch.compile(hashed, fullgraph=True, dynamic=True, options={"cpp_wrapper": True})
