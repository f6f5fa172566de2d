"""Tensors side by side in one piece of memory for each dtype, so that all of them are copied in as many launches."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import final

import torch
from torch import Tensor

__all__ = ["Columns", "Shelf"]

_STEP = 16
"""Every tensor begins at a multiple of so many elements: at 16 bytes at least, where compiled code wants it."""


@final
class Shelf:
    """Copies of `tensors`, contiguous, which stay where they are; those in `apart` lie by themselves.

    None overlap, and none is a view to autograd or a compiler, which would watch over views of one memory together.
    """

    def __init__(self, tensors: Sequence[Tensor], apart: Collection[int] = ()) -> None:
        self.tensors = [x.detach().clone(memory_format=torch.contiguous_format) for x in tensors]
        self.apart = frozenset(apart)
        self.boards: list[tuple[Tensor, list[int], list[int]]] = []
        for dtype in dict.fromkeys(x.dtype for x in tensors):
            places = [i for i, x in enumerate(tensors) if x.dtype == dtype and i not in self.apart]
            if places:
                self._lay(places)

    def _lay(self, places: list[int]) -> None:
        """Move tensors of one dtype to a board: of its sizes every second one is a gap."""
        found = [self.tensors[i] for i in places]
        sizes = _sizes([x.numel() for x in found])
        board = found[0].new_zeros(sum(sizes))
        for i, part in zip(places, board.split(sizes)[::2], strict=True):
            place = torch.from_dlpack(part).view(self.tensors[i].shape)
            self.tensors[i] = place.copy_(self.tensors[i])
        self.boards.append((board, places, sizes))

    def copies(self, wanted: Collection[int]) -> list[Tensor]:
        """What lies there now, for the caller to keep; of those apart only what is wanted, the others as they are."""
        found = [x.clone() if i in wanted and i in self.apart else x for i, x in enumerate(self.tensors)]
        for board, places, sizes in self.boards:
            for i, part in zip(places, board.clone().split(sizes)[::2], strict=True):
                found[i] = part.view(found[i].shape)
        return found


@final
class Columns:
    """Rows for tensors like those of `line`, not filled, and new at every call."""

    def __init__(self, line: Sequence[Tensor]) -> None:
        self.line = [(x.dtype, tuple(x.shape)) for x in line]
        self.boards: dict[int, list[tuple[torch.dtype, list[int], list[int]]]] = {}

    def __call__(self, rows: int, device: torch.device) -> list[Tensor]:
        """Tensors [rows, ...]; on a GPU side by side, because asking for memory many times takes long."""
        if device.type == "cpu":
            return [torch.empty((rows, *shape), dtype=dtype, device=device) for dtype, shape in self.line]
        if rows not in self.boards:
            self.boards[rows] = self._laid(rows)
        found: dict[int, Tensor] = {}
        for dtype, places, sizes in self.boards[rows]:
            for i, part in zip(
                places, torch.empty(sum(sizes), dtype=dtype, device=device).split(sizes)[::2], strict=True
            ):
                found[i] = part.view(rows, *self.line[i][1])
        return [found[i] for i in range(len(self.line))]

    def _laid(self, rows: int) -> list[tuple[torch.dtype, list[int], list[int]]]:
        """For each dtype, which tensors have it and the sizes of its board."""
        boards = []
        for dtype in dict.fromkeys(dtype for dtype, _ in self.line):
            places = [i for i, (own, _) in enumerate(self.line) if own == dtype]
            boards.append((dtype, places, _sizes([rows * math.prod(self.line[i][1]) for i in places])))
        return boards


def _sizes(lengths: Sequence[int]) -> list[int]:
    """Of the parts of a board, and of the gaps between them."""
    return [n for length in lengths for n in (length, -length % _STEP)]
