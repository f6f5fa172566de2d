"""Fixed steps on one clock, in a loop on a CPU that knows all times beforehand: a turn is one step and keeps no books.

What the general turn decides step by step is known here before the first one: where steps begin, how long they are,
which outputs lie at their ends. On a CPU these books cost more than the step of a small network. Whether every state is
finite is seen at the end; if one is not, nothing of the march counts, and the general loop says who failed, and where.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..brownian import BlockNoise, CounterNoise
from ..controllers import Fixed
from ..problem import Carry, Problem
from ..status import Status
from ..trajectory import Block, Request, Row, Run, Start, Tape
from ..turn import outputs_at
from .compiled import BLOCK_BYTES, held, number, prepared
from .lift import CannotCompile, Lifted, check_repeatable, without_vmap
from .machine import in_order, loop_of, setting_of, tensors_of, wiring_of
from .partition import Asked, Place, partition
from .products import CACHED, Postponed, postpone
from .repeat import Part, Use, look_at_cpu
from .shelf import Columns
from .witness import key_of, known_of, lift_of, witness

__all__ = ["Stride", "marched", "marches", "restep"]

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


def restep(problem: Problem, stride: Stride) -> tuple[Tensor, ...]:
    """`stepped` as something to lift."""
    return (stepped(problem, stride),)


class KeptStride:
    """A step in two halves, as `KeptTurn` is a turn: the way back takes no step again.

    lifted: the graph of `restep`; sources: tensors beside the state whose gradients are wanted.
    """

    memory = 0

    def __init__(self, lifted: Lifted, stride: Stride, sources: Sequence[Tensor]) -> None:
        places, wanted = lifted.positions(list(stride)), [stride.y, *sources]
        self.like = [torch.empty_like(x, device="meta") for x in wanted]
        # Which of the row's numbers are held at all hangs on what the field reads.
        self.rows = [p for p in range(len(stride)) if p in places]
        self.halves = partition(lifted.traced.graph, lifted.inputs, Asked(
            wanted=lifted.positions(wanted),
            like=wanted,
            steady=[p < 0 for p in places],
            held=[Place("input", places.index(p)) for p in self.rows],
            differentiated=[0],
        ))  # fmt: skip
        if self.halves.strangers:
            raise CannotCompile("the field uses a tensor that requires grad and that it did not use at the first time")
        fixed = len(self.halves.fixed)
        columns = {i: i for i in range(fixed, fixed + len(self.halves.held) + len(self.halves.residuals))}
        self.blank, self.device = Columns(self.halves.residuals), stride.y.device
        self.later = postpone(self.halves.backward, 1, frozenset(range(fixed)), columns, self.device, cached=True)

    def suits(self, count: int) -> bool:
        """Whether what so many steps keep stays in a cache."""
        return count * self.halves.bytes <= CACHED and self.later.fits(count)

    def columns(self, rows: int) -> tuple[Tensor, ...]:
        """Empty columns for what so many steps keep."""
        return tuple(self.blank(rows, self.device))

    def given_back(
        self, fixed: Sequence[Tensor], rows: Row, columns: Sequence[Tensor], out: Tensor, penalties: Sequence[Tensor]
    ) -> list[Tensor]:
        """What `undo` takes."""
        stride = (rows.s, rows.dt, rows.n, rows.y)
        return [*fixed, *(stride[self.rows[i]] for i in self.halves.held), *columns, rows.k, out]

    def late(self, count: int) -> Postponed:
        """How so many rows are undone."""
        return self.later

    def undo(self, graph: Any, index: Tensor, walk: Any, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The other half, of row `index` [1]: see `walk.Undo`."""
        fixed, (*stored, k), out = tensors[: len(self.halves.fixed)], tensors[len(self.halves.fixed) : -1], tensors[-1]
        rows = [column.index_select(0, index).squeeze(0) for column in (*stored, k)]
        return list(graph(*fixed, *rows[:-1], walk.y + outputs_at(out, rows[-1])[0]))


