"""A solve of one kind, compiled: its turn, its ignition, and where each tensor that they read comes from.

A machine is made at the first solve and serves every later one whose field has the same graph (`witness`): only the
tensors are found anew, so that nothing is traced, guarded or evaluated between the call and the launch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..ignition import ignite
from ..problem import Problem
from ..trajectory import Request, Row
from ..trees import filler_of, leaves_of
from ..turn import Limits, Loop, Plan, Sinks, Word, turn
from .graphs import on_device
from .kept import KeptTurn, lift_take, take_flat
from .launches import StepByStep
from .lift import CannotCompile, Lift, Lifted, check_repeatable, without_vmap
from .repeat import Part, Repeat, Spare, Use, in_one_loop
from .shelf import Columns
from .witness import key_of, lift_of

__all__ = ["Machine", "in_order", "loop_of", "setting_of", "tensors_of", "wiring_of"]


def setting_of(problem: Problem, request: Request, reads: list[Tensor], engine: str) -> Hashable:
    """What beside the field's graph a machine depends on; every number in it is part of the compiled code."""
    places = _places(reads)
    kept = (request.args, tuple(sorted(places.get(id(x), -1) for x in request.leaves))) if request.kept else ()
    tolerances = tuple(x if not isinstance(x, Tensor) else tuple(x.shape) for x in (problem.rtol, problem.atol))
    noise = getattr(problem.noise, "kind", type(problem.noise))
    stepper = problem.stepper if type(problem.stepper).__hash__ is not None else id(problem.stepper)
    ids = list(map(id, tensors_of(problem)))
    return (
        engine, request.taped, kept, stepper, problem.controller, problem.output.save.state, problem.sign, tolerances,
        problem.coupled, problem.regularizers, problem.revisits, noise, tuple(problem.output.times.shape),
        problem.s0.shape[0], tuple(ids.index(i) for i in ids),
    )  # fmt: skip


def in_order(reads: Sequence[Tensor], leaves: Iterable[Tensor]) -> list[Tensor]:
    """The leaves in the order in which a field reads them: the same in every solve, whoever found them."""
    places = _places(reads)
    return sorted(leaves, key=lambda x: places.get(id(x), -1))


def _places(reads: Sequence[Tensor]) -> dict[int, int]:
    return {id(x): i for i, x in enumerate(reads)}


def tensors_of(problem: Problem) -> list[Tensor]:
    """The tensors of a problem that are not the field's own, in a fixed order: books, tolerances, noise, arguments."""
    noise = () if problem.noise is None else tuple(vars(problem.noise).values())
    books = (
        problem.s0,
        problem.s1,
        problem.steps,
        problem.rtol,
        problem.atol,
        problem.weight,
        problem.output.times,
        problem.drawn,
    )
    return [x for x in leaves_of((books, noise, problem.field.args)) if isinstance(x, Tensor)]


class Machine:
    """Runs solves of one kind.

    kept: the turn in two halves, where steps keep what their derivatives need; line: a row of the tape in shapes alone,
    bytes_a_row with what is kept; backs: what walks such tapes back.
    """

    def __init__(
        self, plan: Plan, engine: str, problem: Problem, limits: Limits, loop: Loop, y: Tensor, reads: list[Tensor],
        line: Row, request: Request,
    ) -> None:  # fmt: skip
        self.plan, self.line = plan, line
        self.blank, self.fill_line = Columns(leaves_of(line)), filler_of(line)
        self.backs: dict[Hashable, Any] = {}
        self.kept: KeptTurn | None = None
        self.fixed: tuple[int, ...] = ()
        state, self.fill = leaves_of(loop), filler_of(loop)
        others = self._others(problem, limits, y, reads)
        sources = [*(problem.field.arguments[i] for i in request.args), *in_order(reads, request.leaves)]
        key = key_of("turn", problem, y, plan, engine, len(sources))
        once, written = (
            self._kept(lift_of(key, take_flat), problem, limits, loop, others, sources)
            if plan.kept
            else self._plain(lift_of(key, _turn), problem, limits, loop, others, y)
        )
        if set(range(len(state))) - set(once.wiring):
            raise CannotCompile("a turn's graph does not take and return the whole state of the loop")
        self.bytes_a_row = sum(x.numel() * x.element_size() for x in leaves_of(line))
        if self.kept is not None:
            self.bytes_a_row += self.kept.halves.bytes
        # The outputs are kept: rows that a solve does not reach are nobody's.
        filled: list[Use] = ["filled"] * (written - 1)
        uses: list[Use] = [*_reads(problem, limits, others), "kept", *filled]
        begun = lift_of(key_of("ignite", problem, y, plan, engine), _ignite)(problem, plan, y, returns=len(state))
        check_repeatable(begun.traced.graph, begun.inputs, [])
        self.repeat = loop_of(engine, y.device, once, uses, _part(begun, [], others), _origin(loop))

    def sinks(self, rows: int, y: Tensor, out: Tensor) -> Sinks:
        """Where turns write: outputs, and a tape of so many rows, if there is one."""
        if not self.plan.taped:
            return Sinks(out, ())
        return Sinks(out, self.fill_line(iter(self.blank(rows + 1, y.device))))

    def columns(self, rows: int) -> tuple[Tensor, ...]:
        """Where turns write what their derivatives need."""
        return () if self.kept is None else self.kept.columns(rows)

    def _plain(
        self, lift: Lift, problem: Problem, limits: Limits, loop: Loop, others: list[Tensor], y: Tensor
    ) -> tuple[Part, int]:
        """The turn as it is, and how many tensors it writes to."""
        sinks = self.sinks(1, y, y.new_empty(problem.output.times.shape[1] + 1, *y.shape))
        state, written = leaves_of(loop), leaves_of(sinks)
        lifted = lift(problem, self.plan, problem.output.times, limits, loop, sinks, returns=len(state))
        _check_device(lifted, loop)
        once = _part(lifted, state, [*others, *written])
        check_repeatable(lifted.traced.graph, lifted.inputs, written)
        return once, len(written)

    def _kept(
        self, lift: Lift, problem: Problem, limits: Limits, loop: Loop, others: list[Tensor], sources: list[Tensor]
    ) -> tuple[Part, int]:
        """The half of the turn that keeps what the other half needs, and how many tensors it writes to."""
        lifted = lift_take(lift, problem, self.plan, limits, loop)
        _check_device(lifted, loop)
        with torch.no_grad():
            self.kept = KeptTurn(lifted, problem, loop, sources)
        inputs = wiring_of(lifted, leaves_of(loop), others)
        self.fixed = tuple(~inputs[i] for i in self.kept.halves.fixed)
        written = 1 + len(leaves_of(self.line)) + len(self.kept.halves.residuals)
        return Part(self.kept.once, (*inputs, *(~(len(others) + i) for i in range(written)))), written

    def _others(self, problem: Problem, limits: Limits, y: Tensor, reads: list[Tensor]) -> list[Tensor]:
        """What a turn reads beside its state."""
        return [*tensors_of(problem), *limits, y, *reads]

    def __call__(
        self, problem: Problem, limits: Limits, loop: Loop | None, written: list[Tensor], y: Tensor,
        reads: list[Tensor], nth: int,
    ) -> tuple[Loop, Word, tuple[Tensor, ...]]:  # fmt: skip
        """Run from a state, or, with none, from the beginning; also gives what the way back reads again.

        nth: how often this solve has run it before.
        """
        state = None if loop is None else leaves_of(loop)
        others = self._others(problem, limits, y, reads)
        found, word = self.repeat([*others, *written], state, nth, None)
        return self.fill(iter(found)), Word(*word), tuple(others[i] for i in self.fixed)


