"""Philox and Box-Muller on a CUDA device, a launch for a whole block of steps; needs Triton.

The words are those of `philox` bit by bit, the normals those of `normals` to rounding.
"""

from __future__ import annotations

import math
import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice as _libdevice

if TYPE_CHECKING:
    from .draws import Cells

__all__ = ["NATIVE", "draw", "on", "pair", "seeds", "words", "works"]

libdevice: Any = _libdevice
_BLOCK = 512
_TWO_PI = tl.constexpr(2 * math.pi)
_UNIT = tl.constexpr(2.0**-32)


@triton.jit
def words(seed, index, column, purpose):
    """Four words for the key `seed` (int64) and the counter (index (int64), column, purpose)."""
    low, high = index.to(tl.uint32), (index >> 32).to(tl.uint32)
    zero = tl.zeros_like(low)
    return tl.philox(seed, low, high, zero + column.to(tl.uint32), zero + purpose)


@triton.jit
def pair(word, angle, REAL: tl.constexpr, NATIVE: tl.constexpr):
    """Two normals from two words, in correctly rounded functions where there is a choice."""
    u, a = (word.to(REAL) + 0.5) * _UNIT, (angle.to(REAL) + 0.5) * _UNIT * _TWO_PI
    if NATIVE:
        r = libdevice.sqrt(-2.0 * libdevice.log(u))
        return r * libdevice.cos(a), r * libdevice.sin(a)
    else:
        r = tl.sqrt(-2.0 * tl.log(u))
        return r * tl.cos(a), r * tl.sin(a)


@triton.jit(do_not_specialize=["first", "total", "samples", "channels"])
def _normals(
    OUT, SEEDS, FIRST, first, total, samples, channels,
    STRIDE: tl.constexpr, LANES: tl.constexpr, PURPOSE: tl.constexpr, REAL: tl.constexpr, NATIVE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Four channels of a sample and a step in every lane; LANES: 0, all start at `first`, 1 or 2, at FIRST[0 or b]."""
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < total
    quads = (channels + 3) // 4
    column, place = lane % quads, lane // quads
    sample, row = place % samples, place // samples
    seed = tl.load(SEEDS + sample, mask=inside, other=0)
    start = lane * 0 + first
    if LANES == 1:
        start = lane * 0 + tl.load(FIRST)
    if LANES == 2:
        start = tl.load(FIRST + sample, mask=inside, other=0)
    w0, w1, w2, w3 = words(seed, start + STRIDE * row, column, PURPOSE)
    z0, z1 = pair(w0, w1, REAL, NATIVE)
    z2, z3 = pair(w2, w3, REAL, NATIVE)
    at, left = OUT + place * channels + 4 * column, channels - 4 * column
    tl.store(at, z0, mask=inside)
    tl.store(at + 1, z1, mask=inside & (left > 1))
    tl.store(at + 2, z2, mask=inside & (left > 2))
    tl.store(at + 3, z3, mask=inside & (left > 3))


@triton.jit(do_not_specialize=["seed", "samples"])
def _seeds(OUT, seed, samples, BLOCK: tl.constexpr):
    """The first two words of (seed, sample) as one int64."""
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    zero = lane * 0
    w0, w1, _w2, _w3 = words(zero + seed, lane, zero, 0)
    tl.store(OUT + lane, w0.to(tl.int64) | (w1.to(tl.int64) << 32), mask=lane < samples)


# What `triton.jit` makes takes plain numbers where its functions are annotated with constexpr.
_NORMALS: Any = _normals
_SEEDS: Any = _seeds
NATIVE = isinstance(_normals, triton.JITFunction)
"""Whether kernels are compiled; else Triton's interpreter runs them, which has no libdevice."""


@lru_cache(maxsize=8)
def works(device: torch.device) -> bool:
    """Whether a kernel can be built and run here; tried once. A machine may have Triton and no C compiler for it."""
    try:
        seeds(0, 1, device)
    except Exception as error:
        warnings.warn(f"noise: Triton cannot run on {device}, random numbers are drawn slowly: {error}", stacklevel=2)
        return False
    return True


def draw(keys: Tensor, cells: Cells, channels: int, purpose: int, dtype: torch.dtype) -> Tensor:
    """`standard_normals`: [count, B, channels] for seeds [B]."""
    samples = keys.shape[0]
    out = torch.empty(cells.count, samples, channels, dtype=dtype, device=keys.device)
    total = cells.count * samples * -(-channels // 4)
    starts, first, lanes = keys, 0, 0
    if isinstance(cells.first, Tensor):
        starts, lanes = cells.first.contiguous(), 1 if cells.first.shape[0] == 1 else 2
    else:
        first = cells.first
    if total:
        with on(keys.device):
            _NORMALS[(triton.cdiv(total, _BLOCK),)](
                out, keys.contiguous(), starts, first, total, samples, channels,
                STRIDE=cells.stride, LANES=lanes, PURPOSE=purpose, REAL=_REAL[dtype], NATIVE=NATIVE, BLOCK=_BLOCK,
            )  # fmt: skip
    return out


def seeds(seed: int, samples: int, device: torch.device) -> Tensor:
    """`sample_seeds`: [samples] int64."""
    out = torch.empty(samples, dtype=torch.int64, device=device)
    if samples:
        with on(device):
            _SEEDS[(triton.cdiv(samples, _BLOCK),)](out, seed, samples, BLOCK=_BLOCK)
    return out


_REAL = {torch.float32: tl.float32, torch.float64: tl.float64}


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
