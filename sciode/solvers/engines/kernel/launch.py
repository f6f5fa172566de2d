"""The kernel engine: one launch, one read of the device, and the whole solve is done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...books import sent
from ...brownian import CounterNoise, GridNoise
from ...controllers import PID
from ...problem import Carry, Problem
from ...terms import SDETerm
from ...trajectory import Block, Row, Run, Tape
from ..compiled import held
from ..eager import split_clock
from .build import built, interpreting, missing
from .source import Design, Kernel, kernel_source
from .stages import stages_of
from .tape import blank_rows
from .trace import formula_of, lift_field

__all__ = ["run", "source_of", "why_not"]

Watch = Callable[[Tensor], None]
_LANES = 32
"""Trajectories a program: one warp, so that lanes wait for as few others as possible, and nothing is synchronised."""
_MOST_COMPONENTS = 32
_WIDTH = 4
"""Outputs a row of the tape can note."""
_ROWS = 64
"""Rows of a kernel's first tape; later ones have as many as the one before needed."""

_rows: dict[Kernel, int] = {}


def why_not(problem: Problem, y: Tensor, taped: bool = False) -> str | None:
    """What this engine cannot do of a problem, None if it can do all; what the field's code says comes later."""
    term, save = problem.field.term, problem.output.save
    reasons = (
        (missing(), "triton is not installed: pip install triton"),
        (taped and not _fits(problem), "its tape needs the increments of all steps, and they are too many"),
        (not (y.is_cuda or (y.device.type == "cpu" and interpreting())), f"the state is on {y.device.type}"),
        (y.dtype not in (torch.float32, torch.float64), f"the state is {y.dtype}, not float32 or float64"),
        (y.shape[1] > _MOST_COMPONENTS, f"it keeps states of up to {_MOST_COMPONENTS} components in registers"),
        (y.shape[0] == 0, "there are no samples"),
        (problem.coupled, "samples that share one step size (coupled=True) would wait for one another"),
        (len(problem.field.layout.batch) > 1, "it takes one batch axis"),
        (bool(problem.regularizers), "it measures no regularizers"),
        (problem.weight is not None, "it knows no seminorm"),
        (save.at != "ts", f'it keeps states at ts, not save="{save.at}"'),
        (stages_of(problem.stepper) is None, f"the method {problem.stepper.name!r} has no kernel"),
        (isinstance(term, SDETerm) and term.one_clock, "the term wants one clock for the whole batch"),
        (problem.noise is not None and not _drawable(problem), "backward steps that do not divide the interval"),
    )
    return next((reason for holds, reason in reasons if holds), None)


def _drawable(problem: Problem) -> bool:
    """Whether every increment is a whole cell, or, forward, the piece of one at the end."""
    noise = problem.noise
    if isinstance(noise, GridNoise) or problem.sign > 0:
        return isinstance(noise, GridNoise | CounterNoise)
    return isinstance(noise, CounterNoise) and not (noise.ending.ragged(noise.dt) or noise.anchor.ragged(noise.dt))


def _fits(problem: Problem) -> bool:
    """Whether whoever walks the tape back can hold the increments of all steps at once."""
    if problem.noise is None:
        return True
    return problem.noise.steps <= held(problem)


class _Made(NamedTuple):
    """What a traced field became."""

    design: Design
    kernel: Kernel


def _prepared(problem: Problem, carry: Carry) -> tuple[Problem, Carry]:
    """A clock for every sample, and no gradients."""
    if problem.s0.shape[0] == 1 and carry.y.shape[0] > 1:
        problem, carry = split_clock(problem, carry)
    return replace(problem, field=problem.field.detached()), carry


def _design(problem: Problem, carry: Carry, taped: bool) -> Design:
    term, controller, noise = problem.field.term, problem.controller, problem.noise
    stochastic = isinstance(term, SDETerm)
    channels = 0
    if stochastic:
        channels = noise.channels if isinstance(noise, CounterNoise) else noise.increments.shape[-1]
    return Design(
        stepper=problem.stepper,
        controller=controller if isinstance(controller, PID) else None,
        control=len(carry.control),
        real=carry.y.dtype,
        size=carry.y.shape[1],
        channels=channels,
        kind=term.noise if stochastic else "",
        calculus=term.calculus if stochastic else "",
        widths=tuple(m[0].numel() for m in carry.memory),
        sign=problem.sign,
        uniform=not isinstance(problem.rtol, Tensor) and not isinstance(problem.atol, Tensor),
        resumable=problem.output.save.state,
        noise="" if not stochastic else "hashed" if isinstance(noise, CounterNoise) else "given",
        native=not interpreting(),
        tape=_WIDTH if taped else 0,
        essential=len(problem.stepper.essential(carry.memory)),
    )


def _make(problem: Problem, carry: Carry, taped: bool) -> tuple[_Made, list[Tensor]]:
    """The kernel for a problem, and the tensors that its field reads. Raises CannotCompile."""
    lifted = lift_field(problem, carry.y)
    design = _design(problem, carry, taped)
    known = lifted.traced.made
    if design not in known:
        if "formula" not in known:
            known["formula"] = formula_of(lifted, carry.y.shape[0], carry.y.dtype)
        known[design] = kernel_source(design, known["formula"])
    kernel = known[design]
    device = carry.y.device
    inputs = [lifted.inputs[i].detach().to(device).contiguous() for i in kernel.inputs]
    return _Made(design, kernel), inputs


