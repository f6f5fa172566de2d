"""A solve of one kind, compiled: its turn, its ignition, and where each tensor that they read comes from.

A machine is made at the first solve and serves every later one whose field has the same graph (`witness`): only the
tensors are found anew, so that nothing is traced, guarded or evaluated between the call and the launch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..ignition import ignite
from ..problem import Problem
from ..trajectory import Row
from ..turn import Limits, Loop, Plan, Sinks, Word, turn
from .graphs import InGraphs, StepByStep
from .lift import CannotCompile, Lifted, check_repeatable
from .repeat import Part, Repeat, Spare, Use, in_one_loop
from .witness import key_of, lift_of

__all__ = ["Machine", "loop_of", "setting_of", "tensors_of", "wired"]


def setting_of(problem: Problem, taped: bool, engine: str) -> Hashable:
    """What beside the field's graph a machine depends on; every number in it is part of the compiled code."""
    tolerances = tuple(x if not isinstance(x, Tensor) else tuple(x.shape) for x in (problem.rtol, problem.atol))
    noise = None if problem.noise is None else type(problem.noise)
    stepper = problem.stepper if type(problem.stepper).__hash__ is not None else id(problem.stepper)
    ids = list(map(id, tensors_of(problem)))
    return (
        engine, taped, stepper, problem.controller, problem.output.save.state, problem.sign, tolerances,
        problem.coupled, problem.regularizers, noise, tuple(problem.output.times.shape), problem.s0.shape[0],
        tuple(ids.index(i) for i in ids),
    )  # fmt: skip


def tensors_of(problem: Problem) -> list[Tensor]:
    """The tensors of a problem that are not the field's own, in a fixed order: books, tolerances, noise, arguments."""
    noise = () if problem.noise is None else tuple(vars(problem.noise).values())
    books = (problem.s0, problem.s1, problem.steps, problem.rtol, problem.atol, problem.weight, problem.output.times)
    return [x for x in pytree.tree_leaves((books, noise, problem.field.args)) if isinstance(x, Tensor)]


class Machine:
    """Runs solves of one kind; `line` is a row of its tape in shapes alone, `backs` what walks such tapes back."""

    def __init__(
        self, plan: Plan, engine: str, problem: Problem, limits: Limits, loop: Loop, sinks: Sinks, y: Tensor,
        reads: list[Tensor], line: Row,
    ) -> None:  # fmt: skip
        self.plan, self.line = plan, line
        self.backs: dict[Hashable, Any] = {}
        state, self.spec = pytree.tree_flatten(loop)
        others = self._others(problem, limits, sinks, y, reads)
        lift = lift_of(key_of("turn", problem, y, plan, engine), _turn)
        lifted = lift(problem, plan, problem.output.times, limits, loop, sinks, returns=len(state))
        if any(x.device != y.device for x in lifted.inputs):
            raise CannotCompile(f"the field reads a tensor that is not on {y.device}, where the state is")
        once = wired(lifted, state, others)
        if set(range(len(state))) - set(once.wiring):
            raise CannotCompile("a turn's graph does not take and return the whole state of the loop")
        written = pytree.tree_leaves(sinks)
        check_repeatable(lifted.traced.graph, lifted.inputs, written)
        uses: list[Use] = ["read"] * len(others)
        for i, x in enumerate(written):
            # The outputs are kept: rows that a solve does not reach are nobody's.
            uses[len(others) - len(written) + i] = "kept" if x is sinks.out else "filled"
        first = lift_of(key_of("ignite", problem, y, plan, engine), _ignite)
        begun = first(problem, plan, y, returns=len(state))
        check_repeatable(begun.traced.graph, begun.inputs, [])
        self.repeat = loop_of(engine, y.device, once, uses, wired(begun, [], others), _origin(loop))

    def _others(self, problem: Problem, limits: Limits, sinks: Sinks, y: Tensor, reads: list[Tensor]) -> list[Tensor]:
        """What a turn reads beside its state, and last where it writes."""
        return [*tensors_of(problem), *limits, y, *reads, *pytree.tree_leaves(sinks)]

    def __call__(
        self, problem: Problem, limits: Limits, loop: Loop | None, sinks: Sinks, y: Tensor, reads: list[Tensor]
    ) -> tuple[Loop, Word]:
        """Run from a state, or, with none, from the beginning."""
        state = None if loop is None else pytree.tree_leaves(loop)
        found, word = self.repeat(self._others(problem, limits, sinks, y, reads), state)
        return pytree.tree_unflatten(found, self.spec), Word(*word)


def _origin(loop: Loop) -> Spare:
    """Where to resume matters only to samples that have a place of their own."""
    before = len(pytree.tree_leaves(loop.carry))
    count = len(pytree.tree_leaves(loop.origin))
    return Spare(frozenset(range(before, before + count)), Word._fields.index("marked"))


def wired(lifted: Lifted, state: list[Tensor], others: list[Tensor]) -> Part:
    """A lifted graph as a part of a loop; its tensors are known by identity."""
    places: dict[int, int] = {}
    for i, x in enumerate(others):
        places.setdefault(id(x), ~i)
    places |= {id(x): i for i, x in enumerate(state)}
    strangers = [x for x in lifted.inputs if id(x) not in places]
    if strangers:
        raise CannotCompile(f"a step reads a tensor {[*strangers[0].shape]} that the field's first evaluation does not")
    return Part(lifted.traced.graph, tuple(places[id(x)] for x in lifted.inputs))


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
        return _best_on_cpu(once, uses, first, device)
    return (InGraphs if engine in ("graph", "kernel") else StepByStep)(once, uses, first, device, spare)


def _best_on_cpu(once: Part, uses: list[Use], first: Part | None, device: torch.device) -> Repeat:
    """The whole loop in C++ where this torch can compile it (2.11 cannot: no writes in loops), else the turn."""
    best: Callable[..., Any] = in_one_loop(once, first)

    def repeat(others: list[Tensor], state: list[Tensor] | None) -> tuple[list[Tensor], list[int]]:
        nonlocal best
        try:
            return best(others, state)
        except CannotCompile:
            if isinstance(best, StepByStep):
                raise
            best = StepByStep(once, uses, first, device)
            return best(others, state)

    return repeat
