"""`direct` for a loop on the device: another loop walks back over what each step kept, and takes no step again.

Exactly what autograd's tape would give: the memory that a step hands to the next (a slope, a twin) carries its
cotangent back, instead of being computed again from the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ..engines import KeptTurn, Walk, WayBack, in_order
from ..trajectory import Block, Run
from .rewind import Seeds

__all__ = ["unwind"]


def unwind(run: Run, seeds: Seeds, leaves: Sequence[Tensor]) -> Walk | None:
    """Cotangents of the first state and the whole first memory, the gradients of the sources; None: see `rewind`.

    leaves: the last of the sources, in the order in which their gradients are wanted.
    """
    assert run.tape is not None
    turn, walk = run.tape.kept, None
    for block, penalties in zip(reversed(run.tape.blocks), reversed(seeds.penalties), strict=True):
        if block.count:
            tensors = turn.given_back(block.fixed, block.rows, block.columns, seeds.out, penalties)
            with torch.no_grad():
                walk = _way_back(run, turn, block)(block.count, tensors, walk, seeds.out.device)
    return walk if walk is None else walk._replace(totals=_as_asked(run, walk.totals, leaves))


def _as_asked(run: Run, totals: tuple[Tensor, ...], leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The gradients, those of the leaves no longer in the machine's order."""
    args = len(totals) - len(leaves)
    found = dict(zip(map(id, in_order(run.reads, leaves)), totals[args:], strict=True))
    return (*totals[:args], *(found[id(x)] for x in leaves))


def _way_back(run: Run, turn: KeptTurn, block: Block) -> WayBack:
    """The loop back over such blocks, made at the first one."""
    later, backs = turn.late(block.count), run.machine.backs
    key = (block.rows.s.shape[0], bool(later.products))
    if key not in backs:
        backs[key] = WayBack(run.engine, partial(turn.undo, later.graph), turn.like, turn.memory, later)
    return backs[key]
