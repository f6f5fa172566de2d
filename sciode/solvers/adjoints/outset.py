"""The way back ends at the first memory (a slope, a twin), which is a function of the first state and the field, too.

Behind a loop on the device that function's vector-Jacobian product is a graph, found once: nothing is put on autograd's
tape where a solve is done every few milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..engines import Lifted, key_of, lift_of, tensors_of, wiring_of
from ..problem import Problem
from .rewind import Rewound, pullback

__all__ = ["at_the_outset"]


def at_the_outset(part: Rewound, y0: Tensor, cotangents: Sequence[Tensor], whole: bool) -> list[Tensor] | None:
    """Gradients of y0 and the sources from the cotangents of the first memory; None where there is no such graph.

    whole: cotangents of all of it, or of what is essential.
    """
    others = [*tensors_of(part.problem), *part.run.reads]
    places = {id(x): i for i, x in enumerate(others)}
    asked = tuple(places.get(id(x), -1) for x in part.sources)
    key = ("outset", whole, tuple(a.requires_grad for a in others), asked)
    backs = part.run.machine.backs
    y = y0.detach()
    if key not in backs:
        try:
            backs[key] = _Outset(_lifted(part, y, len(cotangents), whole), y, part.sources, others)
        except Exception:
            # Whatever it is: autograd's tape can do it, or says what it was.
            backs[key] = None
    if backs[key] is None:
        return None
    with torch.no_grad():
        return backs[key](y, others, cotangents)


def _lifted(part: Rewound, y: Tensor, count: int, whole: bool) -> Lifted:
    """The graph of the first memory. Traced as it will be differentiated, as steps are."""
    key = key_of("outset", part.problem, y, whole, len(part.sources), part.run.engine)
    with torch.enable_grad():
        return lift_of(key, _memory)(part.problem, y, whole, returns=count)


def _memory(problem: Problem, y: Tensor, whole: bool) -> tuple[Tensor, ...]:
    t0 = problem.forward(problem.s0)
    memory = problem.stepper.start(problem.field, t0, y, problem.field.first(t0, y))
    return tuple(memory if whole else problem.stepper.essential(memory))


class _Outset:
    """One such graph, and where its inputs come from."""

    def __init__(self, lifted: Lifted, y: Tensor, sources: list[Tensor], others: list[Tensor]) -> None:
        self.wiring = wiring_of(lifted, [y], others)
        like = [y, *sources]
        with torch.no_grad():
            self.graph: Any = pullback(lifted, lifted.positions(like), like)

    def __call__(self, y: Tensor, others: list[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor]:
        """Pull the cotangents back."""
        return list(self.graph(*(y if w >= 0 else others[~w] for w in self.wiring), *cotangents))
