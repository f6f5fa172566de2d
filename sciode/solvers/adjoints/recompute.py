"""Discretise, then optimise, without a tape: record every accepted step, take it again in backward.

The gradient is that of the discrete solution, exact to rounding, including the regularizers. Memory: the records (one
state a step) and the activations of one step. Step sizes are constants.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..engines import CompileNotice, alone
from ..fields import Field
from ..problem import Problem
from ..steppers import Memory
from ..trajectory import Emission, Record, Run, begun_at, replay
from ..trees import filler_of, leaves_of
from .graph import check_known, clock
from .outset import at_the_outset
from .results import Results, results
from .rewind import JoinedLate, Rewound, rewind, seeds_of, taken_again
from .unwind import unwind

__all__ = ["recompute"]

Bind = Callable[[list[Tensor]], Field]


def recompute(bind: Bind, forward: Callable[[], Run], y0: Tensor, args: list[Tensor], leaves: list[Tensor]) -> Results:
    """Results whose gradient reaches y0, the tensors in `args` (leaves or not) and the captured `leaves`.

    bind(args) is the field with these tensors in its arguments; forward() runs the engine without a tape.
    """
    with torch.no_grad():
        run = forward()
        plain = results(y0.detach(), run)
    tensors = _Recompute.apply(bind, run, plain, len(args), y0, *args, *leaves)
    return plain.with_tensors(list(tensors))  # type: ignore[arg-type]


class _Recompute(torch.autograd.Function):
    """Inputs y0, args, captured leaves; outputs the differentiable tensors of the results."""

    @staticmethod
    def forward(ctx: Any, bind: Bind, run: Run, plain: Results, n_args: int, y0: Tensor, *inputs: Tensor) -> Any:
        passed = (run.records, run.emissions, run.tape)
        kept = leaves_of(passed)
        ctx.save_for_backward(y0, *inputs, *(k for k in kept if isinstance(k, Tensor)))
        ctx.fill, ctx.kept = filler_of(passed), [None if isinstance(k, Tensor) else k for k in kept]
        ctx.is_tensor = [isinstance(k, Tensor) for k in kept]
        ctx.bind, ctx.run, ctx.n_args = bind, run._replace(records=[], emissions=[], tape=None), n_args
        ctx.n_inputs = 1 + len(inputs)
        outputs = tuple(t.view_as(t) for t in plain.tensors())
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        saved = ctx.saved_tensors
        inputs, kept = saved[: ctx.n_inputs], iter(saved[ctx.n_inputs :])
        flat = (next(kept) if is_tensor else k for is_tensor, k in zip(ctx.is_tensor, ctx.kept, strict=True))
        records, emissions, tape = ctx.fill(flat)
        run = ctx.run._replace(records=records, emissions=emissions, tape=tape)
        y0, args, leaves = inputs[0], list(inputs[1 : 1 + ctx.n_args]), list(inputs[1 + ctx.n_args :])
        needed = ctx.needs_input_grad[4:]
        pulled = _Pulled(ctx.bind, run, y0, args, leaves, needed)
        gradients = (
            _differentiable_vjp(pulled, cotangents, True) if torch.is_grad_enabled() else _vjp(pulled, cotangents)
        )
        return (None, None, None, None, *(g if need else None for g, need in zip(gradients, needed, strict=True)))


class _Pulled(NamedTuple):
    """What is pulled back, and to where."""

    bind: Bind
    run: Run
    y0: Tensor
    args: list[Tensor]
    leaves: list[Tensor]
    needed: tuple[bool, ...]


class _Cotangent(NamedTuple):
    """Of the state, and of the memory that cannot be recomputed from it."""

    y: Tensor
    memory: tuple[Tensor, ...]


def _vjp(pulled: _Pulled, cotangents: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """One step at a time, last first; every gradient in the order y0, args, leaves."""
    args = [a.detach().requires_grad_(n) for a, n in zip(pulled.args, pulled.needed[1:], strict=False)]
    problem = replace(pulled.run.problem, field=pulled.bind(args))
    sources = [a for a in args if a.requires_grad] + pulled.leaves
    walk = _walk_records if pulled.run.tape is None else _walk_tape
    try:
        start, lam, totals = walk(problem, pulled, sources, cotangents)
    except JoinedLate:
        raise
    except Exception as error:
        if pulled.run.tape is None:
            raise
        # The loop forward could be compiled, this one not: its steps once more, on autograd's tape.
        warnings.warn(f"engine: the way back is not compiled, its steps are taken again: {error}", CompileNotice, 2)
        with torch.enable_grad():
            return _differentiable_vjp(pulled, cotangents, False)
    if lam.memory:
        begun = None if pulled.run.clean else begun_at(pulled.run)
        y0 = pulled.y0 if begun is None else begun.y
        start, totals = _start_vjp(problem, pulled._replace(y0=y0), start, lam, sources, totals)
    by_source = dict(zip(map(id, sources), totals, strict=True))
    return [start + lam.y, *(by_source.get(id(a)) for a in args), *(by_source[id(leaf)] for leaf in pulled.leaves)]


Walked = tuple[Tensor, _Cotangent, list[Tensor | None]]


def _walk_records(
    problem: Problem, pulled: _Pulled, sources: list[Tensor], cotangents: tuple[Tensor | None, ...]
) -> Walked:
    """Cotangents of y0 as an output, of the first state and memory, and of the sources, record by record."""
    start, seeds = _seeds(pulled.run, pulled.y0, cotangents)
    totals: list[Tensor | None] = [None] * len(sources)
    records = pulled.run.records
    essential = records[-1].essential if records else ()
    lam = _Cotangent(torch.zeros_like(start), tuple(torch.zeros_like(m) for m in essential))
    for record, seed in zip(reversed(records), reversed(seeds), strict=True):
        lam, gradients = _step_vjp(problem, record, seed, lam, sources)
        totals = [_add(total, g) for total, g in zip(totals, gradients, strict=True)]
    return start, lam, totals


def _walk_tape(
    problem: Problem, pulled: _Pulled, sources: list[Tensor], cotangents: tuple[Tensor | None, ...]
) -> Walked:
    """The same for a loop on the device, by a loop on the device."""
    tape = pulled.run.tape
    assert tape is not None
    if not tape.blocks:
        start, _ = _seeds(pulled.run, pulled.y0, cotangents)
        return start, _Cotangent(torch.zeros_like(start), ()), [None] * len(sources)
    seeds = seeds_of(pulled.run, pulled.y0, cotangents)
    with alone(pulled.y0.device):
        if tape.kept is None:
            walk = rewind(Rewound(problem, pulled.run, sources), seeds)
        else:
            walk = unwind(pulled.run, seeds, pulled.leaves)
    if walk is None:
        return seeds.start, _Cotangent(torch.zeros_like(seeds.start), ()), [None] * len(sources)
    return seeds.start, _Cotangent(walk.y, walk.memory), list(walk.totals)


def _seeds(run: Run, y0: Tensor, cotangents: tuple[Tensor | None, ...]) -> tuple[Tensor, list[Emission]]:
    """Pull the cotangents of the results back to y0 and to every emission: assembling is a function of both."""
    flat, spec = pytree.tree_flatten((y0, run.emissions))
    with torch.enable_grad():
        sources = [x.detach().requires_grad_() for x in flat]
        start, emissions = pytree.tree_unflatten(sources, spec)
        tensors = results(start, run._replace(emissions=emissions)).tensors()
    pairs = [(t, c) for t, c in zip(tensors, cotangents, strict=True) if c is not None and t.requires_grad]
    pulled = _grad(pairs, sources)
    filled = [torch.zeros_like(s) if g is None else g for g, s in zip(pulled, sources, strict=True)]
    return pytree.tree_unflatten(filled, spec)  # type: ignore[return-value]


def _step_vjp(
    problem: Problem, record: Record, seed: Emission, lam: _Cotangent, sources: list[Tensor]
) -> tuple[_Cotangent, list[Tensor | None]]:
    """Cotangents before a step from those after it, and what the step adds to the sources' gradients."""
    since = clock()
    with torch.enable_grad():
        y = record.y.detach().requires_grad_()
        essential = tuple(m.detach().requires_grad_() for m in record.essential)
        memory = problem.stepper.restore(problem.field, problem.forward(record.s), y, essential)
        step, emission = replay(problem, record, y, memory)
    outputs = [step.y1, *problem.stepper.essential(step.memory), *pytree.tree_leaves(emission)]
    seeds = [*(_only(record.accept, c) for c in (lam.y, *lam.memory)), *pytree.tree_leaves(seed)]
    pairs = [(o, s) for o, s in zip(outputs, seeds, strict=True) if o.requires_grad]
    inputs = [y, *essential, *sources]
    check_known([o for o, _ in pairs], inputs, since, problem.forward(record.s), "recompute")
    pulled = _grad(pairs, inputs)
    before = [torch.zeros_like(i) if g is None else g for i, g in zip(inputs, pulled, strict=True)][
        : 1 + len(essential)
    ]
    if record.accept is not None:
        stayed = (_only(~record.accept, c) for c in (lam.y, *lam.memory))
        before = [b + s for b, s in zip(before, stayed, strict=True)]
    return _Cotangent(before[0], tuple(before[1:])), pulled[1 + len(essential) :]


