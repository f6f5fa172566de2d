"""Equations written token by token, by beams or by chance; the grammar says what may follow, so that all are such."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sciode.prose.grammar import Grammar, State
from sciode.prose.trees import Expression

__all__ = ["Writing", "Written", "write"]

Scores = Callable[[Tensor], Tensor]
"""Ids written so far [N, L] -> scores of the next one [N, V]."""


@dataclass(frozen=True)
class Writing:
    """beams: how many of the likeliest sequences are followed. temperature: above 0, draw `beams` sequences instead.

    longest: tokens at most. Good values: 4 beams. Raises ValueError for bad numbers.
    """

    beams: int = 4
    temperature: float = 0.0
    longest: int = 150

    def __post_init__(self) -> None:
        if self.beams < 1 or not self.temperature >= 0 or self.longest < 2:
            raise ValueError(f"beams must be at least 1, temperature 0 or more and longest at least 2, got {self}")


class Written(NamedTuple):
    """Of each sample, its systems from the likeliest on: equations [B][beams] and log-probabilities [B, beams].

    Where fewer systems fit into `longest` tokens than there are beams, those that are left over have -inf.
    """

    equations: list[list[tuple[Expression, ...]]]
    scores: Tensor


def write(
    scores: Scores,
    grammar: Grammar,
    components: Tensor,
    how: Writing | None = None,
    seed: int = 0,
    follow: Callable[[Tensor], None] | None = None,
) -> Written:
    """Return systems of so many components [B], beams of each.

    scores: is asked with all beams of all samples as rows, [B x beams, L], the first ids being "start". Probabilities
    are those among what the grammar allows. follow: called with the rows [B x beams] that rows go on, after each token,
    if `scores` remembers anything of them (`sciode.prose.Memory`).
    """
    how = how or Writing()
    size, beams = len(components), how.beams
    state = grammar.begin(components.repeat_interleave(beams), how.longest)
    ids = torch.full((size * beams, 1), grammar.ids["start"], device=components.device)
    # At first all beams of a sample are one.
    totals = torch.full((size, beams), -torch.inf, device=components.device, dtype=torch.float64)
    totals[:, 0] = 0.0
    if how.temperature:
        totals[:] = 0.0
    generator = torch.Generator(components.device).manual_seed(seed)
    while not bool((state.over == 1).all()):
        allowed = grammar.allowed(state)
        logs = scores(ids).double().masked_fill(~allowed, -torch.inf).log_softmax(-1)
        if how.temperature:
            chances = (logs / how.temperature).softmax(-1)
            tokens = torch.multinomial(chances, 1, generator=generator)[:, 0]
            rows = torch.arange(len(ids), device=ids.device)
            totals = totals + logs[rows, tokens].view(size, beams)
        else:
            rows, tokens, totals = _best(totals, logs.view(size, beams, -1))
        ids = torch.cat((ids[rows], tokens[:, None]), 1)
        if follow is not None:
            follow(rows)
        state = grammar.advanced(State(*(part[rows] for part in state)), tokens)
    totals, order = totals.sort(dim=1, descending=True, stable=True)
    found = ids.view(size, beams, -1).gather(1, order[..., None].expand(-1, -1, ids.shape[1]))
    equations = [[grammar.vocabulary.decoded(_told(row, grammar)) for row in rows] for rows in found.tolist()]
    return Written(equations, totals)


def _best(totals: Tensor, logs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The likeliest continuations of each sample's beams: rows they come from, their tokens, and totals [B, beams]."""
    size, beams, words = logs.shape
    totals, places = (totals[..., None] + logs).flatten(1).topk(beams)
    rows = (places // words + beams * torch.arange(size, device=places.device)[:, None]).flatten()
    # Where there are fewer sequences than beams, the rest follow some likely path, and count for nothing.
    likely = logs.flatten(0, 1).argmax(-1)[rows]
    tokens = torch.where(totals.flatten().isfinite(), (places % words).flatten(), likely)
    return rows, tokens, totals


def _told(row: list[int], grammar: Grammar) -> list[int]:
    """The ids between "start" and the padding."""
    return [one for one in row[1:] if one != grammar.ids["pad"]]
