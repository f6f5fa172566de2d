"""mTAN: attention over learned embeddings of time, from readings to reference points, and from these to any time."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sciode.timeseries.model import Batch, Paths, SequenceModel, judged, nothing_solved, refuse_regularizers
from sciode.timeseries.schedule import asked

__all__ = ["MTAND", "TimeAttention"]

_SCORE = 20.0
"""Bound of a score: weights then differ by e^40 at most, which float32 can tell from 0."""


class TimeAttention(nn.Module):
    """For times q and readings x_l at t_l, channel by channel over those that are there,

        o_c(q) = sum_l w_l x_lc / sum_l w_l,   log w_l = s(phi(q) . phi'(t_l) / sqrt d),   s = 20 tanh(. / 20),

    with phi(t) = [w0 t + b0, sin(w t + b)], then an affine map of all heads' o and of whether a channel has readings.
    A channel without any gives 0. Maps [B, L, C] to [B, Q, width].
    """

    def __init__(self, channels: int, width: int, heads: int = 1, size: int = 16) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.line = nn.Linear(1, 1)
        self.wave = nn.Linear(1, size - 1)
        self.query = nn.Linear(size, heads * size)
        self.key = nn.Linear(size, heads * size)
        self.out = nn.Linear((heads + 1) * channels, width)

    def _embedded(self, times: Tensor) -> Tensor:
        """phi [B, N, d] of times [B, N]."""
        t = times.unsqueeze(-1)
        return torch.cat((self.line(t), self.wave(t).sin()), -1)

    def forward(self, wanted: Tensor, times: Tensor, values: Tensor, seen: Tensor) -> Tensor:
        """wanted [B, Q], times [B, L] numbers; values [B, L, C], 0 where not seen; seen [B, L, C] bool."""
        query, key = (
            affine(self._embedded(t)).unflatten(-1, (self.heads, self.size)).transpose(1, 2)
            for affine, t in ((self.query, wanted), (self.key, times))
        )
        score = query @ key.transpose(-1, -2) / math.sqrt(self.size)  # [B, heads, Q, L]
        weight = (_SCORE * (score / _SCORE).tanh()).exp()
        there = seen.to(values.dtype).unsqueeze(1)
        total = weight @ there
        mean = weight @ values.unsqueeze(1) / torch.where(total > 0, total, 1.0)
        known = seen.any(1, keepdim=True).to(values.dtype).expand(-1, wanted.shape[1], -1)
        return self.out(torch.cat((mean.transpose(1, 2).flatten(2), known), -1))


class MTAND(SequenceModel):
    """mTAN: readings -> attention -> reference points -> GRU both ways -> attention -> states at any time.

    The reference points are spread evenly over each series' own [0, end]. Every state depends on the whole series. No
    solver: `regularize` is refused. points: number of reference points, good values 16..128; heads of the attention.
    Source: Shukla, Marlin: Multi-time attention networks for irregularly sampled time series (2021); the
    encoder-decoder without its variational part.
    """

    causal = False
    reads: Literal["control", "values"] = "values"
    noisy = False

    def __init__(
        self, channels: int, hidden: int = 32, layers: int = 2, *, static: int = 0, points: int = 32, heads: int = 2
    ) -> None:
        super().__init__()
        self.hidden, self.points = hidden, points
        self.read = TimeAttention(channels + static, hidden, heads)
        self.mix = nn.GRU(hidden, hidden, num_layers=layers, batch_first=True, bidirectional=True)
        self.tell = TimeAttention(2 * hidden, hidden, heads)

    def forward(
        self,
        batch: Batch,
        queries: Tensor | None,
        seed: int | Tensor,
        *,
        throw: bool = False,
        regularize: Any = (),
        engine: str = "auto",
    ) -> Paths:
        refuse_regularizers(regularize, "mTAN")
        status, nfe = nothing_solved(batch)
        times, values, seen = batch.clocked()
        share = torch.linspace(0, 1, self.points, dtype=torch.float64, device=times.device)
        points = (batch.ends.double().unsqueeze(1) * share).to(values.dtype)
        mixed = self.mix(self.read(points, times.to(values.dtype), values, seen))[0]
        wanted = asked(batch, queries)
        everywhere = torch.ones_like(mixed, dtype=torch.bool)
        found = self.tell(wanted.nan_to_num().to(values.dtype), points, mixed, everywhere)
        found = torch.where(wanted.isfinite().unsqueeze(-1), found, 0.0)
        return Paths(found[:, :-1], found[:, -1], judged(found, status, throw), nfe, {})