def _start_vjp(
    problem: Problem, pulled: _Pulled, start: Tensor, lam: _Cotangent, sources: list[Tensor],
    totals: list[Tensor | None],
) -> tuple[Tensor, list[Tensor | None]]:  # fmt: skip
    """The first memory is a function of y0 and the field, too."""
    tape, part = pulled.run.tape, Rewound(problem, pulled.run, sources)
    # What each step kept leads back to the whole memory, a step taken again to what it could not make itself.
    whole = tape is not None and tape.kept is not None
    found = None
    if tape is not None:
        with alone(pulled.y0.device):
            found = at_the_outset(part, pulled.y0, lam.memory, whole)
    if found is None:
        t0 = problem.forward(problem.s0)
        with torch.enable_grad():
            y = pulled.y0.detach().requires_grad_()
            memory = problem.stepper.start(problem.field, t0, y, problem.field.first(t0, y))
        made = memory if whole else problem.stepper.essential(memory)
        pairs = list(zip(made, lam.memory, strict=True))
        found = _grad([(o, c) for o, c in pairs if o.requires_grad], [y, *sources])
    totals = [_add(total, g) for total, g in zip(totals, found[1:], strict=True)]
    return start if found[0] is None else start + found[0], totals


class _Gate(torch.autograd.Function):
    """x; while `shut` holds true, no gradient goes on to what x was made of.

    y0 or an argument may have been made of another input (of the weights, say). What reaches that through them is
    added by autograd behind the solve, and is no part of the solve's own derivative; second derivatives do pass.
    """

    @staticmethod
    def forward(ctx: Any, shut: list[bool], x: Tensor) -> Tensor:
        ctx.shut = shut
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        return None, None if ctx.shut[0] else cotangent


