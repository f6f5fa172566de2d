"""The loop back over a tape, row by row, whatever undoes a row: the same for steps taken again and for steps kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..turn import write_row
from .compiled import number
from .machine import loop_of
from .products import Postponed, room, totals
from .repeat import Part, Repeat, Use

__all__ = ["Undo", "Walk", "WayBack"]


class Walk(NamedTuple):
    """The state of the loop back.

    Cotangents of the state and of the memory; the sources' gradients so far, within the loop those alone that it adds
    up itself; row [], the next to undo; its word.
    """

    y: Tensor
    memory: tuple[Tensor, ...]
    totals: tuple[Tensor, ...]
    row: Tensor
    word: Tensor


Undo = Callable[[Tensor, Walk, Sequence[Tensor]], Sequence[Tensor]]
"""undo(index [1], walk, tensors) -> cotangents of the state and the memory before the row, then gradients to add, then
what `Postponed` calls factors."""


class WayBack:
    """Repeats `undo` from a row to the first; like: shapes of the state, of `memory` tensors, and of the sources.

    later: what `undo` does not do itself; the columns of its products are numbers of `tensors`.
    """

    def __init__(self, engine: str, undo: Undo, like: Sequence[Tensor], memory: int, later: Postponed) -> None:
        # Shapes only: what serves later solves should hold on to no tensor of this one.
        shapes = [torch.empty_like(x, device="meta") for x in like]
        before = 1 + memory
        self.running = [i for i in range(len(like) - before) if i not in later.products]
        self.like = [*shapes[:before], *(shapes[before + i] for i in self.running)]
        self.engine, self.undo, self.memory, self.later = engine, undo, memory, later
        self.repeat: Repeat | None = None
        self.nth = 0
        self.written: list[Tensor] = []

    def __call__(self, count: int, tensors: Sequence[Tensor], walk: Walk | None, device: torch.device) -> Walk:
        """Undo `count` rows; tensors: what `undo` takes; walk None: the cotangents begin with 0."""
        self.nth = 0 if walk is None else self.nth + 1
        last = number("last row", count - 1, device)
        written = self._room(count, device)
        others, state = [last, *tensors, *written], None
        if walk is not None:
            own = tuple(walk.totals[i] for i in self.running)
            state = pytree.tree_leaves(walk._replace(totals=own, row=last.clone(), word=torch.ones_like(walk.word)))
        if self.repeat is None:
            once = Part(self._once, (*range(len(self.like) + 2), *(~i for i in range(1, len(others)))))
            read: list[Use] = ["read"] * (1 + len(tensors))
            scratch: list[Use] = ["scratch"] * len(written)
            self.repeat = loop_of(self.engine, device, once, [*read, *scratch], Part(self._still, (~0,)))
        found = self._walk(self.repeat(others, state, self.nth, count)[0])
        return found._replace(totals=self._completed(found.totals, count, tensors, written, walk))

    def _room(self, count: int, device: torch.device) -> list[Tensor]:
        """Where factors are written, [rows, ...] each: on a GPU always the same place, which graphs write to."""
        if not self.written or self.written[0].shape[0] <= count or device.type == "cpu":
            rows = room(count)
            with torch.inference_mode(False):
                written = [torch.empty((rows, *x.shape), dtype=x.dtype, device=device) for x in self.later.factors]
            if device.type == "cpu":
                return written
            self.written = written
        return self.written

    def _completed(
        self, added: tuple[Tensor, ...], count: int, tensors: Sequence[Tensor], written: list[Tensor], walk: Walk | None
    ) -> tuple[Tensor, ...]:
        """The gradients of all sources: those that the loop has added up, and the products of its factors."""
        if not self.later.products:
            return added
        products = totals(self.later.products, {"column": tensors, "written": written}, count)
        if walk is not None:
            products = {i: walk.totals[i] + x for i, x in products.items()}
        found = {**dict(zip(self.running, added, strict=True)), **products}
        return tuple(found[i] for i in range(len(found)))

    def _still(self, last: Tensor) -> list[Tensor]:
        zeros = [torch.zeros(x.shape, dtype=x.dtype, device=last.device) for x in self.like]
        return [*zeros, last.clone(), torch.ones(1, dtype=torch.int64, device=last.device)]

    def _walk(self, state: Sequence[Tensor]) -> Walk:
        a = 1 + self.memory
        return Walk(state[0], tuple(state[1:a]), tuple(state[a:-2]), state[-2], state[-1])

    def _once(self, *tensors: Any) -> list[Tensor]:
        size, factors = len(self.like) + 2, len(self.later.factors)
        walk, end = self._walk(tensors[:size]), len(tensors) - factors
        y, *more = self.undo(walk.row.clamp(min=0).reshape(1), walk, tensors[size:end])
        a, b = self.memory, self.memory + len(self.running)
        if factors:
            # A turn in vain writes to the row for waste.
            waste = tensors[end].shape[0] - 1
            write_row(tensors[end:], torch.where(walk.row >= 0, walk.row, waste), more[b:])
        added = tuple(t + g for t, g in zip(walk.totals, more[a:b], strict=True))
        word = (walk.row > 0).to(torch.int64).reshape(1)
        return pytree.tree_leaves(Walk(y, tuple(more[:a]), added, walk.row - 1, word))
