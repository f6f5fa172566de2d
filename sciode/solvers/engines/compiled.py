"""The compiled engine: the whole loop on the device, outputs and tape included; the host waits for its end.

One trace and one compilation for each (method, shapes, code of the field); see `lift` and `repeat`.
"""

from __future__ import annotations

import math
import types
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..advance import select
from ..brownian import BlockNoise
from ..controllers import Fixed
from ..problem import Carry, Problem
from ..status import RUNNING
from ..terms import ODETerm
from ..trajectory import Block, Row, Run, Tape
from ..turn import Limits, Loop, Plan, Sinks, Word, turn
from .eager import split_clock
from .graphs import InGraphs, StepByStep
from .lift import CannotCompile, Lift, Lifted, check_repeatable, without_vmap
from .repeat import Body, Repeat, Use, in_one_loop, look_at_cpu

__all__ = ["feed", "held", "key_of", "lift_of", "loop_of", "run", "why_not"]

Watch = Callable[[Tensor], None]
_WIDEST = 16
"""Most outputs a turn can write; a step that passes more takes several turns."""
_TURNS = 10_000
"""Turns between two looks of the host, so that a solve can be interrupted; fewer where a progress bar is fed."""
_WATCHED_TURNS = 100
_BLOCK_BYTES = 64 * 2**20
"""Memory of one block of the tape."""
_FAR = 2**62
_ROWS = 256
"""Most rows of a block: a short solve should not hold the memory of a long one."""
_KEPT = 64
"""Graphs kept for later solves, the least recently used dropped first."""

_lifts: OrderedDict[Hashable, Lift] = OrderedDict()
_widths: dict[Hashable, int] = {}


def why_not(problem: Problem) -> str | None:
    """What this engine cannot do of a problem, None if it can do all."""
    save = problem.output.save
    if save.at != "ts":
        return f'it keeps states at ts, not save="{save.at}"'
    if save.fn is not None and problem.s0.shape[0] == 1:
        return "it keeps whole states, and Save(fn=) asks for something smaller"
    return None


def run(problem: Problem, carry: Carry, max_steps: int, watch: Watch | None, taped: bool, engine: str) -> Run:
    """Repeat the transition in compiled code; without a tape of autograd's. Raises CannotCompile."""
    if isinstance(problem.controller, Fixed) and problem.s0.shape[0] == 1:
        problem, carry = split_clock(problem, carry)
    if carry.y.device.type == "cpu":
        look_at_cpu()
    problem = replace(problem, field=problem.field.detached())
    save = problem.output.save
    plan = Plan(_width(problem, carry), save.state, taped or bool(problem.regularizers))
    count, (samples, size) = problem.output.times.shape[1], carry.y.shape
    times = torch.nn.functional.pad(problem.output.times, (0, plan.width + 1), value=torch.inf)
    out = carry.y.new_empty(count + 1, samples, size)
    loop = _first(plan, carry)
    lift = lift_of(key_of("turn", problem, carry.y, plan, engine), _turn)
    blocks: list[Block] = []
    word = Word(1, 1, 0, 0, 0, 0)
    while word.running:
        sinks = Sinks(out, _block(problem, plan, loop) if plan.taped else ())
        limits = _limits(max_steps, loop, word.turns + (_WATCHED_TURNS if watch is not None else _TURNS))
        fed, limits, first_step = _feed(problem, loop, limits)
        lifted = lift(fed, plan, times, limits, loop, sinks, returns=len(pytree.tree_leaves(loop)))
        loop, word = _repeat(lifted, loop, sinks, engine)
        if plan.taped:
            blocks.append(Block(sinks.rows, word.rows, first_step))
        if watch is not None:
            watch(loop.carry.t)
        loop = loop._replace(row=_number("row", 0, out.device), word=_first_word(out.device))
    origin = loop.carry
    if plan.resumable and word.marked:
        kept, marked = loop.origin
        origin = select(marked, kept, loop.carry)._replace(status=loop.carry.status)
    tape = Tape(out[:count], loop.count, tuple(blocks))
    return Run(
        problem, loop.carry, origin, [], [], word.turns, word.turns, problem.stepper.nfe, tape, engine, bool(word.well)
    )


