"""Attention from places to sensors: to all of them, to the nearest few, or in linear time."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciode.data.flow import Space
from sciode.solvers.suggest import choose

__all__ = ["WAYS", "SensorAttention"]

WAYS = ("dense", "nearest", "linear")
_SHARED = 1e-18
"""Of features, of which the largest is 1 at least: its square is still a number in single precision."""


class SensorAttention(nn.Module):
    """Multi-head attention of Q places to N sensors at each of K times.

        o_h = sum_i w_hi v_hi,  log w_hi = q_h . k_hi / sqrt d - b_h |x - x_i|^2 / l^2 + const,  b_h > 0 learned,

    l being the sensors' spacing and |x - x_i| the way of the space: over a seam, the chord on a sphere. b_h -> infinity
    reads the nearest sensor alone.

    way: "dense": all sensors, cost Q N. "nearest": the `k` nearest of each place, cost Q k beside finding them; with
    k >= N the same as "dense". "linear": kernel features elu + 1 in place of the exponential, cost Q + N, without
    the term of distance (Katharopoulos et al., 2020).

    Raises ValueError for an unknown way, k < 1, or heads that do not divide the width.
    """

    def __init__(
        self, width: int, heads: int = 4, *, way: Literal["dense", "nearest", "linear"] = "dense", k: int = 16
    ) -> None:
        super().__init__()
        choose("attention", way, WAYS)
        if heads < 1 or width % heads or k < 1:
            raise ValueError(f"heads must divide the width {width} and k be >= 1, got heads={heads}, k={k}")
        self.heads, self.way, self.k = heads, way, k
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        if way != "linear":
            # Heads begin from far-sighted to near-sighted.
            self.sharpness = nn.Parameter(torch.linspace(-2.0, 2.0, heads))

    def forward(
        self, q: Tensor, known: Tensor, x: Tensor, points: Tensor, there: Tensor, near: Tensor, space: Space
    ) -> Tensor:
        """q [B, Q, width] at x [B, Q, d]; known [B, K, N, width] at points [B, N, d] -> [B, K, Q, width]."""
        query = self.query(q).unflatten(-1, (self.heads, -1))  # [B, Q, h, d]
        key, value = (
            affine(known).unflatten(-1, (self.heads, -1)) for affine in (self.key, self.value)
        )  # [B, K, N, h, d]
        if self.way == "linear":
            return self.out(_linear(query, key, value, there).flatten(-2))
        distance = _distances(x, points, near, space)  # [B, Q, N]
        if self.way == "nearest" and self.k < points.shape[1]:
            return self.out(self._nearest(query, key, value, distance, there).flatten(-2))
        bias = -F.softplus(self.sharpness)[:, None, None] * distance[:, None, None]  # [B, 1, h, Q, N]
        bias = bias.masked_fill(~there[:, None, None, None], -math.inf)
        found = F.scaled_dot_product_attention(
            query.transpose(1, 2).unsqueeze(1).expand(-1, key.shape[1], -1, -1, -1),
            key.transpose(2, 3),
            value.transpose(2, 3),
            bias.expand(-1, key.shape[1], -1, -1, -1),
        )  # [B, K, h, Q, d]
        return self.out(found.transpose(2, 3).flatten(-2))

    def _nearest(self, query: Tensor, key: Tensor, value: Tensor, distance: Tensor, there: Tensor) -> Tensor:
        """[B, K, Q, h, d] from the k nearest."""
        least, which = distance.masked_fill(~there.unsqueeze(1), math.inf).topk(self.k, largest=False)  # [B, Q, k]
        # Infinity times a slope of zero would be no number.
        none = least.isinf()
        least = least.masked_fill(none, 0.0)
        begin = there.shape[1] * torch.arange(len(which), device=which.device)[:, None, None]
        row = (which + begin).flatten()
        # What is selected so is added up on the way back, where indexing would sort first.
        k, v = (part.transpose(1, 2).flatten(0, 1).index_select(0, row).unflatten(0, which.shape)
                for part in (key, value))  # [B, Q, k, K, h, d]  # fmt: skip
        score = torch.einsum("bqhd,bqnkhd->bkqhn", query, k) / math.sqrt(query.shape[-1])
        bias = -F.softplus(self.sharpness)[:, None] * least.unsqueeze(-2)  # [B, Q, h, k]
        bias = bias.masked_fill(none.unsqueeze(-2), -math.inf)
        weight = (score + bias.unsqueeze(1)).softmax(-1)
        return torch.einsum("bkqhn,bqnkhd->bkqhd", weight, v)


def _distances(x: Tensor, points: Tensor, near: Tensor, space: Space) -> Tensor:
    """Squares [B, Q, N], in spacings, axis by axis: [B, Q, N, d] would be d times the memory."""
    found: Tensor | None = None
    for axis in range(x.shape[-1]):
        way = points[:, None, :, axis] - x[:, :, None, axis]
        if space.kind == "periodic":
            side = space.upper[axis] - space.lower[axis]
            way = way - side * (way / side).round()
        square = way.square()
        found = square if found is None else found + square
    assert found is not None
    return found / near.square()[:, None, None]


def _linear(query: Tensor, key: Tensor, value: Tensor, there: Tensor) -> Tensor:
    """sum_i phi(q) . phi(k_i) v_i / sum_i phi(q) . phi(k_i), phi = elu + 1, over sensors that are there."""
    features = _positive(query, query.amax(-1, keepdim=True))
    there = there[:, None, :, None, None]
    keys = _positive(key, key.masked_fill(~there, -math.inf).amax((2, 4), keepdim=True)) * there
    memory = torch.einsum("bknhd,bknhe->bkhde", keys, value)
    total = torch.einsum("bqhd,bkhd->bkqh", features, keys.sum(2))
    # Where hardly a feature is shared, hardly anything is heard; a smaller sum's gradient would be no number.
    total = total.clamp(min=_SHARED)
    return torch.einsum("bqhd,bkhde->bkqhe", features, memory) / total.unsqueeze(-1)


def _positive(x: Tensor, most: Tensor) -> Tensor:
    """elu(x) + 1, divided by what it is at `most` where that is below 1: a quotient of sums does not see the factor,
    and sums that are all tiny would be 0 / 0."""
    shift = most.detach().clamp(max=0.0)
    return torch.where(x > 0, x + 1.0, (x.clamp(max=0.0) - shift).clamp(max=0.0).exp())
