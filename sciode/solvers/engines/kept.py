"""A loop whose steps are differentiated without being taken again: what their derivatives need is kept beside the tape.

The turn is lifted as the pure function `take` and split in two (see `partition`). An engine repeats the first half, on
the way there, and the second, row by row, on the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..problem import Problem
from ..trajectory import Row
from ..trees import leaves_of
from ..turn import Limits, Loop, Plan, Sinks, Taken, outputs_at, take, write, write_row
from .lift import CannotCompile, Lift, Lifted
from .partition import Asked, Partition, Place, partition
from .products import Postponed, postpone
from .shelf import Columns

__all__ = ["KeptTurn", "lift_take", "take_flat"]


def take_flat(*arguments: Any) -> tuple[Tensor, ...]:
    """`take`, its results as a flat tuple, without those that a graph would not return: they are its inputs."""
    return tuple(pytree.tree_leaves(_made(take(*arguments))))


def lift_take(lift: Lift, problem: Problem, plan: Plan, limits: Limits, loop: Loop) -> Lifted:
    """The graph of `take_flat`, which `lift` lifts.

    Traced as it will be differentiated: a field's own `no_grad` blocks end where they end in its code.
    """
    with torch.enable_grad():
        count = len(pytree.tree_leaves(_pattern(loop, len(problem.regularizers))))
        return lift(problem, plan, problem.output.times, limits, loop, returns=count)


class KeptTurn:
    """A lifted `take` in two halves, and where the tensors of each come from and go to.

    lifted, problem, loop: what `lift_take` gave and was given (of one call; others differ in values only); sources: the
    tensors beside the state whose gradients are wanted.
    """

    def __init__(self, lifted: Lifted, problem: Problem, loop: Loop, sources: Sequence[Tensor]) -> None:
        state, carry = pytree.tree_leaves(loop), loop.carry
        self.stepper = problem.stepper
        self.positions = lifted.positions(state)
        self.loop_as, self.inputs = pytree.tree_structure(loop), len(lifted.inputs)
        numbers, self.taken_as = pytree.tree_flatten(_pattern(loop, len(problem.regularizers)))
        self.made = len(numbers)
        at = pytree.tree_unflatten(list(range(self.made)), self.taken_as)
        own = {id(x): i for i, x in enumerate(lifted.inputs)}

        def given(x: Tensor) -> Place:
            return Place("input", own[id(x)])

        line = pytree.tree_map(lambda i: Place("output", i), at.line)._replace(
            s=given(carry.t), n=given(carry.n), y=given(carry.y),
            essential=tuple(map(given, self.stepper.essential(carry.memory))),
        )  # fmt: skip
        wanted = [carry.y, *carry.memory, *sources]
        # Shapes only: what serves later solves should hold on to no tensor of this one.
        self.like, self.memory = [torch.empty_like(x, device="meta") for x in wanted], len(carry.memory)
        after = at.loop.carry
        self.halves: Partition = partition(lifted.traced.graph, lifted.inputs, Asked(
            wanted=lifted.positions(wanted),
            like=wanted,
            steady=[p < 0 for p in self.positions],
            held=pytree.tree_leaves(line, is_leaf=lambda x: isinstance(x, Place)),
            differentiated=[after.y, *after.memory, at.values, *at.line.penalties],
        ))  # fmt: skip
        if self.halves.strangers:
            # On autograd's tape it has its gradient, so whoever asked falls back to that.
            raise CannotCompile("the field uses a tensor that requires grad and that it did not use at the first time")
        fixed = len(self.halves.fixed)
        rows = range(fixed, fixed + len(self.halves.held) + len(self.halves.residuals))
        columns, same, self.device = {i: i for i in rows}, frozenset(range(fixed)), loop.word.device
        self.blank = Columns(self.halves.residuals)
        self.later = postpone(self.halves.backward, 1 + self.memory, same, columns, self.device)

    def columns(self, rows: int) -> tuple[Tensor, ...]:
        """Empty columns [rows + 1, ...] for what `rows` steps keep; the last row is waste."""
        return tuple(self.blank(rows + 1, self.device))

    def once(self, *tensors: Tensor) -> list[Tensor]:
        """One turn: a body over (*inputs, *sinks, *columns) that returns the loop's state, its word last."""
        inputs, written = tensors[: self.inputs], tensors[self.inputs :]
        mine = len(written) - len(self.halves.residuals)
        found = self.halves.forward(*inputs)
        taken = pytree.tree_unflatten(found[: self.made], self.taken_as)
        state = [x for _, x in sorted((p, i) for i, p in enumerate(self.positions) if p >= 0)]
        carry = pytree.tree_unflatten([inputs[i] for i in state], self.loop_as).carry
        line = taken.line._replace(s=carry.t, n=carry.n, y=carry.y, essential=self.stepper.essential(carry.memory))
        row_as = pytree.tree_structure(line)
        write(Sinks(written[0], pytree.tree_unflatten(written[1:mine], row_as)), taken._replace(line=line))
        write_row(written[mine:], taken.at, found[self.made :])
        return pytree.tree_leaves(taken.loop)

    def given_back(
        self, fixed: Sequence[Tensor], rows: Row, columns: Sequence[Tensor], out: Tensor, penalties: Sequence[Tensor]
    ) -> list[Tensor]:
        """What `undo` takes.

        fixed: see there; rows, columns: of the block; out [T + 1, B, D], penalties [rows + 1, B]: cotangents of what
        was written.
        """
        leaves = leaves_of(rows)
        return [*fixed, *(leaves[i] for i in self.halves.held), *columns, rows.k, out, *penalties]

    def late(self, count: int) -> Postponed:
        """How so many rows are undone."""
        return self.later if self.later.fits(count) else Postponed.none(self.halves.backward)

    def undo(self, graph: Any, index: Tensor, walk: Any, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The other half, of row `index` [1], by the graph of `late`: see `walk.Undo`.

        tensors: what `given_back` puts together.
        """
        rest = iter(tensors)

        def row(column: Tensor) -> Tensor:
            return column.index_select(0, index).squeeze(0)

        fixed = [next(rest) for _ in self.halves.fixed]
        stored = [row(next(rest)) for _ in (*self.halves.held, *self.halves.residuals)]
        k, out = row(next(rest)), next(rest)
        seeds = [walk.y, *walk.memory, outputs_at(out, k), *(row(p) for p in rest)]
        return list(graph(*fixed, *stored, *seeds))


def _made(taken: Taken) -> Taken:
    """A turn without those parts of its line that it was given."""
    return taken._replace(line=taken.line._replace(s=(), n=(), y=(), essential=()))


def _pattern(loop: Any, penalties: int) -> Taken:
    """Something of the structure of what `take_flat` flattens."""
    line: Any = Row(*_slots(len(Row._fields)))
    return _made(Taken(loop, 0, line._replace(penalties=_slots(penalties)), 0))  # type: ignore[arg-type]


def _slots(count: int) -> tuple[Any, ...]:
    return (0,) * count