@lru_cache(maxsize=4096)
def _number(role: str, value: int, device: torch.device) -> Tensor:
    """A number on a device, made once; an object of its own for each role, because a graph tells roles by objects."""
    return torch.full((), value, dtype=torch.int64, device=device)


@lru_cache(maxsize=64)
def _first_word(device: torch.device) -> Tensor:
    return torch.ones(len(Word._fields), dtype=torch.int64, device=device)


def _turn(*arguments: Any) -> tuple[Tensor, ...]:
    """`turn`, its state as a flat tuple: Dynamo of torch 2.11 cannot return tuples with names."""
    return tuple(pytree.tree_leaves(turn(*arguments)))


def _width(problem: Problem, carry: Carry) -> int:
    """Outputs a turn should be able to write: those in two first steps. Chosen once for a key, so that it stays."""
    key = key_of("width", problem, carry.y)
    if key not in _widths:
        span = (problem.s1 - problem.s0).clamp(min=1e-300)
        wanted = 2 * problem.output.times.shape[1] * float((carry.h / span).median())
        _widths[key] = min(max(math.ceil(wanted), 1), _WIDEST)
    return _widths[key]


def _first(plan: Plan, carry: Carry) -> Loop:
    """The state before the first turn: contiguous tensors, each an object of its own, as a graph wants them."""
    device = carry.y.device

    def own(x: Tensor) -> Tensor:
        # CUDA's loops copy what they are given; the one on a CPU refuses two views of the same memory.
        return x.detach().contiguous() if x.is_cuda else x.detach().clone(memory_format=torch.contiguous_format)

    origin: Any = ()
    if plan.resumable:
        origin = (pytree.tree_map(own, carry), torch.zeros_like(carry.status, dtype=torch.bool))
    row, turns = _number("row", 0, device), _number("turns", 0, device)
    return Loop(pytree.tree_map(own, carry), origin, torch.ones_like(carry.n), row, turns, _first_word(device))


def _limits(max_steps: int, loop: Loop, turns: int) -> Limits:
    """Compiled code takes no number beyond 31 bits."""
    device = loop.turns.device
    trials = _number("trials", min(max_steps, 2**31 - 1), device)
    return Limits(trials, _number("last turn", turns, device), _number("noise", 0, device))


def _feed(problem: Problem, loop: Loop, limits: Limits) -> tuple[Problem, Limits, int]:
    """The problem with the increments of its next steps drawn: hashing inside a loop would compile for minutes."""
    noise = problem.noise
    if noise is None:
        return problem, limits, 0
    running = loop.carry.status == RUNNING
    first = int(torch.where(running, loop.carry.n, _FAR).min())
    fed = feed(problem, first)
    return fed, limits._replace(noise=fed.noise.base + fed.noise.increments.shape[0]), first


def feed(problem: Problem, first: int) -> Problem:
    """The problem with as many increments drawn, from step `first` on, as memory allows."""
    if problem.noise is None:
        return problem
    return replace(problem, noise=BlockNoise.of(problem.noise, first, min(held(problem), problem.noise.steps)))