def source_of(problem: Problem, carry: Carry) -> str:
    """The Triton source for a problem, to be read. Raises CannotCompile."""
    made, _ = _make(*_prepared(problem, carry), taped=False)
    return made.kernel.text


def run(problem: Problem, carry: Carry, max_steps: int, watch: Watch | None, taped: bool) -> Run:
    """Solve the problem in one launch. Raises CannotCompile."""
    problem, carry = _prepared(problem, carry)
    made, inputs = _make(problem, carry, taped)
    rows = max(_rows.get(made.kernel, _ROWS), 1)
    launched = _launch(problem, carry, made, inputs, max_steps, rows)
    if taped:
        needed = int(launched.counts[0, 5].max())
        # Of few sizes, and never shrinking, so that one loop back serves all.
        room = _rows[made.kernel] = max(rows, 1 << max(needed - 1, 0).bit_length())
        if needed > rows:
            # More rows than the last solve had: once more, now that their number is known.
            launched = _launch(problem, carry, made, inputs, max_steps, room)
        launched = launched._replace(needed=needed)
    last = _carry(carry, made.design, launched, 0)
    origin = _carry(carry, made.design, launched, 1)._replace(status=last.status) if made.design.resumable else last
    if watch is not None:
        watch(last.t)
    turns = int(last.trials.max())
    blocks = () if launched.rows is None else (Block(launched.rows, launched.needed, int(carry.n.min())),)
    tape = Tape(launched.out, launched.counts[0, 4], blocks)
    return Run(problem, last, origin, [], [], turns, turns, problem.stepper.nfe, tape, "kernel")


class _Launched(NamedTuple):
    """What the kernel wrote; rows, the tape's columns, of which `needed` are used."""

    out: Tensor
    books: Tensor
    counts: Tensor
    states: Tensor
    rows: Row | None
    needed: int


def _launch(problem: Problem, carry: Carry, made: _Made, inputs: list[Tensor], max_steps: int, rows: int) -> _Launched:
    """Run the kernel on fresh buffers."""
    design, y = made.design, carry.y
    samples, size = y.shape
    times = problem.output.times.contiguous()
    count, halves = times.shape[1], 1 + design.resumable
    out = y.new_empty(count, samples, size)
    books = carry.h.new_empty(halves, 2 + design.control, samples)
    counts = torch.empty(halves, 6, samples, dtype=torch.int64, device=y.device)
    states = y.new_empty(halves, (size + sum(design.widths)) * samples)
    arguments = [
        out, books, counts, states, carry.t, carry.h, carry.n, y, problem.s0, problem.s1, carry.status, carry.trials,
        carry.accepted, times, _tolerances(problem, y) if design.controller is not None else problem.steps,
        *carry.memory, *carry.control, *_noise(problem, samples), *inputs,
    ]  # fmt: skip
    tensors = [x.detach().contiguous() for x in arguments]
    tape = blank_rows(problem, carry, rows, design.tape) if design.tape else None
    if tape is not None:
        flags = (tape.taken.view(torch.int8), tape.merged.view(torch.int8))
        tensors += [tape.s, tape.dt, tape.n, tape.y, *flags, tape.theta, tape.k, *tape.essential]
    numbers = (samples, count, 0 if times.shape[0] == 1 else count, max_steps, rows)
    solve = built(made.kernel.text)
    # The interpreter computes with NumPy, which warns of the numbers in lanes that are switched off.
    with np.errstate(all="ignore"), torch.cuda.device(y.device) if y.is_cuda else nullcontext():
        solve[(-(-samples // _LANES),)](*tensors, *numbers, BLOCK=_LANES, num_warps=max(_LANES // 32, 1))
    return _Launched(out, books, counts, states, tape, 0)


def _tolerances(problem: Problem, y: Tensor) -> Tensor:
    """rtol and atol, of every component if any differ."""
    if not isinstance(problem.rtol, Tensor) and not isinstance(problem.atol, Tensor):
        return _pair(problem.rtol, problem.atol, y.dtype, y.device)
    both = [torch.as_tensor(x, dtype=y.dtype, device=y.device) for x in (problem.rtol, problem.atol)]
    return torch.cat([x.expand(1, y.shape[1]) for x in both])


@lru_cache(maxsize=64)
def _pair(rtol: float, atol: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Two numbers on the device, copied there once."""
    return torch.tensor([rtol, atol], dtype=dtype, device=device)


def _noise(problem: Problem, samples: int) -> list[Tensor]:
    """What drives an SDE, as the kernel takes it."""
    noise = problem.noise
    if isinstance(noise, GridNoise):
        return [noise.increments]
    if isinstance(noise, CounterNoise):
        books = (noise.ending.cells, noise.ending.cut, noise.anchor.cells)
        return [noise.seeds, *(sent(x, noise.seeds.device).expand(samples) for x in books)]
    return []


def _carry(first: Carry, design: Design, launched: _Launched, half: int) -> Carry:
    """A carry from one half of the buffers the kernel wrote."""
    samples = first.y.shape[0]
    books, counts = launched.books[half], launched.counts[half]
    widths = [w * samples for w in (design.size, *design.widths)]
    vectors = [x.reshape(samples, -1) for x in launched.states[half].split(widths)]
    memory = tuple(x.reshape(m.shape) for x, m in zip(vectors[1:], first.memory, strict=True))
    return Carry(
        t=books[0], h=books[1], n=counts[0], y=vectors[0], memory=memory, control=tuple(books[2:].unbind()),
        status=launched.counts[0, 3].to(torch.int8), trials=counts[1], accepted=counts[2],
    )  # fmt: skip
