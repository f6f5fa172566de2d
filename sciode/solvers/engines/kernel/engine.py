"""The kernel engine: one launch, one read of the device, and the whole solve is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...advance import select
from ...brownian import CounterNoise, GridNoise
from ...controllers import PID
from ...problem import Carry, Problem
from ...status import RUNNING, Status
from ...terms import SDETerm
from ...trajectory import Block, Run, Tape
from ..compiled import held
from ..lift import CannotCompile, Lifted
from .build import Launcher, interpreting, missing
from .design import Design
from .launch import Launched, Made, Start, launch
from .source import Kernel, kernel_source
from .stages import stages_of
from .tiles import TileReader
from .trace import Reader, aten_of, formula_of, lift_field, products_of

__all__ = ["run", "source_of", "why_not"]

Watch = Callable[[Tensor], None]
_MOST_COMPONENTS = 128
_WIDTH = 4
"""Outputs a row of the tape can note."""
_MATRIX = 256
"""From so many multiplications on, the matrix products of an evaluation are done in tiles."""


def why_not(problem: Problem, y: Tensor, taped: bool = False) -> str | None:
    """What this engine cannot do of a problem, None if it can do all; what the field's code says comes later."""
    term, save = problem.field.term, problem.output.save
    together = problem.coupled and isinstance(problem.controller, PID) and y.shape[0] > 1
    reasons = (
        (missing(), "triton is not installed: pip install triton"),
        (taped and not _fits(problem), "its tape needs the increments of all steps, and they are too many"),
        (not (y.is_cuda or (y.device.type == "cpu" and interpreting())), f"the state is on {y.device.type}"),
        (y.dtype not in (torch.float32, torch.float64), f"the state is {y.dtype}, not float32 or float64"),
        (y.shape[1] > _MOST_COMPONENTS, f"it keeps states of up to {_MOST_COMPONENTS} components on chip"),
        (y.shape[0] == 0, "there are no samples"),
        (together, "samples that share one step size (coupled=True) would wait for one another"),
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
    return isinstance(noise, CounterNoise) and not bool(((noise.cut < noise.dt) | (noise.anchor_cut < noise.dt)).any())


def _fits(problem: Problem) -> bool:
    """Whether whoever walks the tape back can hold the increments of all steps at once."""
    if problem.noise is None:
        return True
    assert problem.steps is not None
    return int(problem.steps.max()) <= held(problem)


def _start(problem: Problem, carry: Carry | None, y0: Tensor | None) -> Start:
    """Where to begin. A carry at the first time is made again in the kernel, so that one kernel serves both."""
    if carry is None:
        assert y0 is not None
        return Start.of(y0)
    if carry.t.shape == problem.s0.shape and carry.t.data_ptr() == problem.s0.data_ptr():
        return Start(carry.y.detach(), carry.status, None)
    return Start(carry.y.detach(), carry.status, carry)


def _design(problem: Problem, start: Start, taped: bool) -> Design:
    term, controller, noise = problem.field.term, problem.controller, problem.noise
    stochastic = isinstance(term, SDETerm)
    channels = 0
    if stochastic:
        channels = noise.channels if isinstance(noise, CounterNoise) else noise.increments.shape[-1]
    return Design(
        stepper=problem.stepper,
        controller=controller if isinstance(controller, PID) else None,
        real=start.y.dtype,
        size=start.y.shape[1],
        channels=channels,
        kind=term.noise if stochastic else "",
        calculus=term.calculus if stochastic else "",
        sign=problem.sign,
        uniform=not isinstance(problem.rtol, Tensor) and not isinstance(problem.atol, Tensor),
        resumable=problem.output.save.state,
        noise="" if not stochastic else "hashed" if isinstance(noise, CounterNoise) else "given",
        native=not interpreting(),
        ignites=start.carry is None,
        tape=_WIDTH if taped else 0,
    )


def _make(problem: Problem, start: Start, taped: bool) -> tuple[Made, list[Tensor]]:
    """The kernel for a problem, and the tensors that its field reads. Raises CannotCompile."""
    lifted = lift_field(problem, start.y)
    known, noise = lifted.traced.made, problem.noise
    # What a design hangs on, beyond what one graph serves anyway.
    key = (
        problem.controller if isinstance(problem.controller, PID) else None, problem.sign, type(problem.rtol),
        type(problem.atol), problem.output.save.state, type(noise), start.carry is None, taped,
    )  # fmt: skip
    made: Made | None = known.get(key)
    if made is None:
        design = _design(problem, start, taped)
        kernel = _written(design, lifted, start.y.shape[0])
        made = known[key] = Made(design, kernel, Launcher(kernel.text, kernel.warps))
    device = start.y.device
    inputs = [lifted.inputs[i] for i in made.kernel.inputs]
    return made, [x if x.device == device and x.is_contiguous() else x.to(device).contiguous() for x in inputs]


def _written(design: Design, lifted: Lifted, samples: int) -> Kernel:
    """The kernel in the form that suits the field, or, if it cannot be had, in the other."""
    known: dict[Any, Any] = lifted.traced.made
    graph = known.get("graph")
    if graph is None:
        graph = known["graph"] = aten_of(lifted)
    forms: list[type[Reader]] = [TileReader, Reader]
    if products_of(graph) < _MATRIX * samples:
        forms.reverse()
    refusal = None
    for form in forms:
        try:
            if form not in known:
                known[form] = formula_of(lifted, graph, samples, design.size, design.real, form)
            return kernel_source(design, known[form])
        except CannotCompile as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def source_of(problem: Problem, carry: Carry) -> str:
    """The Triton source for a problem, to be read. Raises CannotCompile."""
    made, _ = _make(_detached(problem), _start(problem, carry, None), taped=False)
    return made.kernel.text


def _detached(problem: Problem) -> Problem:
    return problem if problem.field.args is None else replace(problem, field=problem.field.detached())


def run(
    problem: Problem, carry: Carry | None, max_steps: int, watch: Watch | None, taped: bool, y0: Tensor | None = None
) -> Run:
    """Solve the problem in one launch, from a carry or, without one, from y0 [B, D]. Raises CannotCompile."""
    start = _start(problem, carry, y0)
    with torch.no_grad():
        problem = _detached(problem)
        made, inputs = _make(problem, start, taped)

        def solve(start: Start, limit: int) -> Launched:
            return launch(problem, start, made, inputs, limit)

        done = solve(start, max_steps)
        if done.word.stillborn and start.unchecked and not problem.coupled:
            start = _with_stand_ins(start, done)
            done = solve(start, max_steps)
        if problem.coupled and done.word.unwell:
            done = _ended_together(start, done, solve)
        return _run(problem, start, made, done, watch)


def _with_stand_ins(start: Start, done: Launched) -> Start:
    """Samples whose field is not finite at the start have failed, and get a healthy state: see `begin`."""
    bad = (done.statuses[0] == int(Status.NONFINITE)) & (done.counts[1] == 0)
    y = start.y if bool(bad.all()) else torch.where(bad.unsqueeze(-1), start.y[int((~bad).nonzero()[0])], start.y)
    return Start(y, torch.where(bad, int(Status.NONFINITE), RUNNING).to(torch.int8), None)


def _ended_together(start: Start, done: Launched, solve: Callable[[Start, int], Launched]) -> Launched:
    """Where samples share a clock, the first one that fails ends all: once more, up to that step, and no further."""
    status, trials = done.statuses[0], done.counts[1]
    failed = status == int(Status.NONFINITE)
    if not bool(failed.any()):
        return done
    first = int(trials[failed].min())
    if first == 0:
        return solve(start._replace(status=torch.full_like(status, int(Status.NONFINITE))), 1)
    done = solve(start, first - 1)
    done.statuses[0].fill_(int(Status.NONFINITE))
    done.counts[1].fill_(first)
    return done._replace(word=done.word._replace(trials=first))


def _run(problem: Problem, start: Start, made: Made, done: Launched, watch: Watch | None) -> Run:
    """The result of an engine, from what the kernel wrote."""
    design, word, shared = made.design, done.word, problem.s0.shape[0]
    samples = start.y.shape[0]
    # Samples on one clock that all did the same have one set of books.
    lanes = shared if problem.coupled or not word.unwell else samples
    if lanes != shared:
        steps = None if problem.steps is None else problem.steps.expand(lanes)
        problem = replace(problem, s0=problem.s0.expand(lanes), s1=problem.s1.expand(lanes), steps=steps)
    counts, statuses = done.counts[:, :lanes], done.statuses[:, :lanes]
    n, trials, accepted, cursor = counts.unbind()
    last = _carry(design, samples, lanes, (done.books, n, done.states), (statuses[0], trials, accepted))
    origin = last
    if word.marked:
        books, number, states = done.origin
        kept = _carry(design, samples, lanes, (books, number[0, :lanes], states), (statuses[0], trials, accepted))
        origin = select(statuses[1] > 0, kept, last)
    if watch is not None:
        watch(last.t)
    blocks = ()
    if done.rows is not None:
        blocks = (Block(done.rows, word.rows, 0 if start.carry is None else int(start.carry.n.min())),)
    tape = Tape(done.out, cursor, blocks)
    nfe = problem.stepper.nfe
    return Run(problem, last, origin, [], [], word.trials, word.trials, nfe, tape, "kernel", not word.unwell)


def _carry(
    design: Design, samples: int, lanes: int, written: tuple[Tensor, ...], books: tuple[Tensor, Tensor, Tensor]
) -> Carry:
    """A carry from the buffers that the kernel wrote; books: statuses, trials, accepted."""
    numbers, n, states = written
    t, h, *control = numbers[:, :lanes].unbind()
    widths = (design.size, *design.widths)
    y, *memory = (x.view(samples, -1) for x in states.split([w * samples for w in widths]))
    if memory and design.channels and design.kind != "diagonal":
        # The last memory is a diffusion [D, m].
        memory[-1] = memory[-1].view(samples, design.size, design.columns)
    status, trials, accepted = books
    return Carry(t, h, n, y, tuple(memory), tuple(control), status, trials, accepted)
