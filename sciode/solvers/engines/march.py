"""Fixed steps on one clock, in a loop on a CPU that knows all times beforehand: a turn is one step and keeps no books.

What the general turn decides step by step is known here before the first one: where steps begin, how long they are,
which outputs lie at their ends. On a CPU these books cost more than the step of a small network. Whether every state is
finite is seen at the end; if one is not, nothing of the march counts, and the general loop says who failed, and where.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..brownian import BlockNoise
from ..controllers import Fixed
from ..problem import Carry, Problem
from ..status import Status
from ..steppers import Stepper
from ..trajectory import Block, Request, Row, Run, Start, Tape
from .compiled import BLOCK_BYTES, held, number, prepared
from .lift import CannotCompile, check_repeatable
from .machine import loop_of, setting_of, tensors_of, wiring_of
from .repeat import Part, Use, look_at_cpu
from .witness import key_of, known_of, lift_of, witness

__all__ = ["Stride", "marched", "stepped"]

_AT_END = 1e-9
"""As in `turn`: an output time within this part of a step from its end is at its end."""
_DRAWN = 2**26
"""Bytes of increments that are kept for the way back; more are drawn again."""


class Stride(NamedTuple):
    """One step: where it starts s [1], how long it is dt [1] (signed), which noise it has n [1], its state y [B, D]."""

    s: Tensor
    dt: Tensor
    n: Tensor
    y: Tensor


class Books(NamedTuple):
    """All that is known of the steps beforehand, in stretches of equal length; the last one is padded.

    s, dt [N] float64, n, place [N] int64: as in `Stride`, and which output the end of a step is, T if none.
    at [T - 1]: at the end of which step the outputs after the first one lie. count: steps.
    """

    s: Tensor
    dt: Tensor
    n: Tensor
    place: Tensor
    at: Tensor
    count: int


def stepped(problem: Problem, stride: Stride) -> Tensor:
    """The state [B, D] after a step of a method without memory: the same operations as in `attempt`."""
    noise = problem.noise.at(stride.n) if problem.counted else None
    t = problem.forward(stride.s)
    driven = problem.driven(noise, t, stride.dt)
    return problem.stepper.step(problem.field, driven, t, stride.dt, stride.y, ()).y1


def _turn(
    problem: Problem, taped: bool, tables: tuple[Tensor, ...], ends: tuple[Tensor, Tensor], y: Tensor, left: Tensor,
    sink: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """A step, its end written to `sink`; left [1], how many steps of the stretch are still to be taken.

    ends: how many steps the stretch has, and how many are left before the last one of the solve. That one is not
    merged, see `Carry`: a tape has the state before it anyway.
    """
    stop, final = ends
    i = stop - left
    s, dt, n, place = (column.index_select(0, i) for column in tables)
    y1 = stepped(problem, Stride(s, dt, n, y))
    sink.index_copy_(0, place, y1.unsqueeze(0))
    return y1 if taped else torch.where(left == final, y, y1), left - 1


class Marching:
    """Runs marches of one kind; length: steps of a stretch; taped: every state is kept, not the outputs alone."""

    def __init__(
        self, problem: Problem, books: Books, length: int, y: Tensor, reads: list[Tensor], taped: bool, engine: str
    ) -> None:
        look_at_cpu()
        self.length, self.taped = length, taped
        self.backs: dict[Hashable, Any] = {}
        tables, ends, sink = _tables(books, 0, length, taped), _ends(books, 0, length, y), self.sink(problem, y)
        left = torch.full((1,), length, dtype=torch.int64)
        others = [*tensors_of(problem), *tables, *ends, *reads]
        lifted = lift_of(key_of("march", problem, y, taped, length, engine), _turn)(
            problem, taped, tables, ends, y, left, sink, returns=2
        )
        check_repeatable(lifted.traced.graph, lifted.inputs, [sink])
        once = Part(lifted.traced.graph, wiring_of(lifted, [y, left], [*others, sink]))
        uses: list[Use] = [*("read" for _ in others), "kept"]
        self.repeat = loop_of(engine, y.device, once, uses, None)

    def sink(self, problem: Problem, y: Tensor) -> Tensor:
        """Where states are written: of a stretch all, the first included, else the outputs and a row for waste."""
        rows = self.length if self.taped else problem.output.times.shape[1]
        return y.new_empty(rows + 1, *y.shape)

    def __call__(
        self, problem: Problem, books: Books, first: int, y: Tensor, reads: list[Tensor], sink: Tensor, nth: int
    ) -> Tensor:
        """Take the steps of the stretch that begins with number `first`; the state to go on from."""
        tables, ends = _tables(books, first, self.length, self.taped), _ends(books, first, self.length, y)
        # The state is the loop's own to write to.
        state = [y.clone(memory_format=torch.contiguous_format), ends[0].reshape(1).clone()]
        found, _ = self.repeat([*tensors_of(problem), *tables, *ends, *reads, sink], state, nth)
        return found[0]


def _ends(books: Books, first: int, length: int, y: Tensor) -> tuple[Tensor, Tensor]:
    """How many steps a stretch has, and how many are left before the solve's last one; 0 if that is not in it."""
    rest = books.count - first
    return number("stop", min(length, rest), y.device), number("final", 1 if rest <= length else 0, y.device)


