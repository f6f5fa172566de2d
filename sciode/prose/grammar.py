"""What may come next: every sequence that keeps to this is a system of equations of the right dimension, and ends."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor

from sciode.prose.trees import OPERATORS
from sciode.prose.vocabulary import Vocabulary

__all__ = ["Grammar", "State"]

_FREE, _MANTISSA, _EXPONENT = 0, 1, 2


class State(NamedTuple):
    """Of sequences in the making, int64 [B] each.

    wanted: components in all. component: which one is written. ends: its arguments that are missing. phase: whether a
    number is half written. left: tokens that may still come. over: 1 after "end".
    """

    wanted: Tensor
    component: Tensor
    ends: Tensor
    phase: Tensor
    left: Tensor
    over: Tensor


@final
class Grammar:
    """Masks over the tokens of a vocabulary, for many sequences at once.

    reads: how many variables equations may read, where these are more than their components: derivatives of fields.
    """

    def __init__(self, vocabulary: Vocabulary, device: torch.device | str = "cpu", reads: int = 0) -> None:
        words = vocabulary.words
        self.vocabulary, self.ids, self.reads = vocabulary, vocabulary.ids, reads

        def of(values: list[int]) -> Tensor:
            return torch.tensor(values, device=device)

        kinds = [_kind(word) for word in words]
        self.is_symbol = of([kind in ("operator", "leaf", "sign") for kind in kinds]).bool()
        self.is_mantissa = of([kind == "mantissa" for kind in kinds]).bool()
        self.is_exponent = of([kind == "exponent" for kind in kinds]).bool()
        # How many tokens fewer, or more, are needed after a symbol.
        self.change = of([_change(word, kind) for word, kind in zip(words, kinds, strict=True)])
        self.variable = of([int(word[2:]) if word.startswith("u_") else -1 for word in words])
        self.sign = of([kind == "sign" for kind in kinds]).bool()

    def begin(self, dimensions: Tensor, longest: int) -> State:
        """Sequences of so many components [B] with at most `longest` tokens. ValueError if that is too short."""
        if not bool(((dimensions >= 1) & (dimensions <= self.vocabulary.dimension)).all()):
            raise ValueError(f"dimensions must lie between 1 and {self.vocabulary.dimension}")
        if longest < 2 * int(dimensions.max()):
            raise ValueError(f"{int(dimensions.max())} components need at least {2 * int(dimensions.max())} tokens")
        nothing = torch.zeros_like(dimensions)
        return State(dimensions, nothing, nothing + 1, nothing, nothing + longest, nothing)

    def allowed(self, state: State) -> Tensor:
        """Return what may come next, bool [B, V]; after "end" only "pad"."""
        free = state.over == 0
        wanted, component, ends, phase, left, _ = (part[:, None] for part in state)
        # One token for each missing argument, and "|" with one more for each missing component, and "end".
        rest = ends + 2 * (wanted - 1 - component) + 1
        fits = rest + self.change <= left - 1
        known = (self.variable < 0) | (self.variable < wanted.clamp(min=self.reads))
        symbol = self.is_symbol & fits & known & (phase == _FREE) & (ends > 0)
        number = (self.is_mantissa & (phase == _MANTISSA)) | (self.is_exponent & (phase == _EXPONENT))
        found = symbol | number
        done = (ends == 0) & (phase == _FREE)
        more = component + 1 < wanted
        found[:, self.ids["|"]] = (done & more)[:, 0]
        found[:, self.ids["end"]] = (done & ~more)[:, 0]
        found = found & free[:, None]
        found[:, self.ids["pad"]] = ~free
        return found

    def advanced(self, state: State, tokens: Tensor) -> State:
        """Return the states after one token each, int64 [B], which were allowed."""
        wanted, component, ends, _, left, over = state
        symbol, sign = self.is_symbol[tokens], self.sign[tokens]
        mantissa, exponent = self.is_mantissa[tokens], self.is_exponent[tokens]
        parted, ended = tokens == self.ids["|"], tokens == self.ids["end"]
        after = torch.where(symbol & ~sign, ends + self.change[tokens], torch.where(exponent, ends - 1, ends))
        return State(
            wanted,
            component + parted.long(),
            torch.where(parted, 1, after),
            torch.where(sign, _MANTISSA, torch.where(mantissa, _EXPONENT, _FREE)),
            left - (over == 0).long(),
            torch.where(ended, 1, over),
        )


def _kind(word: str) -> str:
    if word in OPERATORS:
        return "operator"
    if word.startswith("u_") or word.isdigit():
        return "leaf"
    if word in ("+", "-"):
        return "sign"
    return {"N": "mantissa", "E": "exponent"}.get(word[0], "special") if word[1:].lstrip("-").isdigit() else "special"


def _change(word: str, kind: str) -> int:
    """A symbol's arguments less the one it is; a number that is spelt takes two more tokens after its sign."""
    if kind == "operator":
        return OPERATORS[word].arity - 1
    return {"leaf": -1, "sign": 1}.get(kind, 0)