def _reads(problem: Problem, limits: Limits, others: list[Tensor]) -> list[Use]:
    """Which of the tensors that a turn reads nobody but the solver can write to."""
    own = {id(x) for x in (problem.s0, problem.s1, problem.steps, problem.output.times, *limits)}
    return ["own" if id(x) in own else "read" for x in others]


def _check_device(lifted: Lifted, loop: Loop) -> None:
    if any(x.device != loop.word.device for x in lifted.inputs):
        raise CannotCompile(f"the field reads a tensor that is not on {loop.word.device}, where the state is")


def _origin(loop: Loop) -> Spare:
    """Where to resume matters only to samples that have a place of their own."""
    before = len(leaves_of(loop.carry))
    count = len(leaves_of(loop.origin))
    return Spare(frozenset(range(before, before + count)), Word._fields.index("marked"))


def wiring_of(lifted: Lifted, state: list[Tensor], others: list[Tensor]) -> tuple[int, ...]:
    """Where a lifted graph's inputs come from, as `Part` has it; tensors are known by identity."""
    places: dict[int, int] = {}
    for i, x in enumerate(others):
        places.setdefault(id(x), ~i)
    places |= {id(x): i for i, x in enumerate(state)}
    strangers = [x for x in lifted.inputs if id(x) not in places]
    if strangers:
        raise CannotCompile(f"a step reads a tensor {[*strangers[0].shape]} that the field's first evaluation does not")
    return tuple(places[id(x)] for x in lifted.inputs)


def _part(lifted: Lifted, state: list[Tensor], others: list[Tensor]) -> Part:
    """A lifted graph as a part of a loop."""
    return Part(without_vmap(lifted.traced.graph, lifted.inputs), wiring_of(lifted, state, others))


def _turn(*arguments: Any) -> tuple[Tensor, ...]:
    """`turn`, its state as a flat tuple: Dynamo of torch 2.11 cannot return tuples with names."""
    return tuple(pytree.tree_leaves(turn(*arguments)))


def _ignite(problem: Problem, plan: Plan, y: Tensor) -> tuple[Tensor, ...]:
    return tuple(pytree.tree_leaves(ignite(problem, plan, y)))


def loop_of(
    engine: str, device: torch.device, once: Part, uses: list[Use], first: Part | None, spare: Spare | None = None
) -> Repeat:
    """How an engine repeats a turn on a device; uses: what the turn does with each tensor beside its state."""
    if device.type == "cpu":
        return _best_on_cpu(once, uses, first)
    return on_device(engine, once, uses, first, spare)


def _best_on_cpu(once: Part, uses: list[Use], first: Part | None) -> Repeat:
    """The whole loop in C++ where this torch can compile it (2.11 cannot: no writes in loops), else the turn."""
    best: Callable[..., Any] = in_one_loop(once, first)

    def repeat(
        others: list[Tensor], state: list[Tensor] | None, nth: int, turns: int | None
    ) -> tuple[list[Tensor], list[int]]:
        nonlocal best
        try:
            return best(others, state, nth, turns)
        except CannotCompile:
            if isinstance(best, StepByStep):
                raise
            best = StepByStep(once, uses, first)
            return best(others, state, nth, turns)

    return repeat
