"""Layers of transformers: attention that is normalised before, with rotary phases where order counts."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Attention", "Block", "rotated"]

_BASE = 10_000.0


def rotated(x: Tensor, first: int = 0) -> Tensor:
    """Return x [B, heads, L, 2 k] with pairs turned by angles that grow with the place: their products know distances.

    first: the place of the first token.

    Source: Su et al.: RoFormer (Neurocomputing 568, 2024).
    """
    half = x.shape[-1] // 2
    speeds = torch.exp(torch.arange(half, device=x.device, dtype=torch.float32) * (-math.log(_BASE) / half))
    places = torch.arange(first, first + x.shape[-2], device=x.device, dtype=torch.float32)
    angles = places[:, None] * speeds
    cos, sin = angles.cos().to(x), angles.sin().to(x)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


@final
class Attention(nn.Module):
    """Multi-head attention of queries [B, Q, width] to tokens [B, L, width]; ordered: rotary phases on both."""

    def __init__(self, width: int, heads: int, ordered: bool) -> None:
        super().__init__()
        self.heads, self.ordered = heads, ordered
        self.query, self.both = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, tokens: Tensor, heard: Tensor | None, causal: bool = False) -> Tensor:
        """heard: which tokens count, bool [B, L], at least one of each sample; not with `causal`."""
        q = self.split(self.query(x))
        k, v = (self.split(part) for part in self.both(tokens).chunk(2, -1))
        if self.ordered:
            q, k = rotated(q), rotated(k)
        return self.joined(q, k, v, heard, causal)

    def joined(self, q: Tensor, k: Tensor, v: Tensor, heard: Tensor | None, causal: bool = False) -> Tensor:
        """What queries get from keys and values, [B, heads, L, width / heads] each: [B, Q, width]."""
        mask = None if heard is None else _mask(heard, q.dtype)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out(found.transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        """[B, L, width] as heads, [B, heads, L, width / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _mask(heard: Tensor, kind: torch.dtype) -> Tensor:
    """What is added to products of queries and keys, [B, 1, 1, L]: 0, or so little that nothing is heard.

    Rows lie eight numbers or a multiple apart, or fused kernels would write the mask out for every query.
    """
    count = heard.shape[1]
    room = torch.zeros(len(heard), count + -count % 8, dtype=kind, device=heard.device)[:, :count]
    return room.masked_fill(~heard, torch.finfo(kind).min)[:, None, None]


@final
class Block(nn.Module):
    """x + attention, and x + perceptron, each of what is normalised before.

    own: attention among the queries; other: to other tokens after that. ordered: whether places count in the first.
    """

    def __init__(
        self, width: int, heads: int, feedforward: int, own: bool = True, other: bool = False, ordered: bool = False
    ) -> None:
        super().__init__()
        self.own = Attention(width, heads, ordered) if own else None
        self.other = Attention(width, heads, False) if other else None
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.turn = nn.Sequential(nn.Linear(width, feedforward), nn.GELU(), nn.Linear(feedforward, width))

    def forward(
        self,
        x: Tensor,
        heard: Tensor | None = None,
        tokens: Tensor | None = None,
        others_heard: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """x: [B, L, width]; heard: which of x count; tokens, others_heard: what `other` attends to."""
        if self.own is not None:
            y = self.norms[0](x)
            x = x + self.own(y, y, heard, causal)
        if self.other is not None:
            assert tokens is not None
            x = x + self.other(self.norms[1](x), tokens, others_heard)
        return x + self.turn(self.norms[2](x))
