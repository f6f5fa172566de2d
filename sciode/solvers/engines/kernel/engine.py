"""The kernel engine: one launch, one read of the device, and the whole solve is done."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

from ...brownian import BrownianTree, CounterNoise, GridNoise
from ...controllers import PID
from ...problem import Carry, Problem
from ...status import Status
from ...terms import SDETerm
from ...trajectory import Block, Origin, Run, Start, Tape
from ..compiled import Unsound, held, prepared
from ..lift import CannotCompile, Lifted
from ..witness import known_of, witness
from .build import Launcher, interpreting, missing
from .design import Design
from .launch import Launched, Made, launch
from .source import Kernel, kernel_source
from .stages import stages_of
from .tiles import TileReader
from .trace import Formula, Graph, Reader, formula_of, graph_of

__all__ = ["run", "source_of", "suits", "why_not"]

Watch = Callable[[Tensor], None]
_MOST_COMPONENTS = 128
_WIDTH = 4
"""Outputs a row of the tape can note."""
_SHORT = 2_000
"""Operations of the field that a compiler is done with in some ten seconds (4 ms each; measured, triton 3.6)."""
_MATRIX = 256
"""From so many multiplications on, the matrix products of an evaluation are done in tiles."""
_TILED, _ALL_TILED = 2**13, 2**22
"""Multiplications of an evaluation, for one sample and for all, up to which tiles beat CUDA graphs.

