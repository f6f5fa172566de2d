"""The transformer of PROSE: a trajectory and symbols in, a solution operator and symbols out.

Data tokens are frames (time is one of their numbers, so that their order does not count and times may be any), symbol
tokens are a guess at the equations. Both are encoded, fused by self-attention over all of them, and read by an operator
decoder (queries are times, which see the data tokens alone) and a causal symbol decoder (which sees the symbol tokens).

Source: Liu, Zhang, Schaeffer (Neural Networks 180, 2024). Differences: layers normalise before, phases are rotary, each
component is divided by its own size over the frames that are read, and a token of its own tells means and sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from sciode.prose.attention import Block
from sciode.prose.vocabulary import Vocabulary
from sciode.solvers.suggest import choose

__all__ = ["EXACT", "PRESETS", "Fused", "Shape", "Transformer"]

_PERIODS = tuple(24.0 / 2**k for k in range(8))
_READS = ("both", "data", "symbols")
_SEES = ("own", "all")


@dataclass(frozen=True)
class Shape:
    """Sizes. reads: "both", or "data" or "symbols" alone: twins that tell what the other is worth. writes: whether it
    writes equations; one that reads data alone and writes none knows no symbols at all.

    Raises ValueError for sizes below one, a width that heads do not divide into even parts, or unknown words.
    """

    dimension: int = 3
    width: int = 256
    heads: int = 8
    feedforward: int = 1024
    data: int = 2
    symbols: int = 2
    fusion: int = 4
    operator: int = 4
    writer: int = 4
    reads: str = "both"
    writes: bool = True
    sees: str = "own"

    def __post_init__(self) -> None:
        choose("reads", self.reads, _READS)
        choose("sees", self.sees, _SEES)
        if self.sees == "all" and self.reads == "symbols":
            raise ValueError(
                'decoders that see all tokens would see the frames: take sees="own" beside reads="symbols"'
            )
        sizes = (self.dimension, self.width, self.heads, self.feedforward, self.data, self.symbols, self.fusion)
        if min(*sizes, self.operator, self.writer) < 1 or self.width % (2 * self.heads):
            raise ValueError(f"sizes must be at least 1 and width a multiple of twice the heads, got {self}")


PRESETS: Mapping[str, Shape] = MappingProxyType(
    {
        "tiny": Shape(width=32, heads=2, feedforward=64, data=1, symbols=1, fusion=1, operator=1, writer=1),
        "mini": Shape(width=128, heads=4, feedforward=512),
        "small": Shape(),
        "paper": Shape(5, 512, 8, 2048, 2, 4, 8, 8, 8),
    }
)
"""By name: for tests, 3.7 million weights (what we ship), 14 million, and the paper's sizes, 105 million."""


EXACT = ("frame", "time", "sizes", "value", "norms.2")
"""Parts of a transformer that compute in float32, whatever its layers compute in."""

Run = Callable[..., Tensor]
"""A layer and what it is called with -> what it returns."""


def _run(block: nn.Module, *given: Any) -> Tensor:
    return block(*given)


class Fused(NamedTuple):
    """What decoders see: data tokens and symbol tokens, which of them count, and each component's mean and size."""

    data: Tensor
    symbols: Tensor
    symbols_heard: Tensor
    mean: Tensor
    size: Tensor