def _tables(books: Books, first: int, length: int, taped: bool) -> tuple[Tensor, ...]:
    """The columns of a stretch; a tape has the end of step i in row i + 1."""
    part = slice(first, first + length)
    place = _following(length) if taped else books.place[part]
    return books.s[part], books.dt[part], books.n[part], place


@lru_cache(maxsize=64)
def _following(length: int) -> Tensor:
    with torch.inference_mode(False):
        return torch.arange(1, length + 1)


def marched(
    problem: Problem, start: Start, max_steps: int, watch: Any, request: Request, engine: str
) -> Run | None:
    """The run, or None where the general loop has to do it. Raises CannotCompile."""
    if watch is not None or not _suits(problem, start, request):
        return None
    length = _stretch(problem, start.y, request.taped)
    books = _books_of(problem, length)
    if books is None or books.count > max_steps:
        return None
    lanes = prepared(problem, start.y)
    y, problem = start.y.detach(), replace(problem, field=lanes.field)
    lifted = start.witness or witness(lanes, y)
    machines = known_of(lifted, lanes).machines
    setting = ("march", books.count, length, *setting_of(problem, request, lifted.inputs, engine))
    if setting not in machines:
        try:
            fed = _fed(problem, 0, length)
            machines[setting] = Marching(fed, books, length, y, lifted.inputs, request.taped, engine)
        except CannotCompile:
            # The general loop may be able to, or says what is wrong.
            machines[setting] = None
    machine = machines[setting]
    return None if machine is None else _run(machine, problem, books, y, lifted.inputs, engine)


def _suits(problem: Problem, start: Start, request: Request) -> bool:
    """Whether all that happens in a solve is known before it."""
    return (
        isinstance(problem.controller, Fixed)
        and start.y.device.type == "cpu"
        and problem.s0.shape[0] == 1
        and problem.output.times.shape[0] == 1
        and (start.fresh or start.carry is None)
        and type(problem.stepper).memoryless
        and not (problem.regularizers or request.kept)
    )


