"""The first state of a loop, made where the loop runs: what `begin` does with looks at values, without a look.

A start that needs a look (a state or a slope that is not finite) makes a loop that does not go, and its word says so.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .problem import PLACE, Carry, Problem
from .start import any_bad, start_carry
from .status import RUNNING, Status
from .turn import Loop, Plan, word_of

__all__ = ["ignite"]


def ignite(problem: Problem, plan: Plan, y: Tensor) -> Loop:
    """The loop before its first turn, from the state y [B, D] alone: evaluations, first step, books."""
    first = problem.field.first(problem.forward(problem.s0), y)
    sound = (y.abs().amax() < torch.inf) & ~any_bad(first).any()
    carry = own(start_carry(problem, y, first))
    count, zero = torch.ones_like(carry.n), torch.zeros((), dtype=torch.int64, device=y.device)
    running = carry.status == RUNNING
    well = (carry.status == int(Status.SUCCESS)).all() & (problem.output.times.shape[1] == 1)
    word = word_of(sound & running.any(), running, well, zero, zero, zero, sound)
    return Loop(carry, origin_of(plan, carry), count, zero.clone(), zero.clone(), word)


def own(carry: Carry) -> Carry:
    """The carry in memory of its own, no two of its tensors in the same."""
    return pytree.tree_map(lambda x: x.detach().clone(memory_format=torch.contiguous_format), carry)


def origin_of(plan: Plan, carry: Carry) -> tuple[Any, Tensor] | tuple[()]:
    """Where every sample would resume, before any has been marked."""
    if not plan.resumable:
        return ()
    return own(carry)[:PLACE], torch.zeros_like(carry.status, dtype=torch.bool)