def held(problem: Problem) -> int:
    """How many steps' increments memory affords."""
    return max(_BLOCK_BYTES // (8 * problem.noise.width), 16)


def _block(problem: Problem, plan: Plan, loop: Loop) -> Row:
    """Empty columns for the rows of the tape, as many as fit in a block, and one for waste."""
    carry = loop.carry
    lanes = carry.t.shape[0]
    essential = problem.stepper.essential(carry.memory)
    flag = torch.empty(lanes, dtype=torch.bool, device=carry.y.device)
    k = torch.empty(plan.width, lanes, dtype=torch.int64, device=carry.y.device)
    penalty = carry.y.real.new_empty(carry.y.shape[0])
    line = Row(
        carry.t, carry.t, carry.n, carry.y, essential, flag, flag, k.to(torch.float64), k,
        tuple(penalty for _ in problem.regularizers),
    )  # fmt: skip
    bytes_a_row = sum(x.numel() * x.element_size() for x in pytree.tree_leaves(line))
    rows = min(max(_BLOCK_BYTES // bytes_a_row, 8), _ROWS)
    return pytree.tree_map(lambda x: x.new_empty(rows + 1, *x.shape), line)


def _repeat(lifted: Lifted, loop: Loop, sinks: Sinks, engine: str) -> tuple[Loop, Word]:
    """Run the loop's graph from this state to its end."""
    state, spec = pytree.tree_flatten(loop)
    if lifted.traced.made is None:
        positions = lifted.positions(state)
        if any(x.device != loop.word.device for x in lifted.inputs):
            raise CannotCompile(f"the field reads a tensor that is not on {loop.word.device}, where the state is")
        if set(range(len(state))) - set(positions):
            raise CannotCompile("a turn's graph does not take and return the whole state of the loop")
        check_repeatable(lifted.traced.graph, lifted.inputs, pytree.tree_leaves(sinks))
        written: list[Use] = [
            "read" if p < 0 else "kept" if p == 0 else "filled" for p in lifted.positions(pytree.tree_leaves(sinks))
        ]
        body = without_vmap(lifted.traced.graph, lifted.inputs)
        lifted.traced.made = loop_of(engine, loop.word.device, body, positions, written)
    found, word = lifted.traced.made(lifted.inputs)
    return pytree.tree_unflatten(found, spec), Word(*word)


def loop_of(
    engine: str, device: torch.device, body: Body, positions: list[int], written: list[Use] | None = None
) -> Repeat:
    """How an engine repeats a body on a device; `written`: what the body does with its inputs (read)."""
    uses: list[Use] = written or ["read"] * len(positions)
    if device.type == "cpu":
        return _best_on_cpu(body, positions, uses)
    return (InGraphs if engine in ("graph", "kernel") else StepByStep)(body, positions, uses)


def _best_on_cpu(body: Body, positions: list[int], written: list[Use]) -> Repeat:
    """The whole loop in C++ where this torch can compile it (2.11 cannot: no writes in loops), else the turn."""
    best = in_one_loop(body, positions)

    def repeat(inputs: list[Tensor]) -> tuple[list[Tensor], list[int]]:
        nonlocal best
        try:
            return best(inputs)
        except CannotCompile:
            if isinstance(best, StepByStep):
                raise
            best = StepByStep(body, positions, written)
            return best(inputs)

    return repeat


def lift_of(key: Hashable, function: Callable[..., Any]) -> Lift:
    """The lift of a function for this key, made when first asked for."""
    lift = _lifts.get(key)
    if lift is None:
        lift = _lifts[key] = Lift(function)
        while len(_lifts) > _KEPT:
            _lifts.popitem(last=False)
    _lifts.move_to_end(key)
    return lift


def key_of(what: str, problem: Problem, y: Tensor, *more: Hashable) -> Hashable:
    """What solves have in common that one graph can serve: the field's code, the method, the shapes."""
    term = problem.field.term
    fields = (term.field,) if isinstance(term, ODETerm) else (term.drift, term.diffusion)
    shapes = (tuple(y.shape), problem.s0.shape[0], tuple(problem.output.times.shape), y.dtype, y.device)
    stepper = problem.stepper if type(problem.stepper).__hash__ is not None else type(problem.stepper)
    return (what, *map(_code, fields), type(term), stepper, shapes, problem.coupled, *more)


def _code(function: Any) -> Hashable:
    """The code of a function, however often the function is made again; the class of anything else."""
    if isinstance(function, types.MethodType):
        return function.__func__.__code__, type(function.__self__)
    if isinstance(function, types.FunctionType):
        return function.__code__
    return type(function), getattr(function, "training", None)
