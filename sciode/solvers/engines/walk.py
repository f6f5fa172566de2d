"""The loop back over a tape, row by row, whatever undoes a row: the same for steps taken again and for steps kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .compiled import number
from .machine import loop_of
from .repeat import Part, Repeat

__all__ = ["Undo", "Walk", "WayBack"]


class Walk(NamedTuple):
    """The state of the loop back.

    Cotangents of the state and of the memory; the sources' gradients so far; row [], the next to undo; its word.
    """

    y: Tensor
    memory: tuple[Tensor, ...]
    totals: tuple[Tensor, ...]
    row: Tensor
    word: Tensor


Undo = Callable[[Tensor, Walk, Sequence[Tensor]], Sequence[Tensor]]
"""undo(index [1], walk, tensors) -> cotangents of the state and the memory before the row, then gradients to add."""


class WayBack:
    """Repeats `undo` from a row to the first; like: shapes of the state, of `memory` tensors, and of the sources."""

    def __init__(self, engine: str, undo: Undo, like: Sequence[Tensor], memory: int) -> None:
        # Shapes only: what serves later solves should hold on to no tensor of this one.
        self.like = [torch.empty_like(x, device="meta") for x in like]
        self.engine, self.undo, self.memory = engine, undo, memory
        self.repeat: Repeat | None = None
        self.nth = 0

    def __call__(self, count: int, tensors: Sequence[Tensor], walk: Walk | None, device: torch.device) -> Walk:
        """Undo `count` rows; tensors: what `undo` takes; walk None: the cotangents begin with 0."""
        self.nth = 0 if walk is None else self.nth + 1
        last = number("last row", count - 1, device)
        others, state = [last, *tensors], None
        if walk is not None:
            state = pytree.tree_leaves(walk._replace(row=last.clone(), word=torch.ones_like(walk.word)))
        if self.repeat is None:
            once = Part(self._once, (*range(len(self.like) + 2), *(~i for i in range(1, len(others)))))
            self.repeat = loop_of(self.engine, device, once, ["read"] * len(others), Part(self._still, (~0,)))
        return self._walk(self.repeat(others, state, self.nth)[0])

    def _still(self, last: Tensor) -> list[Tensor]:
        zeros = [torch.zeros(x.shape, dtype=x.dtype, device=last.device) for x in self.like]
        return [*zeros, last.clone(), torch.ones(1, dtype=torch.int64, device=last.device)]

    def _walk(self, state: Sequence[Tensor]) -> Walk:
        a = 1 + self.memory
        return Walk(state[0], tuple(state[1:a]), tuple(state[a:-2]), state[-2], state[-1])

    def _once(self, *tensors: Any) -> list[Tensor]:
        size = len(self.like) + 2
        walk = self._walk(tensors[:size])
        y, *more = self.undo(walk.row.clamp(min=0).reshape(1), walk, tensors[size:])
        memory, gradients = more[: self.memory], more[self.memory :]
        totals = tuple(t + g for t, g in zip(walk.totals, gradients, strict=True))
        word = (walk.row > 0).to(torch.int64).reshape(1)
        return pytree.tree_leaves(Walk(y, tuple(memory), totals, walk.row - 1, word))
