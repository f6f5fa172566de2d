"""`direct` for a loop on the device: another loop walks back over what each step kept, and takes no step again.

Exactly what autograd's tape would give: the memory that a step hands to the next (a slope, a twin) carries its
cotangent back, instead of being computed again from the state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..engines import KeptTurn, Part, Walk, loop_of, number
from ..trajectory import Block, Run
from .rewind import Seeds

__all__ = ["unwind"]


def unwind(run: Run, seeds: Seeds) -> Walk:
    """Cotangents of the first state and of the whole first memory, and the gradients of the sources."""
    assert run.tape is not None
    turn, state = run.tape.kept, None
    for block, penalties in zip(reversed(run.tape.blocks), reversed(seeds.penalties), strict=True):
        if block.count:
            state = _through(run, turn, block, seeds.out, penalties, state)
    if state is None:
        state = turn.still(number("last row", 0, seeds.out.device))
    return pytree.tree_unflatten(state, turn.walk_as)


def _through(
    run: Run, turn: KeptTurn, block: Block, out: Tensor, penalties: tuple[Tensor, ...], state: list[Tensor] | None
) -> list[Tensor]:
    """Back through one block; state None: it is the last one, the first to walk."""
    last = number("last row", block.count - 1, out.device)
    others = [last, *turn.given_back(block.fixed, block.rows, block.columns, out, penalties)]
    key = ("unwind", block.rows.s.shape[0])
    backs: dict[Any, Any] = run.machine.backs
    if key not in backs:
        size = turn.walk_as.num_leaves
        once = Part(turn.once_back, (*range(size), *(~i for i in range(1, len(others)))))
        backs[key] = loop_of(run.engine, out.device, once, ["read"] * len(others), Part(turn.still, (~0,)))
    if state is not None:
        state = [*state[:-2], last.clone(), torch.ones_like(state[-1])]
    with torch.no_grad():
        return backs[key](others, state)[0]
