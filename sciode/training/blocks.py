"""Losses made of blocks: sums of mean squares of residuals, each of which looks at one point."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import jacrev, vmap
from torch.utils import _pytree as pytree

__all__ = ["Block", "Draw", "Following", "drawn", "enough", "jacobian_of", "loss_of", "parts_of", "rows_of", "work_of"]


class Block(NamedTuple):
    """One term of a loss: weight x the mean over the points of |residual|^2 + work.

    residual: (theta [P], one point) -> [m]. points: a tensor [N, ...], or a tree of tensors that share this first axis:
    what is known at a point beforehand (an earlier field's values, say) travels with it and is not computed again.
    work: (theta [P], one point) -> [], a term of any sign, as that of a load on an elastic body. A step sees its slope
    and not its curvature: what is nearly linear in the field is at its place here.
    """

    residual: Callable[[Tensor, Any], Tensor]
    points: Any
    weight: float = 1.0
    work: Callable[[Tensor, Any], Tensor] | None = None

    @property
    def count(self) -> int:
        """N, the number of points."""
        return len(pytree.tree_leaves(self.points)[0])

    @property
    def scale(self) -> float:
        """What makes of a residual its part of a vector whose squares sum to the loss."""
        return math.sqrt(self.weight / self.count)

    def some(self, which: slice | Tensor) -> Block:
        """A part of the points, of such a weight that the scale stays."""
        points = pytree.tree_map(lambda leaf: leaf[which], self.points)
        return self._replace(points=points, weight=self.weight * len(pytree.tree_leaves(points)[0]) / self.count)


class Following(NamedTuple):
    """A draw that looks at the weights: blocks(k, theta) of iteration k, which begins at theta."""

    blocks: Callable[[int, Tensor], Sequence[Block]]


Draw = Callable[[int], Sequence[Block]] | Following
"""The blocks of iteration k, with points of its own."""


def drawn(draw: Draw, k: int, theta: Tensor) -> Sequence[Block]:
    """The blocks of an iteration."""
    return draw.blocks(k, theta) if isinstance(draw, Following) else draw(k)


def loss_of(blocks: Sequence[Block], theta: Tensor) -> Tensor:
    """Return sum_b weight_b mean_i (|residual_b(theta, point_i)|^2 + work_b(theta, point_i))."""
    return rows_of(blocks, theta).square().sum() + work_of(blocks, theta)


def work_of(blocks: Sequence[Block], theta: Tensor) -> Tensor:
    """The part of the loss that is no square []."""
    parts = [b.weight * vmap(b.work, (None, 0))(theta, b.points).mean() for b in blocks if b.work is not None]
    return torch.stack(parts).sum() if parts else theta.new_zeros(())


def enough(blocks: Sequence[Block], loss: float, tolerance: float) -> bool:
    """Whether a loss is small; one with work in it may be of any size and sign, and never is."""
    return loss <= tolerance and all(block.work is None for block in blocks)


def rows_of(blocks: Sequence[Block], theta: Tensor, chunk: int | None = None) -> Tensor:
    """All residuals, scaled so that their squares sum to the loss [R]; chunk: of how many points at a time."""
    each = [vmap(b.residual, (None, 0), chunk_size=chunk)(theta, b.points).reshape(-1) * b.scale for b in blocks]
    return torch.cat(each)


def jacobian_of(blocks: Sequence[Block], theta: Tensor, chunk: int | None = None) -> Tensor:
    """The rows' derivative J [R, P]."""
    each = [
        vmap(jacrev(b.residual), (None, 0), chunk_size=chunk)(theta, b.points).reshape(-1, len(theta)) * b.scale
        for b in blocks
    ]
    return torch.cat(each)


def parts_of(blocks: Sequence[Block], chunk: int | None) -> Iterator[Block]:
    """The blocks, cut into parts of so many points; their rows are those of the blocks, one after another."""
    for block in blocks:
        size = chunk or block.count
        for begin in range(0, block.count, size):
            yield block.some(slice(begin, begin + size))
