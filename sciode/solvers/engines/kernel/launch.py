"""One launch of a kernel: its buffers and arguments, and the word it leaves."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...books import sent
from ...brownian import CounterNoise, GridNoise
from ...problem import Carry, Problem
from ...trajectory import Row, Start
from .build import Launcher
from .carry import WORD
from .design import Design
from .operations import input_kind
from .source import Kernel
from .tape import blank_rows

__all__ = ["FIRST_ROWS", "Launched", "Made", "launch"]

FIRST_ROWS = 64
"""Rows of a kernel's first tape; later ones have as many as the one before needed."""


@dataclass(eq=False)
class Made:
    """A kernel, ready to be launched; rows: of its next tape; backs: what walks such tapes back."""

    design: Design
    kernel: Kernel
    launcher: Launcher
    rows: int = field(default_factory=lambda: FIRST_ROWS)
    backs: dict[Hashable, Any] = field(default_factory=dict)


class Launched(NamedTuple):
    """What a kernel wrote: see `carry`; origin, the same buffers for carries to resume from; rows, the tape's."""

    out: Tensor
    books: Tensor
    counts: Tensor
    states: Tensor
    statuses: Tensor
    word: Word
    origin: tuple[Tensor, ...]
    rows: Row | None


class Word(NamedTuple):
    """The word: see `carry.WORD`."""

    unwell: int
    trials: int
    rows: int
    stillborn: int
    marked: int


assert Word._fields == WORD


def launch(problem: Problem, start: Start, made: Made, reads: Sequence[Tensor], limit: int) -> Launched:
    """Run the kernel on fresh buffers, and wait for its word; again, if its tape was too short."""
    while True:
        launched = _once(problem, start, made, reads, limit)
        needed = launched.word.rows
        if needed <= made.rows:
            return launched
        # Of few sizes, and never shrinking, so that one loop back serves all.
        made.rows = 1 << (needed - 1).bit_length()


def _once(problem: Problem, start: Start, made: Made, reads: Sequence[Tensor], limit: int) -> Launched:
    design, carry = made.design, _carry_of(start)
    y = (start.y if carry is None else carry.y).detach().contiguous()
    (samples, size), device, times = y.shape, y.device, problem.output.times
    count, columns = times.shape[1], size + sum(design.widths)
    out = y.new_empty((count, samples, size))
    books = torch.empty((2 + design.control, samples), dtype=torch.float64, device=device)
    counts = torch.empty((4, samples), dtype=torch.int64, device=device)
    states = y.new_empty(columns * samples)
    statuses = torch.empty((1 + design.resumable, samples), dtype=torch.int8, device=device)
    word = torch.zeros(len(WORD), dtype=torch.int32, device=device)
    origin = ()
    if design.resumable:
        origin = (torch.empty_like(books), counts.new_empty((1, samples)), torch.empty_like(states))
    (s0, s1), clock = _spaced([problem.s0, problem.s1], samples)
    grid_tensors, grid = _grid(problem, samples)
    times = times if times.stride(1) == 1 else times.contiguous()
    rows = blank_rows(design, y, made.rows, count) if design.tape else None
    arguments = [
        out, books, counts, states, statuses, word, *origin, y, s0, s1, times, _settings(problem, y),
        *grid_tensors[:1], *_carried(carry, samples), *_noise(problem, grid_tensors), *_inputs(made, reads, device),
        *_columns(rows), samples, count, _stride(times), clock, grid, min(limit, 2**31 - 1), made.rows,
    ]  # fmt: skip
    made.launcher(-(-samples // made.kernel.samples), device, arguments)
    return Launched(out, books, counts, states, statuses, Word(*_read(word)), origin, rows)


def _stride(x: Tensor) -> int:
    return x.stride(0) if x.shape[0] > 1 else 0


def _spaced(books: list[Tensor], samples: int) -> tuple[list[Tensor], int]:
    """Books [1 or B] that lie equally far apart from sample to sample, and how far."""
    strides = {_stride(x) for x in books}
    if len(strides) > 1:
        return [x.expand(samples).contiguous() for x in books], 1
    return books, strides.pop() if strides else 0


def _grid(problem: Problem, samples: int) -> tuple[list[Tensor], int]:
    """Steps, cells, the length of the last and the anchor, as far as there are any; and how far apart they lie."""
    if problem.steps is None:
        return [], 0
    noise = problem.noise
    more = _ends(noise) if isinstance(noise, CounterNoise) else []
    return _spaced([problem.steps, *more], samples)


def _ends(noise: CounterNoise) -> list[Tensor]:
    """Cells, the length of the last, and the anchor, on the device."""
    return [sent(x, noise.seeds.device) for x in (noise.ending.cells, noise.ending.cut, noise.anchor.cells)]


def _settings(problem: Problem, y: Tensor) -> Tensor:
    """rtol and atol, of every component if any differ; dt where steps are fixed."""
    rtol, atol = problem.rtol, problem.atol
    if problem.steps is not None:
        return _numbers((problem.controller.dt,), y.device)  # type: ignore[union-attr]
    if not isinstance(rtol, Tensor) and not isinstance(atol, Tensor):
        return _numbers((rtol, atol), y.device)
    both = [torch.as_tensor(x, dtype=y.dtype, device=y.device) for x in (rtol, atol)]
    return torch.cat([x.expand(1, y.shape[1]) for x in both])


@lru_cache(maxsize=256)
def _numbers(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers on a device, copied there once."""
    return torch.tensor(values, dtype=torch.float64, device=device)


def _carry_of(start: Start) -> Carry | None:
    """The carry, unless the kernel makes it: of an earlier solve, or with stand-ins for states that are not finite."""
    return None if start.fresh else start.carry


def _carried(carry: Carry | None, samples: int) -> list[Tensor]:
    """A carry, as a kernel without ignition takes it."""
    if carry is None:
        return []
    books = (carry.t, carry.h, carry.n, carry.status, *carry.control)
    t, h, n, status, *control = (x.expand(samples).contiguous() for x in books)
    return [t, h, n, status, *(m.contiguous() for m in carry.memory), *control]


def _inputs(made: Made, reads: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """What the field reads, of that which the kernel needs."""
    return [reads[i].to(device, input_kind(reads[i].dtype)).contiguous() for i in made.kernel.inputs]


def _noise(problem: Problem, grid: list[Tensor]) -> list[Tensor]:
    """What drives an SDE, as the kernel takes it."""
    noise = problem.noise
    if isinstance(noise, GridNoise):
        return [noise.increments.contiguous()]
    return [noise.seeds.contiguous(), *grid[1:]] if isinstance(noise, CounterNoise) else []


def _columns(rows: Row | None) -> list[Tensor]:
    """A tape's columns in the order of the kernel's parameters."""
    if rows is None:
        return []
    flags = (rows.taken.view(torch.int8), rows.merged.view(torch.int8))
    return [rows.s, rows.dt, rows.n, rows.y, *flags, rows.theta, rows.k, *rows.essential]


_pinned: Any = threading.local()


def _read(word: Tensor) -> list[int]:
    """The word on the host: one copy to memory that does not move, one wait."""
    if not word.is_cuda:
        return word.tolist()
    host = getattr(_pinned, "word", None)
    if host is None:
        host = _pinned.word = torch.empty(len(WORD), dtype=torch.int32, pin_memory=True)
    host.copy_(word, non_blocking=True)
    torch.cuda.current_stream(word.device).synchronize()
    return host.tolist()
