"""What a solve leaves behind: records of accepted steps, and what each of them contributes to the result."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .between import columns
from .problem import Carry, Problem
from .steppers import Memory, Step

__all__ = [
    "Block",
    "Crossing",
    "Emission",
    "Record",
    "Request",
    "Row",
    "Run",
    "Start",
    "Tape",
    "accepts",
    "begun_at",
    "emit",
    "measured",
    "replay",
]


class Crossing(NamedTuple):
    """Output times that a step passed: `k` their numbers, theta in (0, 1] where in the step they lie.

    With one clock for all samples (lane None), k is a range and theta a tuple of floats; else all three are tensors
    [n], one entry for every (time, sample) pair.
    """

    k: Any
    lane: Tensor | None
    theta: Any


class Record(NamedTuple):
    """An accepted step: where it started, and all that is needed to take it again.

    s, dt [L] (dt signed, 0 for samples that did not accept); y [B, D]; essential, the stepper's memory that cannot be
    recomputed; accept [L], or None if every sample accepted; reached [L], the time at its end; n, which noise it used;
    lost [L], who cannot interpolate it, because the field is not finite where it ends, or None if everybody can.
    """

    s: Tensor
    dt: Tensor
    y: Tensor
    essential: Memory
    accept: Tensor | None
    reached: Tensor
    crossing: Crossing | None
    n: int | Tensor
    lost: Tensor | None = None


class Emission(NamedTuple):
    """What one step adds to the outputs, each a differentiable function of that step alone."""

    rows: tuple[Tensor, ...]
    dense: tuple[Tensor, ...]
    penalties: tuple[Tensor, ...]


class Row(NamedTuple):
    """One turn of a loop on the device: what it takes to take the step again, and which outputs it made.

    s, dt [L] (dt signed, 0 where not accepted); n [L], which noise; y [B, D]; essential, as in `Record`; taken [L],
    which samples accepted; merged [L], which of them went on from there; theta, k [m, L]: up to m output times passed,
    where in the step and which (the number of output times, if none); penalties, each [B].
    """

    s: Tensor
    dt: Tensor
    n: Tensor
    y: Tensor
    essential: Memory
    taken: Tensor
    merged: Tensor
    theta: Tensor
    k: Tensor
    penalties: tuple[Tensor, ...]


class Block(NamedTuple):
    """A stretch of a tape: its columns [room, ...], of which `count` rows are written; the first step its noise has.

    columns [room, ...]: what each step kept for its derivative, if it did; fixed: what else that derivative reads;
    increments [room, B, m]: the noise of its steps, from `first` on, if it is not to be drawn again; strides: whether
    a row's `s`, `dt`, `n` and `y` say all of it (see `engines.march`).
    """

    rows: Row
    count: int
    first: int
    columns: tuple[Tensor, ...] = ()
    fixed: tuple[Tensor, ...] = ()
    increments: Tensor | None = None
    strides: bool = False


class Request(NamedTuple):
    """What an adjoint will want of a run.

    taped: a record of its steps; kept: also what they need to be differentiated without being taken again, with
    respect to `args`, by their number among the field's arguments, and the captured `leaves`; optional: only if that
    can be compiled and fits.
    """

    taped: bool = False
    kept: bool = False
    args: tuple[int, ...] = ()
    leaves: tuple[Tensor, ...] = ()
    optional: bool = False


class Tape(NamedTuple):
    """What a loop on the device leaves behind.

    ys [T, B, D], the states at ts; count [L], how many of them a sample reached; blocks, in order of time, if anybody
    asked for them; kept, the turn in two halves (`engines.kept`), if steps kept what their derivatives need.
    """

    ys: Tensor
    count: Tensor
    blocks: tuple[Block, ...]
    kept: Any = None


class Start(NamedTuple):
    """Where an engine begins: y [B, D], the state at the first time, and the carry there.

    fresh: the carry is what `start_carry` makes of y, so that an engine may as well make it itself; a solve like an
    earlier one begins without a carry. witness: what the field reads (`engines.witness`), if that was found already.
    """

    y: Tensor
    carry: Carry | None
    fresh: bool = False
    witness: Any = None


class Origin(NamedTuple):
    """Where samples [L] resume that are `marked`: earlier than the last carry, in `kept`."""

    marked: Tensor
    kept: Carry


class Run(NamedTuple):
    """The result of an engine: the last carry, the accepted steps and their emissions, and how often it went round.

    `carry` is the one before a sample's last step; `origin` says who resumes earlier: samples whose last step was
    rejected at the end of the interval, where a longer one might have been accepted. `problem` is the one
    that was run (an engine may split a shared clock); `interpolated` counts the steps that needed their dense output;
    `step_nfe` is the number of evaluations a trial step took. A loop on the device leaves a `tape` instead of records.
    `clean` says that all samples succeeded with all their outputs, if that is known without asking the device.
    `machine` is what ran, and `reads` the tensors of the field it ran on.
    """

    problem: Problem
    carry: Carry
    origin: Origin | None
    records: list[Record]
    emissions: list[Emission]
    iterations: int
    interpolated: int
    step_nfe: int
    tape: Tape | None = None
    engine: str = "eager"
    clean: bool = False
    machine: Any = None
    reads: Any = ()


def emit(problem: Problem, record: Record, step: Step) -> Emission:
    """Rows of the output that the step passed, its dense output if wanted, and the regularizers' values [B].

    A basis: the vectors that span the dense output, then those that the bridge of the noise moves (`between`).
    """
    t = problem.forward(record.s)
    basis = None
    if problem.output.needs_basis(record.crossing):
        spanning = problem.stepper.basis(problem.field, t, _within(problem, record), record.y, step)
        basis = torch.stack((*_known(problem, record, spanning), *columns(problem, step)))
    rows = problem.output.rows(problem, record, step, basis)
    dense = (record.y, basis) if problem.output.dense else ()
    penalties = measured(problem, t, record.dt, record.y, step)
    return Emission(rows, dense, penalties)  # type: ignore[arg-type]


def _within(problem: Problem, record: Record) -> Tensor:
    """The step [L], of no length where no output lies in it: stages beyond its own look at its end."""
    dt = record.dt if record.lost is None else torch.where(record.lost, 0.0, record.dt)
    crossing = record.crossing
    if problem.output.dense or crossing is None or crossing.lane is None or not problem.stepper.basis_nfe:
        return dt
    inside = torch.zeros_like(dt).index_add(0, crossing.lane, (crossing.theta < 1).to(dt.dtype))
    return torch.where(inside > 0, dt, 0.0)


def _known(problem: Problem, record: Record, spanning: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The vectors of the dense output; stages beyond the step's own are NaN, a constant, where they are not finite.

    A NaN that the field has made would reach shared parameters as 0 * NaN.
    """
    if record.lost is None:
        return spanning
    own = len(spanning) - problem.stepper.basis_nfe
    lost = record.lost.unsqueeze(-1)
    return (*spanning[:own], *(torch.where(lost, torch.nan, k) for k in spanning[own:]))