def _stretch(problem: Problem, y: Tensor, taped: bool) -> int:
    """How many steps are taken between two looks of the host."""
    assert problem.steps is not None
    most = [max(int(problem.steps), 1)]
    if problem.counted:
        most.append(held(problem))
    if taped:
        most.append(max(BLOCK_BYTES // (y.numel() * y.element_size()), 8))
    return min(most)


def _books_of(problem: Problem, length: int) -> Books | None:
    """None if an output lies within a step, or if there is no step."""
    assert isinstance(problem.controller, Fixed) and problem.steps is not None
    steps, times = int(problem.steps), problem.output.times[0].numpy()
    ends = float(problem.s0), float(problem.s1)
    if steps < 1 or not ends[1] > ends[0]:
        return None
    return _books(ends, problem.controller.dt, steps, length, problem.sign, times.tobytes())


@lru_cache(maxsize=64)
def _books(ends: tuple[float, float], h: float, steps: int, length: int, sign: int, times: bytes) -> Books | None:
    """See `_books_of`; times: the output times as float64."""
    room = -(-steps // length) * length
    n = np.arange(room)
    s = ends[0] + n * h
    dt = np.where(n + 1 >= steps, ends[1] - s, h)
    reached = np.where(n + 1 >= steps, ends[1], ends[0] + (n + 1) * h)[:steps]
    due = np.frombuffer(times)[1:]
    at = np.searchsorted(reached + _AT_END * dt[:steps], due)
    if len(due) == 0 or at.max() >= steps or len(np.unique(at)) < len(at):
        return None
    if ((reached[at] - due) / dt[at] >= _AT_END).any():
        return None
    place = np.full(room, len(due) + 1)
    place[at] = np.arange(1, len(due) + 1)
    with torch.inference_mode(False):
        tables = (torch.from_numpy(x) for x in (s, sign * dt, n, place, at))
        return Books(*tables, count=steps)  # type: ignore[misc]


def _fed(problem: Problem, first: int, length: int) -> Problem:
    return replace(problem, noise=BlockNoise.of(problem.noise, first, length)) if problem.counted else problem


def _run(machine: Marching, problem: Problem, books: Books, y: Tensor, reads: list[Tensor], engine: str) -> Run | None:
    """All stretches of a march; None if a state is not finite."""
    start, blocks, length = y, [], machine.length
    sink = machine.sink(problem, y)
    ys = sink if not machine.taped else y.new_empty(problem.output.times.shape[1] + 1, *y.shape)
    alone = length >= books.count
    for nth, first in enumerate(range(0, books.count, length)):
        fed = _fed(problem, first, length)
        if machine.taped:
            sink = machine.sink(problem, y) if nth else sink
            sink[0] = y
        y = machine(fed, books, first, y, reads, sink, nth)
        if machine.taped:
            _collect(ys, sink, books, first, length)
            blocks.append(_block(fed, books, first, length, sink, alone))
    # Explicit increments keep a NaN for ever, so the end tells whether any step had one.
    if not bool(ys[-2].abs().amax() < torch.inf):
        return None
    if machine.taped:
        y = sink[(books.count - 1) % length].clone()
    ys[0] = start
    done = number("steps", books.count, y.device).reshape(1)
    last = books.s[books.count - 1 : books.count]
    h = torch.full_like(last, float(problem.controller.dt))  # type: ignore[union-attr]
    status = torch.full((1,), int(Status.SUCCESS), dtype=torch.int8)
    carry = Carry(last, h, done - 1, y, (), (), status, done, done)
    count = number("outputs", ys.shape[0] - 1, y.device).reshape(1)
    tape = Tape(ys[:-1], count, tuple(blocks))
    nfe, turns = problem.stepper.nfe, books.count
    return Run(problem, carry, None, [], [], turns, turns, nfe, tape, engine, True, machine, reads)


def _collect(ys: Tensor, states: Tensor, books: Books, first: int, length: int) -> None:
    """The outputs that lie at the ends of a stretch's steps."""
    low, high = np.searchsorted(books.at.numpy(), (first, first + length))
    if low < high:
        ys[low + 1 : high + 1] = states.index_select(0, books.at[low:high] - (first - 1))


def _block(fed: Problem, books: Books, first: int, length: int, states: Tensor, alone: bool) -> Block:
    """The stretch as a part of a tape, as any other adjoint reads one."""
    part, count = slice(first, first + length), min(length, books.count - first)
    n = books.n[part, None]
    taken = _flags(length)
    rows = Row(
        books.s[part, None], books.dt[part, None], n, states, (), taken, n < books.count - 1,
        torch.ones((), dtype=torch.float64).expand(length, 1, 1), books.place[part, None, None], (),
    )  # fmt: skip
    increments = fed.noise.increments if fed.counted else None
    small = increments is not None and increments.numel() * increments.element_size() <= _DRAWN
    return Block(rows, count, first, increments=increments if alone and small else None, strides=True)


@lru_cache(maxsize=64)
def _flags(length: int) -> Tensor:
    with torch.inference_mode(False):
        return torch.ones(length, 1, dtype=torch.bool)
