"""What the writer remembers from token to token: keys and values of what is written, so that each step reads one."""

from __future__ import annotations

from typing import cast, final

import torch
from torch import Tensor

from sciode.prose.attention import Attention, Block, rotated
from sciode.prose.model import Fused, Transformer

__all__ = ["Memory"]


@final
class Memory:
    """Scores of the next token of sequences that `write` makes, at the cost of one token a step.

    `write(memory.scores, ..., follow=memory.follow)` is `write` with `Transformer.score_next`, the same but for
    rounding. fused: of B samples. beams: rows a sample.
    """

    def __init__(self, model: Transformer, fused: Fused, beams: int) -> None:
        self.model = model
        tokens, heard = model.for_writer(fused)
        self.heard = None if heard is None else heard.repeat_interleave(beams, 0)
        self.layers = [cast(Block, one) for one in model.writer]
        # What is attended to does not change: its keys and values are made once.
        self.others: list[tuple[Tensor, Tensor]] = []
        for block in self.layers:
            assert block.other is not None
            key, value = _both(block.other, tokens)
            self.others.append((key.repeat_interleave(beams, 0), value.repeat_interleave(beams, 0)))
        self.own: list[tuple[Tensor, Tensor] | None] = [None] * len(self.others)

    def scores(self, ids: Tensor) -> Tensor:
        """Of what follows ids [N, L], [N, V]; all but the last have been seen before."""
        place, x = ids.shape[1] - 1, self.model.word(ids[:, -1:])
        for layer, block in enumerate(self.layers):
            assert block.own is not None and block.other is not None
            y = block.norms[0](x)
            key, value = _both(block.own, y)
            key = rotated(key, place)
            before = self.own[layer]
            if before is not None:
                key, value = torch.cat((before[0], key), 2), torch.cat((before[1], value), 2)
            self.own[layer] = key, value
            query = rotated(block.own.split(block.own.query(y)), place)
            x = x + block.own.joined(query, key, value, None)
            query = block.other.split(block.other.query(block.norms[1](x)))
            x = x + block.other.joined(query, *self.others[layer], self.heard)
            x = x + block.turn(block.norms[2](x))
        return self.model.score(self.model.norms[3](x))[:, 0]

    def follow(self, rows: Tensor) -> None:
        """Row k goes on what was row rows[k], of the same sample."""
        self.own = [None if one is None else (one[0][rows], one[1][rows]) for one in self.own]


def _both(attention: Attention, tokens: Tensor) -> tuple[Tensor, Tensor]:
    key, value = attention.both(tokens).chunk(2, -1)
    return attention.split(key), attention.split(value)
