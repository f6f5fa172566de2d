"""A Brownian tree walked down in one launch: W and its integral at any times; needs Triton.

The sums of `tree`, level by level, with the words of `philox` bit by bit; rounding differs from that of tensors.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import NATIVE, on, pair, words

__all__ = ["descend"]

_BLOCK = 128
_NEAR = tl.constexpr(1e-6)


@triton.jit
def _draw(seed, node, column, PURPOSE: tl.constexpr, REAL: tl.constexpr, NATIVE: tl.constexpr):
    """Two normals of a node for each of two channels."""
    w0, w1, w2, w3 = words(seed, node, column, PURPOSE)
    z0, n0 = pair(w0, w1, REAL, NATIVE)
    z1, n1 = pair(w2, w3, REAL, NATIVE)
    return z0, n0, z1, n1


@triton.jit
def _root(x, span):
    """What the root's two normals add to the path and to its integral, at the part x of the interval."""
    z, n = tl.sqrt(span), tl.sqrt(span / 12)
    return z * x, n * 6 * x * (1 - x), span * z * x * x / 2, span * n * (3 * x * x - 2 * x * x * x)


@triton.jit
def _split(x, length):
    """A node cut at its middle, at the part x of its interval."""
    left = x < 0.5
    r = 2 * tl.where(left, x, 1 - x)
    side = tl.where(left, 1.0, -1.0)
    z, n, half = tl.sqrt(length / 16), tl.sqrt(length / 12), length / 2
    return (
        z * (3 * r - 2) * r, n * side * 3 * r * (1 - r),
        z * half * side * (r - 1) * r * r, n * half * (1.5 - r) * r * r,
    )  # fmt: skip


@triton.jit
def _leaf(x, length):
    """The bridge at the part x of a leaf."""
    y = 1 - x
    cubes = 1 - 3 * x * y
    spread = tl.sqrt(x * y / cubes)
    path, scale = tl.sqrt(x * y * cubes) * tl.sqrt(length), length * tl.sqrt(length)
    area = scale * (0.5 * x * tl.sqrt(x * y * cubes) - 0.5 * x * x * x * spread)
    return path, path * 0, area, scale * x * y * tl.sqrt(x * y / (12 * cubes))


@triton.jit(do_not_specialize=["total", "samples", "channels", "levels"])
def _descend(
    PATH, AREA, SEEDS, TIMES, LOW, SPAN, total, samples, channels, levels,
    CLOCKS: tl.constexpr, ROOTS: tl.constexpr, PURPOSE: tl.constexpr, REAL: tl.constexpr, NATIVE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Two channels of a sample at a time in every lane; CLOCKS, ROOTS: whether times and intervals are a sample's."""
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < total
    columns = (channels + 1) // 2
    column, place = lane % columns, lane // columns
    sample, row = place % samples, place // samples
    seed = tl.load(SEEDS + sample, mask=inside, other=0)
    t = tl.load(TIMES + row * (samples if CLOCKS else 1) + (sample if CLOCKS else sample * 0), mask=inside, other=0.0)
    root = sample if ROOTS else sample * 0
    low, span = tl.load(LOW + root, mask=inside, other=0.0), tl.load(SPAN + root, mask=inside, other=1.0)
    one = column * 0 + 1
    count = one << levels
    size = count.to(tl.float64)
    x = tl.minimum(tl.maximum((t - low) / span, 0.0), 1.0)
    u, end = x * size, tl.floor(x * size + 0.5)
    u = tl.where(tl.abs(u - end) < _NEAR, end, u)
    leaf = tl.minimum(u.to(tl.int64), count - 1)
    p, q, a, b = _root(u / size, span)
    z0, n0, z1, n1 = _draw(seed, one * 0, column, PURPOSE, REAL, NATIVE)
    path0, path1, area0, area1 = p * z0 + q * n0, p * z1 + q * n1, a * z0 + b * n0, a * z1 + b * n1
    for level in range(levels):
        cut = leaf >> (levels - level)
        width = one << level
        part = u / (one << (levels - level)).to(tl.float64) - cut.to(tl.float64)
        p, q, a, b = _split(part, span / width.to(tl.float64))
        z0, n0, z1, n1 = _draw(seed, width + cut, column, PURPOSE, REAL, NATIVE)
        path0, path1 = path0 + (p * z0 + q * n0), path1 + (p * z1 + q * n1)
        area0, area1 = area0 + (a * z0 + b * n0), area1 + (a * z1 + b * n1)
    p, q, a, b = _leaf(u - leaf.to(tl.float64), span / size)
    z0, n0, z1, n1 = _draw(seed, count + leaf, column, PURPOSE, REAL, NATIVE)
    at = place * channels + 2 * column
    both = inside & (2 * column + 1 < channels)
    tl.store(PATH + at, path0 + (p * z0 + q * n0), mask=inside)
    tl.store(PATH + at + 1, path1 + (p * z1 + q * n1), mask=both)
    tl.store(AREA + at, area0 + (a * z0 + b * n0), mask=inside)
    tl.store(AREA + at + 1, area1 + (a * z1 + b * n1), mask=both)


# What `triton.jit` makes takes plain numbers where its functions are annotated with constexpr.
_DESCEND: Any = _descend


def descend(
    seeds: Tensor, times: Tensor, low: Tensor, span: Tensor, channels: int, levels: int, purpose: int
) -> tuple[Tensor, Tensor]:
    """W and its integral from `low` to times [n, L]: [n, B, channels] float64 each; see `BrownianTree`."""
    count, samples = times.shape[0], seeds.shape[0]
    path = torch.empty(count, samples, channels, dtype=torch.float64, device=seeds.device)
    area = torch.empty_like(path)
    total = count * samples * -(-channels // 2)
    if total:
        with on(seeds.device):
            _DESCEND[(triton.cdiv(total, _BLOCK),)](
                path, area, seeds.contiguous(), times.contiguous(), low.contiguous(), span.contiguous(),
                total, samples, channels, levels, CLOCKS=times.shape[1] > 1, ROOTS=low.shape[0] > 1, PURPOSE=purpose,
                REAL=tl.float64, NATIVE=NATIVE, BLOCK=_BLOCK,
            )  # fmt: skip
    return path, area
