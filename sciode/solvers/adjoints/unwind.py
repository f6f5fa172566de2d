"""`direct` for a loop on the device: another loop walks back over what each step kept, and takes no step again.

Exactly what autograd's tape would give: the memory that a step hands to the next (a slope, a twin) carries its
cotangent back, instead of being computed again from the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..engines import KeptTurn, Walk, loop_of
from ..problem import Problem
from ..trajectory import Block
from .rewind import Seeds

__all__ = ["Kept", "start_vjp", "unwind"]


class Kept(NamedTuple):
    """A block of the tape, what its steps kept (columns [rows + 1, ...]), and the inputs that the way back reads."""

    block: Block
    columns: tuple[Tensor, ...]
    fixed: tuple[Tensor, ...]


def unwind(turn: KeptTurn, kept: Sequence[Kept], seeds: Seeds, engine: str) -> Walk:
    """Cotangents of the first state and memory, and the gradients of the sources."""
    walk = turn.walk(0)
    for (block, columns, fixed), penalties in zip(reversed(kept), reversed(seeds.penalties), strict=True):
        if not block.count:
            continue
        walk = walk._replace(row=torch.full_like(walk.row, block.count - 1), word=torch.ones_like(walk.word))
        tensors, positions = turn.way_back(walk, fixed, block.rows, columns, seeds.out, penalties)
        if turn.back is None:
            turn.back = loop_of(engine, seeds.out.device, turn.once_back, positions)
        found, _ = turn.back(tensors)
        walk = pytree.tree_unflatten(found, pytree.tree_structure(walk))
    return walk


def start_vjp(problem: Problem, y0: Tensor, walk: Walk, sources: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Gradients of y0 (without what it is as an output) and of the sources: the first memory is made of them, too."""
    if not walk.memory:
        return walk.y, list(walk.totals)
    t0 = problem.forward(problem.s0)
    with torch.enable_grad():
        y = y0.detach().requires_grad_()
        memory = problem.stepper.start(problem.field, t0, y, problem.field.first(t0, y))
    pairs = [(m, c) for m, c in zip(memory, walk.memory, strict=True) if m.requires_grad]
    pulled: Any = [None] * (1 + len(sources))
    if pairs:
        outputs, given = zip(*pairs, strict=True)
        pulled = torch.autograd.grad(outputs, [y, *sources], given, allow_unused=True)
    start, *totals = (
        total if g is None else total + g for total, g in zip((walk.y, *walk.totals), pulled, strict=True)
    )
    return start, totals