@final
class Transformer(nn.Module):
    """See the module. A system of fewer components than `dimension` has zeros in the place of those it lacks.

    run: how a layer is applied; training may set one that is compiled.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, self.vocabulary = shape, Vocabulary(shape.dimension)
        width, words = shape.width, len(self.vocabulary.words)

        def blocks(count: int, **kind: bool) -> nn.ModuleList:
            return nn.ModuleList(Block(width, shape.heads, shape.feedforward, **kind) for _ in range(count))

        def embedding(size: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, width))

        waves = 2 * len(_PERIODS)
        self.reset_buffers()
        self.frame, self.time = embedding(waves + shape.dimension), embedding(waves)
        self.sizes = embedding(3 * shape.dimension)
        self.word, self.kinds = nn.Embedding(words, width), nn.Parameter(0.02 * torch.randn(2, width))
        self.encode_data, self.encode_symbols = blocks(shape.data), blocks(shape.symbols, ordered=True)
        self.fusion = blocks(shape.fusion)
        self.operator = blocks(shape.operator, own=False, other=True)
        self.writer = blocks(shape.writer if shape.writes else 0, other=True, ordered=True)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.value, self.score = nn.Linear(width, shape.dimension), nn.Linear(width, words)
        self.run: Run = _run

    def reset_buffers(self) -> None:
        """Set the speeds of `_waves`, which no file holds."""
        self.register_buffer("speeds", 2 * math.pi / torch.tensor(_PERIODS), persistent=False)

    def read(self, times: Tensor, values: Tensor, symbols: Tensor, components: Tensor) -> Fused:
        """Encode and fuse.

        times: [B, T]. values: [B, T, D], zeros beyond a system's own components, of which there are components [B].
        symbols: ids [B, L] of the guess, padded by "pad".
        """
        there = torch.arange(values.shape[-1], device=values.device) < components[:, None]
        mean = values.mean(1)
        size = (values - mean[:, None]).square().mean(1).sqrt().clamp(min=1e-6)
        scaled = ((values - mean[:, None]) / size[:, None]).masked_fill(~there[:, None], 0.0)
        told = size.log().masked_fill(~there, 0.0), torch.asinh(mean).masked_fill(~there, 0.0), there.to(values)
        # In full precision, whatever the layers compute in: neighbouring frames differ by less than bfloat16 tells.
        with torch.autocast(values.device.type, enabled=False):
            frames = self.frame(torch.cat((self._waves(times), scaled), -1))
            data = torch.cat((self.sizes(torch.cat(told, -1))[:, None], frames), 1)
        data = data.to(self.kinds)
        for block in self.encode_data:
            data = self.run(block, data)
        if self.shape.reads == "data":
            for block in self.fusion:
                data = self.run(block, data)
            return Fused(self.norms[0](data), data[:, :0], symbols[:, :0] > 0, mean, size)
        heard = symbols != self.vocabulary.ids["pad"]
        words = self.word(symbols)
        for block in self.encode_symbols:
            words = self.run(block, words, heard)
        count = data.shape[1]
        all_heard = torch.cat((heard.new_full(data.shape[:2], self.shape.reads != "symbols"), heard), 1)
        both = torch.cat((data + self.kinds[0], words + self.kinds[1]), 1)
        for block in self.fusion:
            both = self.run(block, both, all_heard)
        return Fused(self.norms[0](both[:, :count]), self.norms[1](both[:, count:]), heard, mean, size)

    def _waves(self, times: Tensor) -> Tensor:
        """Times [...] as sines and cosines [..., 16] of periods from 24 to 0.19."""
        angles = times[..., None] * self.get_buffer("speeds")
        return torch.cat((angles.sin(), angles.cos()), -1)

    def predict(self, fused: Fused, times: Tensor) -> Tensor:
        """Return u at times [B, Q]: [B, Q, D]; each time is answered alone."""
        with torch.autocast(times.device.type, enabled=False):
            queries = self.time(self._waves(times)).to(self.kinds)
        tokens, heard = self._every(fused) if self.shape.sees == "all" else (fused.data, None)
        for block in self.operator:
            queries = self.run(block, queries, None, tokens, heard)
        with torch.autocast(times.device.type, enabled=False):
            return fused.mean[:, None] + fused.size[:, None] * self.value(self.norms[2](queries.to(fused.mean)))

    def score_next(self, fused: Fused, written: Tensor) -> Tensor:
        """Return scores [B, L, V] of what follows each of the written ids [B, L], the first of which is "start".

        ValueError for a model that writes nothing.
        """
        if not self.shape.writes:
            raise ValueError("this model writes no equations: it was made with Shape(writes=False)")
        words = self.word(written)
        tokens, heard = self.for_writer(fused)
        for block in self.writer:
            words = self.run(block, words, None, tokens, heard, True)
        return self.score(self.norms[3](words))

    def for_writer(self, fused: Fused) -> tuple[Tensor, Tensor | None]:
        """Return the tokens [B, L, width] that the writer attends to, and which of them count, None: all."""
        # The twin that reads no symbols writes from the data.
        if self.shape.reads == "data":
            return fused.data, None
        return self._every(fused) if self.shape.sees == "all" else (fused.symbols, fused.symbols_heard)

    def _every(self, fused: Fused) -> tuple[Tensor, Tensor | None]:
        if not fused.symbols.shape[1]:
            return fused.data, None
        heard = fused.symbols_heard
        data = heard.new_ones(fused.data.shape[:2])
        return torch.cat((fused.data, fused.symbols), 1), torch.cat((data, heard), 1)

    @property
    def weights(self) -> int:
        """How many numbers are trained."""
        return sum(one.numel() for one in self.parameters())
