"""The compiled engine: the whole loop on the device, outputs and tape included; the host waits for its end.

One trace and one compilation for each (method, shapes, code of the field); see `lift`, `repeat` and `machine`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from ..brownian import BlockNoise, block_size
from ..controllers import Fixed
from ..ignition import origin_of, own
from ..problem import PLACE, Carry, Problem
from ..status import RUNNING
from ..trajectory import Block, Origin, Request, Row, Run, Start, Tape
from ..trees import leaves_of
from ..turn import Limits, Loop, Plan, Word
from .eager import split_clock, with_lanes
from .lift import Lifted
from .machine import Machine, setting_of
from .repeat import look_at_cpu
from .witness import known_of, witness

__all__ = ["BLOCK_BYTES", "Unsound", "feed", "held", "number", "prepared", "run", "why_not"]

Watch = Callable[[Tensor], None]
_WIDEST = 16
"""Most outputs a turn can write; a step that passes more takes several turns."""
_TURNS = 10_000
"""Turns between two looks of the host, so that a solve can be interrupted; fewer where a progress bar is fed."""
_WATCHED_TURNS = 100
BLOCK_BYTES = 64 * 2**20
"""Memory of one block of the tape."""
_FAR = 2**62
_ROWS = 256
"""Most rows of a block: a short solve should not hold the memory of a long one."""


class Unsound(RuntimeError):
    """A solve that began without a look at its values needs one: it has to begin again."""


def why_not(problem: Problem) -> str | None:
    """What this engine cannot do of a problem, None if it can do all."""
    save = problem.output.save
    if save.at != "ts":
        return f'it keeps states at ts, not save="{save.at}"'
    if save.fn is not None and problem.s0.shape[0] == 1:
        return "it keeps whole states, and Save(fn=) asks for something smaller"
    return None


def prepared(problem: Problem, y: Tensor) -> Problem:
    """The problem as a loop takes it: no gradients, and with fixed steps a status for every sample."""
    if isinstance(problem.controller, Fixed) and problem.s0.shape[0] == 1 and not problem.coupled:
        problem = with_lanes(problem, y.shape[0])
    field = problem.field.detached()
    return problem if field is problem.field else replace(problem, field=field)


def run(problem: Problem, start: Start, max_steps: int, watch: Watch | None, request: Request, engine: str) -> Run:
    """Repeat the transition in compiled code; without a tape of autograd's. Raises CannotCompile and Unsound."""
    problem, y = prepared(problem, start.y), start.y.detach()
    lifted = start.witness or witness(problem, y)
    machine = _machine(problem, start, y, request, engine, lifted)
    plan, loop = machine.plan, None if start.fresh else _given(problem, start, machine.plan)
    out = y.new_empty(problem.output.times.shape[1] + 1, *y.shape)
    blocks: list[Block] = []
    rows = min(max(BLOCK_BYTES // machine.bytes_a_row, 8), _ROWS)
    word, nth = Word(1, 1, 0, 0, 0, 0, 1), 0
    while word.running:
        sinks, columns = machine.sinks(rows, y, out), machine.columns(rows)
        limits = _limits(max_steps, y.device, word.turns + (_WATCHED_TURNS if watch is not None else _TURNS), rows)
        fed, limits, first_step = _feed(problem, loop, limits)
        written = [*leaves_of(sinks), *columns]
        loop, word, fixed = machine(fed, limits, loop, written, y, lifted.inputs, nth)
        nth += 1
        if not word.sound:
            raise Unsound
        if plan.taped:
            blocks.append(Block(sinks.rows, word.rows, first_step, columns, fixed))
        if watch is not None:
            watch(loop.carry.t)
        loop = loop._replace(row=number("row", 0, y.device), word=_first_word(y.device))
    assert loop is not None
    origin = None
    if plan.resumable and word.marked:
        place, marked = loop.origin
        kept = loop.carry._replace(**dict(zip(Carry._fields[:PLACE], place, strict=True)))
        origin = Origin(marked, kept)
    tape = Tape(out[:-1], loop.count, tuple(blocks), machine.kept)
    nfe, reads = problem.stepper.nfe, lifted.inputs
    return Run(
        problem, loop.carry, origin, [], [], word.turns, word.turns, nfe, tape, engine, bool(word.well), machine, reads
    )


def _machine(problem: Problem, start: Start, y: Tensor, request: Request, engine: str, lifted: Lifted) -> Machine:
    """The machine for such a solve, made at the first one."""
    machines = known_of(lifted, problem).machines
    # How many increments are drawn at once is a number in the compiled code.
    setting = (_drawn(problem), setting_of(problem, request, lifted.inputs, engine))
    if setting not in machines:
        if start.carry is None:
            raise Unsound
        if y.device.type == "cpu":
            look_at_cpu()
        carry = _apart(problem, start.carry)
        taped = request.taped or bool(problem.regularizers)
        plan = Plan(_width(problem, carry), problem.output.save.state, taped, request.kept)
        fed, limits, _ = _feed(problem, None, _limits(1, y.device, _TURNS, 1))
        line = _line(problem, plan, carry)
        machines[setting] = Machine(plan, engine, fed, limits, _first(plan, carry), y, lifted.inputs, line, request)
    return machines[setting]


def _given(problem: Problem, start: Start, plan: Plan) -> Loop:
    """The state of a loop that does not begin at the beginning."""
    assert start.carry is not None
    return _first(plan, _apart(problem, start.carry))


def _apart(problem: Problem, carry: Carry) -> Carry:
    """The carry with as many clocks as the problem has."""
    return carry if carry.t.shape[0] == problem.s0.shape[0] else split_clock(problem, carry)[1]


@lru_cache(maxsize=4096)
def number(role: str, value: int, device: torch.device) -> Tensor:
    """A number on a device, made once; an object of its own for each role, because a graph tells roles by objects."""
    with torch.inference_mode(False):
        return torch.full((), value, dtype=torch.int64, device=device)


@lru_cache(maxsize=64)
def _first_word(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.ones(len(Word._fields), dtype=torch.int64, device=device)


def _width(problem: Problem, carry: Carry) -> int:
    """Outputs a turn should be able to write: those in two first steps."""
    span = (problem.s1 - problem.s0).clamp(min=1e-300)
    wanted = 2 * problem.output.times.shape[1] * float((carry.h / span).median())
    return min(max(math.ceil(wanted), 1), _WIDEST)


def _first(plan: Plan, carry: Carry) -> Loop:
    """The state before the first turn: contiguous tensors, each an object of its own, as a graph wants them."""
    carry, device = own(carry), carry.y.device
    row, turns = number("row", 0, device), number("turns", 0, device)
    return Loop(carry, origin_of(plan, carry), torch.ones_like(carry.n), row, turns, _first_word(device))


def _limits(max_steps: int, device: torch.device, turns: int, rows: int) -> Limits:
    """Compiled code takes no number beyond 31 bits."""
    trials = number("trials", min(max_steps, 2**31 - 1), device)
    return Limits(trials, number("last turn", turns, device), number("noise", 0, device), number("rows", rows, device))


def _feed(problem: Problem, loop: Loop | None, limits: Limits) -> tuple[Problem, Limits, int]:
    """The problem with the increments of its next steps drawn: hashing inside a loop would compile for minutes."""
    if not problem.counted:
        return problem, limits, 0
    first = 0
    if loop is not None:
        running = loop.carry.status == RUNNING
        first = int(torch.where(running, loop.carry.n, _FAR).min())
    fed = feed(problem, first)
    last = first + block_size(fed.noise)
    return fed, limits._replace(noise=number("noise", last, limits.noise.device)), first


def feed(problem: Problem, first: int) -> Problem:
    """The problem with as many increments drawn, from step `first` on, as memory allows."""
    if not problem.counted:
        return problem
    return replace(problem, noise=BlockNoise.of(problem.noise, first, _drawn(problem)))


def _drawn(problem: Problem) -> int:
    """How many steps' increments are drawn at once."""
    return min(held(problem), problem.noise.steps) if problem.counted else 0


def held(problem: Problem) -> int:
    """How many steps' increments memory affords."""
    return max(BLOCK_BYTES // (8 * problem.noise.width), 16)


def _line(problem: Problem, plan: Plan, carry: Carry) -> Row:
    """A row of the tape without its numbers: shapes and dtypes alone."""
    lanes, samples = carry.t.shape[0], carry.y.shape[0]

    def shaped(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    flag, k = shaped(lanes, dtype=torch.bool), shaped(plan.width, lanes, dtype=torch.int64)
    theta, penalty = shaped(plan.width, lanes, dtype=torch.float64), shaped(samples, dtype=carry.y.real.dtype)
    books, y = shaped(lanes, dtype=torch.float64), torch.empty_like(carry.y, device="meta")
    essential = tuple(torch.empty_like(m, device="meta") for m in problem.stepper.essential(carry.memory))
    n = shaped(lanes, dtype=torch.int64)
    return Row(books, books, n, y, essential, flag, flag, theta, k, tuple(penalty for _ in problem.regularizers))