Measured on an H100, forward: 128 samples of 2,048 took 1.1 ms instead of 2.6, 512 of 5,120 (an SDE's) 1.6 instead of
3.9, 1024 of 32,768 took 4.9 instead of 3.5."""


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
        (isinstance(problem.noise, BrownianTree), "it walks no Brownian tree, as adaptive steps and Levy areas need"),
        (problem.revisits, "it does not come back to the times of rejected steps"),
        (problem.counted and not _drawable(problem), "backward steps that do not divide the interval"),
    )
    return next((reason for holds, reason in reasons if holds), None)


def suits(problem: Problem, y: Tensor, taped: bool) -> bool:
    """Whether this engine is the one to choose: each sample by itself, small networks, compiled in seconds."""
    if problem.coupled or why_not(problem, y, taped) is not None:
        return False
    problem = prepared(problem, y)
    try:
        made, _ = _make(problem, Start(y, None, fresh=True), taped)
        products = _traced(problem, y.detach())[1].graph.products
    except Exception:
        # Whatever it is, another engine will say it.
        return False
    if made.kernel.tiled:
        return products <= min(_TILED * y.shape[0], _ALL_TILED)
    return made.kernel.length <= _SHORT


def _drawable(problem: Problem) -> bool:
    """Whether every increment is a whole cell, or, forward, the piece of one at the end."""
    noise = problem.noise
    if isinstance(noise, GridNoise) or problem.sign > 0:
        return isinstance(noise, GridNoise | CounterNoise)
    return isinstance(noise, CounterNoise) and not (noise.ending.ragged(noise.dt) or noise.anchor.ragged(noise.dt))


def _fits(problem: Problem) -> bool:
    """Whether whoever walks the tape back can hold the increments of all steps at once."""
    if not problem.counted:
        return True
    return problem.noise.steps <= held(problem)


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
        ignites=start.fresh,
        tape=_WIDTH if taped else 0,
    )


def _make(problem: Problem, start: Start, taped: bool) -> tuple[Made, list[Tensor]]:
    """The kernel for a problem, and the tensors that its field reads. Raises CannotCompile."""
    lifted = start.witness
    known = None if lifted is None else known_of(lifted, problem).machines.get("kernel")
    if lifted is None or known is None:
        lifted, known = _traced(problem, start.y.detach())
    noise = problem.noise
    # What a design hangs on, beyond what one graph serves anyway.
    key = (
        problem.controller if isinstance(problem.controller, PID) else None, problem.sign, type(problem.rtol),
        type(problem.atol), problem.output.save.state, type(noise), start.fresh, taped,
    )  # fmt: skip
    made = known.made.get(key)
    if made is None:
        design = _design(problem, start, taped)
        kernel = _written(design, known, start.y.shape[0])
        made = known.made[key] = Made(design, kernel, Launcher(kernel.text, kernel.warps))
    return made, lifted.inputs


class _Traced(NamedTuple):
    """A field's graph, what it became in either form, and the kernels made of it."""

    graph: Graph
    formulas: dict[type[Reader], Formula]
    made: dict[Hashable, Made]


def _traced(problem: Problem, y: Tensor) -> tuple[Lifted, _Traced]:
    lifted = witness(problem, y)
    machines = known_of(lifted, problem).machines
    if "kernel" not in machines:
        machines["kernel"] = _Traced(graph_of(lifted, problem.s0, y), {}, {})
    return lifted, machines["kernel"]


def _written(design: Design, traced: _Traced, samples: int) -> Kernel:
    """The kernel in the form that suits the field, or, if it cannot be had, in the other."""
    forms: list[type[Reader]] = [TileReader, Reader]
    if traced.graph.products < _MATRIX * samples:
        forms.reverse()
    refusal = None
    for form in forms:
        try:
            if form not in traced.formulas:
                traced.formulas[form] = formula_of(traced.graph, samples, design.size, design.real, form)
            return kernel_source(design, traced.formulas[form])
        except CannotCompile as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def source_of(problem: Problem, carry: Carry) -> str:
    """The Triton source for a problem, to be read. Raises CannotCompile."""
    made, _ = _make(prepared(problem, carry.y), Start(carry.y, carry, fresh=True), taped=False)
    return made.kernel.text


def run(problem: Problem, start: Start, max_steps: int, watch: Watch | None, taped: bool) -> Run:
    """Solve the problem in one launch. Raises CannotCompile, and Unsound where it has to begin with a look."""
    with torch.no_grad():
        problem = prepared(problem, start.y)
        made, reads = _make(problem, start, taped)

        def solve(limit: int) -> Launched:
            return launch(problem, start, made, reads, limit)

        done = solve(max_steps)
        if done.word.stillborn:
            raise Unsound
        if problem.coupled and done.word.unwell:
            done = _ended_together(done, solve)
        return _run(problem, start, made, done, watch)._replace(machine=made, reads=reads)


def _ended_together(done: Launched, solve: Callable[[int], Launched]) -> Launched:
    """Where samples share a clock, the first one that fails ends all: once more, up to that step, and no further."""
    failed, trials = done.statuses[0] == int(Status.NONFINITE), done.counts[1]
    first = int(trials[failed].min()) if bool(failed.any()) else 0
    if first == 0:
        return done
    done = solve(first - 1)
    done.statuses[0].fill_(int(Status.NONFINITE))
    done.counts[1].fill_(first)
    return done._replace(word=done.word._replace(trials=first))


def _run(problem: Problem, start: Start, made: Made, done: Launched, watch: Watch | None) -> Run:
    """The result of an engine, from what the kernel wrote."""
    design, word, samples, lanes = made.design, done.word, start.y.shape[0], problem.s0.shape[0]
    statuses = done.statuses[:, :lanes]
    n, trials, accepted, cursor = done.counts[:, :lanes].unbind()
    last = _carry(design, samples, lanes, (done.books, n, done.states), (statuses[0], trials, accepted))
    origin = None
    if word.marked:
        books, number, states = done.origin
        kept = _carry(design, samples, lanes, (books, number[0], states), (statuses[0], trials, accepted))
        origin = Origin(statuses[1] > 0, kept)
    if watch is not None:
        watch(last.t)
    blocks = ()
    if done.rows is not None:
        blocks = (Block(done.rows, word.rows, 0 if start.carry is None else int(start.carry.n.min())),)
    tape, nfe = Tape(done.out, cursor, blocks), problem.stepper.nfe
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