class Marching:
    """Runs marches of one kind.

    length: steps of a stretch; taped: every state is kept, not the outputs alone; sources: if what steps need to be
    differentiated is kept, too, with respect to what.
    """

    def __init__(
        self, problem: Problem, books: Books, length: int, y: Tensor, reads: list[Tensor], taped: bool, engine: str,
        sources: Sequence[Tensor] | None,
    ) -> None:  # fmt: skip
        look_at_cpu()
        self.length, self.taped = length, taped
        self.backs: dict[Hashable, Any] = {}
        stride = Stride(books.s[:1].clone(), books.dt[:1].clone(), books.n[:1].clone(), y)
        key = key_of("march", problem, y, taped, length, engine, len(sources or ()))
        # Traced as it will be differentiated: a field's own `no_grad` blocks end where they end in its code.
        with torch.enable_grad() if taped else nullcontext():
            lifted = lift_of(key, restep)(problem, stride, returns=1)
        check_repeatable(lifted.traced.graph, lifted.inputs, [])
        self.kept: KeptStride | None = None
        if sources is not None:
            with torch.no_grad():
                self.kept = KeptStride(lifted, stride, sources)
        self.graph = without_vmap(lifted.traced.graph, lifted.inputs) if self.kept is None else self.kept.halves.forward
        others = [*tensors_of(problem), *reads]
        inputs = wiring_of(lifted, list(stride), others)
        self.line = [max(w, -1) for w in inputs]
        self.fixed = () if self.kept is None else tuple(~inputs[i] for i in self.kept.halves.fixed)
        columns = 0 if self.kept is None else len(self.kept.halves.residuals)
        books_and_sinks = range(len(others), len(others) + _TABLES + 1 + columns)
        wiring = (0, 1, *(~i for i in books_and_sinks), *(w for w in inputs if w < 0))
        uses: list[Use] = [*("read" for _ in (*others, *range(_TABLES))), "kept", *("filled" for _ in range(columns))]
        self.columns = columns
        self.repeat = loop_of(engine, y.device, Part(self._once, wiring), uses, None)

    def _once(self, y: Tensor, left: Tensor, *tensors: Tensor) -> list[Tensor]:
        """A step, its end written down; left [1], how many steps of the stretch are still to be taken.

        The solve's last step is not merged, see `Carry`: a tape has the state before it anyway.
        """
        *tables, stop, final, sink = tensors[: _TABLES + 1]
        columns, inputs = tensors[_TABLES + 1 :][: self.columns], iter(tensors[_TABLES + 1 + self.columns :])
        i = stop - left
        s, dt, n, place = (column.index_select(0, i) for column in tables)
        stride = (s, dt, n, y)
        y1, *residuals = self.graph(*(stride[p] if p >= 0 else next(inputs) for p in self.line))
        sink.index_copy_(0, place, y1.unsqueeze(0))
        for column, residual in zip(columns, residuals, strict=True):
            column.index_copy_(0, i, residual.unsqueeze(0))
        return [y1 if self.taped else torch.where(left == final, y, y1), left - 1]

    def sink(self, problem: Problem, y: Tensor) -> Tensor:
        """Where states are written: of a stretch all, the first included, else the outputs and a row for waste."""
        rows = self.length if self.taped else problem.output.times.shape[1]
        return y.new_empty(rows + 1, *y.shape)

    def __call__(
        self, problem: Problem, books: Books, first: int, y: Tensor, reads: list[Tensor], sinks: list[Tensor], nth: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Take the steps of the stretch that begins with number `first`.

        The state to go on from, and what the way back reads again; sinks: of the states, and of what is kept.
        """
        tables, ends = _tables(books, first, self.length, self.taped), _ends(books, first, self.length, y)
        others = [*tensors_of(problem), *reads]
        # The state is the loop's own to write to.
        state = [y.clone(memory_format=torch.contiguous_format), ends[0].reshape(1).clone()]
        found, _ = self.repeat([*others, *tables, *ends, *sinks], state, nth, None)
        return found[0], tuple(others[i] for i in self.fixed)


def _ends(books: Books, first: int, length: int, y: Tensor) -> tuple[Tensor, Tensor]:
    """How many steps a stretch has, and how many are left before the solve's last one; 0 if that is not in it."""
    rest = books.count - first
    return number("stop", min(length, rest), y.device), number("final", 1 if rest <= length else 0, y.device)


def _tables(books: Books, first: int, length: int, taped: bool) -> tuple[Tensor, ...]:
    """The columns of a stretch; a tape has the end of step i in row i + 1."""
    part = slice(first, first + length)
    place = _following(length) if taped else books.place[part]
    return books.s[part], books.dt[part], books.n[part], place


_TABLES = 6
"""What is known of a stretch: four columns, and two numbers about its end."""


@lru_cache(maxsize=64)
def _following(length: int) -> Tensor:
    with torch.inference_mode(False):
        return torch.arange(1, length + 1)


def marched(problem: Problem, start: Start, max_steps: int, watch: Any, request: Request, engine: str) -> Run | None:
    """The run, or None where the general loop has to do it. Raises CannotCompile."""
    if watch is not None or not (start.fresh or start.carry is None) or not marches(problem, start.y):
        return None
    length = _stretch(problem, start.y, request.taped)
    books = _books_of(problem, length)
    if books is None or books.count > max_steps:
        return None
    y = start.y.detach()
    # As in `compiled`, whose solves know each other by the same evaluation.
    lifted = start.witness or witness(prepared(problem, y), y)
    field = problem.field.detached()
    problem = problem if field is problem.field else replace(problem, field=field)
    machines = known_of(lifted, problem).machines
    setting = ("march", books.count, length, setting_of(problem, request, lifted.inputs, engine))
    if setting not in machines:
        try:
            fed = _fed(problem, 0, length)
            machines[setting] = _made(fed, books, length, y, lifted.inputs, request, engine)
        except CannotCompile:
            # The general loop may be able to, or says what is wrong.
            machines[setting] = None
    machine = machines[setting]
    return None if machine is None else _run(machine, problem, books, y, lifted.inputs, engine)


def _made(
    problem: Problem, books: Books, length: int, y: Tensor, reads: list[Tensor], request: Request, engine: str
) -> Marching | None:
    """What runs such marches; None if steps should keep more than a cache holds."""
    sources = None
    if request.kept:
        sources = [*(problem.field.arguments[i] for i in request.args), *in_order(reads, request.leaves)]
    machine = Marching(problem, books, length, y, reads, request.taped, engine, sources)
    return machine if machine.kept is None or machine.kept.suits(books.count) else None


def marches(problem: Problem, y: Tensor) -> bool:
    """Whether all that happens in a solve is likely to be known before it."""
    return (
        isinstance(problem.controller, Fixed)
        and y.device.type == "cpu"
        and problem.s0.shape[0] == 1
        and problem.output.times.shape[0] == 1
        and type(problem.stepper).memoryless
        and not problem.regularizers
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


@lru_cache(maxsize=16)
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
    """The problem with the increments of a stretch drawn."""
    if not problem.counted:
        return problem
    noise = problem.noise
    noise = replace(noise, compiled=True) if isinstance(noise, CounterNoise) else noise
    return replace(problem, noise=BlockNoise.of(noise, first, length))


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
        columns = () if machine.kept is None else machine.kept.columns(length)
        y, fixed = machine(fed, books, first, y, reads, [sink, *columns], nth)
        if machine.taped:
            _collect(ys, sink, books, first, length)
            block = _block(fed, books, first, length, sink, alone)
            blocks.append(block._replace(columns=columns, fixed=fixed))
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
    tape = Tape(ys[:-1], count, tuple(blocks), machine.kept)
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
