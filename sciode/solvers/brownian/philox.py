"""Philox4x32-10: random numbers that are a pure function of (key, counter).

Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011). Words are unsigned 32-bit numbers
held in 64-bit integers, int64 tensors or uint64 arrays: a wrapped 64-bit product still has the right bits.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["normals", "philox", "uniforms", "words", "write_normals"]

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

Word = TypeVar("Word", Tensor, np.ndarray)


def words(x: Word) -> tuple[Word, Word]:
    """The low and the high 32-bit word of a 64-bit integer, each non-negative."""
    return x & _MASK, (x >> 32) & _MASK


def philox(key: tuple[Word, Word], counter: tuple[Any, ...]) -> tuple[Word, Word, Word, Word]:
    """Four random 32-bit words for every (key, counter); inputs broadcast against one another.

    Arguments: key, two words; counter, four words, of the key's kind or Python integers. Returns values in [0, 2^32).
    """
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        # Of c1 and c3 the low halves count. Whatever is above them is cut off after they have been mixed in.
        c0, c1, c2, c3 = ((p1 >> 32) ^ c1 ^ k0) & _MASK, p1, ((p0 >> 32) ^ c3 ^ k1) & _MASK, p0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1 & _MASK, c2, c3 & _MASK


def normals(draws: tuple[Tensor, Tensor, Tensor, Tensor], dtype: torch.dtype) -> Tensor:
    """Standard normals from four words by Box and Muller: [...] words -> [..., 4].

    float32 and float64 use the same 32-bit uniforms, so one seed gives the same path in both, to rounding; the price is
    a normal cut off at 6.8 standard deviations. Uniforms lie in (0, 1].
    """
    u0, u1, u2, u3 = ((w.to(dtype) + 0.5) * 2.0**-32 for w in draws)
    r0, r1 = torch.sqrt(-2 * torch.log(u0)), torch.sqrt(-2 * torch.log(u2))
    a0, a1 = 2 * math.pi * u1, 2 * math.pi * u3
    return torch.stack((r0 * torch.cos(a0), r0 * torch.sin(a0), r1 * torch.cos(a1), r1 * torch.sin(a1)), dim=-1)


def uniforms(draws: tuple[Tensor, Tensor, Tensor, Tensor], dtype: torch.dtype) -> Tensor:
    """The uniforms that `normals` makes of four words: [4, ...], the two for radii first, then those for angles."""
    return torch.stack((draws[0], draws[2], draws[1], draws[3])).to(dtype).add(0.5).mul(2.0**-32)


def write_normals(out: Tensor, u: Tensor) -> None:
    """`normals` into out [..., 4] from `uniforms` u, which it spoils, in two thirds of the time."""
    radius, angle = u[:2].log_().mul_(-2).sqrt_(), u[2:].mul_(2 * math.pi)
    pairs = out.unflatten(-1, (2, 2)).movedim(-2, 0)
    torch.mul(radius, angle.cos(), out=pairs[..., 0])
    torch.mul(radius, angle.sin_(), out=pairs[..., 1])