def _differentiable_vjp(
    pulled: _Pulled, cotangents: tuple[Tensor | None, ...], create_graph: bool
) -> list[Tensor | None]:
    """For create_graph=True: put the recorded steps on one tape and differentiate that (memory as `direct`)."""
    run, shut = pulled.run, [True]
    y0, *args = (_Gate.apply(shut, x) if x.requires_grad else x for x in (pulled.y0, *pulled.args))
    problem = replace(run.problem, field=pulled.bind(args))
    t0, begun = problem.forward(problem.s0), begun_at(run)
    # A sample whose field was not finite at the start began elsewhere, and without a gradient.
    y = y0 if begun is None else torch.where(begun.y == y0, y0, begun.y)
    memory = problem.stepper.start(problem.field, t0, y, problem.field.first(t0, y))
    if run.tape is None:
        again = run._replace(emissions=_replayed(problem, run.records, y, memory))
    else:
        again = run._replace(tape=taken_again(problem, y, problem.stepper.essential(memory), run))
    tensors = results(y0, again).tensors()
    pairs = [(t, c) for t, c in zip(tensors, cotangents, strict=True) if c is not None and t.requires_grad]
    inputs = [y0, *args, *pulled.leaves]
    wanted = [x for x, need in zip(inputs, pulled.needed, strict=True) if need]
    got = iter(_grad(pairs, wanted, create_graph))
    shut[0] = False
    return [next(got) if need else None for need in pulled.needed]


def _replayed(problem: Problem, records: list[Record], y: Tensor, memory: Memory) -> list[Emission]:
    """What the recorded steps emit, as functions of the first state and memory."""
    emissions = []
    for record in records:
        accept, at, kept = record.accept, y, list(memory)
        if accept is not None:
            # Samples that did not accept may be where the field is not finite; the record has them where it is.
            with torch.no_grad():
                there = problem.stepper.restore(problem.field, problem.forward(record.s), record.y, record.essential)
            at, *kept = (_select(accept, a, b) for a, b in zip((y, *memory), (record.y, *there), strict=True))
        step, emission = replay(problem, record, at, tuple(kept))
        emissions.append(emission)
        y, *kept = (_select(accept, a, b) for a, b in zip((step.y1, *step.memory), (y, *memory), strict=True))
        memory = tuple(kept)
    return emissions


def _grad(pairs: list[tuple[Tensor, Tensor]], inputs: list[Tensor], create_graph: bool = False) -> list[Tensor | None]:
    if not pairs or not inputs:
        return [None] * len(inputs)
    outputs, seeds = zip(*pairs, strict=True)
    return list(torch.autograd.grad(outputs, inputs, seeds, allow_unused=True, create_graph=create_graph))


def _select(mask: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    return new if mask is None else torch.where(mask.reshape(mask.shape + (1,) * (new.ndim - 1)), new, old)


def _only(mask: Tensor | None, x: Tensor) -> Tensor:
    """x where the mask [L] holds, else 0."""
    return x if mask is None else _select(mask, x, torch.zeros_like(x))


def _add(total: Tensor | None, gradient: Tensor | None) -> Tensor | None:
    if total is None or gradient is None:
        return gradient if total is None else total
    return total + gradient