def measured(problem: Problem, t: Tensor, dt: Tensor, y: Tensor, step: Step) -> tuple[Tensor, ...]:
    """The regularizers' values [B] of a step of dt [L] from y [B, D] at t [L]."""
    pairs = zip(problem.regularizers, problem.drawn, strict=True)
    return tuple(r.measure(problem, t, dt, y, step, drawn) for r, drawn in pairs)


def replay(problem: Problem, record: Record, y: Tensor, memory: Memory) -> tuple[Step, Emission]:
    """Take a recorded step again from (y, memory)."""
    t = problem.forward(record.s)
    noise = problem.driven(problem.noise.block(record.n, 1)[0] if problem.counted else None, t, record.dt)
    step = problem.stepper.step(problem.field, noise, t, record.dt, y, memory)
    return step, emit(problem, record._replace(y=y), step)


def begun_at(run: Run) -> Row | Record | None:
    """Where every sample began: a row or a record whose s, y and essential tell it; None if nobody took a step.

    A sample whose field was not finite at the start has a healthy one's state there.
    """
    if run.tape is None:
        return run.records[0] if run.records else None
    rows = next((block.rows for block in run.tape.blocks if block.count), None)
    return rows if rows is None else pytree.tree_map(lambda column: column[0], rows)


def accepts(problem: Problem, records: list[Record]) -> Tensor:
    """Which samples accepted which recorded step: [records, L] bool."""
    lanes = problem.s0.shape[0]
    every = torch.ones(lanes, dtype=torch.bool, device=problem.s0.device)
    return torch.stack([every if r.accept is None else r.accept for r in records])
