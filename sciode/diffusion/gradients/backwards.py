"""Exact gradients at constant memory: states are made again from the sample by the sampler's exact inversion."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sciode.diffusion.denoiser import Asked, Denoiser
from sciode.diffusion.gradients.known import begin, check_known, conditions, with_conditions
from sciode.diffusion.path import Path
from sciode.diffusion.run import Program, no_draw
from sciode.diffusion.samplers.base import Sampler
from sciode.solvers.adjoints.graph import clock

__all__ = ["through_inversion"]


class _Work(NamedTuple):
    """What is run, and by which steps it is undone."""

    program: Program
    pairs: list[tuple[Program, Program]]
    registers: dict[int, Tensor]
    line: int
    conditions: int


def through_inversion(
    sampler: Sampler, path: Path, denoiser: Denoiser, program: Program, x: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The sample and its memory; in backward step by step: undo, evaluate once, pull back."""
    assert sampler.pairs is not None
    begun = begin(program, x, no_draw, "reversible")
    pairs = [
        (Program(there, denoiser, x), Program(back, denoiser, x))
        for there, back in sampler.pairs(path, **sampler.options)
    ]
    given = conditions(denoiser)
    work = _Work(program, pairs, begun.registers, begun.line, len(given))
    found, beside = _Reversible.apply(work, x, *given, *begun.leaves)  # type: ignore[misc]
    return found, (beside,)


class _Reversible(torch.autograd.Function):
    """Inputs x, conditions, leaves; outputs the sample and its memory."""

    @staticmethod
    def forward(ctx: Any, work: _Work, x: Tensor, *sources: Tensor) -> Any:
        lines = len(work.program.plan.lines)
        registers = work.program.advance(work.registers, no_draw, work.line, lines)
        found, (beside,) = work.program.ends(registers)
        ctx.work = work._replace(registers={})
        ctx.save_for_backward(found, beside, *sources)
        return found.view_as(found), beside.view_as(beside)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        found, beside, *sources = ctx.saved_tensors
        work: _Work = ctx.work
        fresh = [s.detach().requires_grad_() for s in sources[: work.conditions]]
        sources = [*fresh, *sources[work.conditions :]]
        denoiser = with_conditions(work.program.denoiser, fresh)
        state, pulled = (found, beside), list(cotangents)
        totals: list[Tensor | None] = [None] * len(sources)
        for pair in reversed(work.pairs):
            state, pulled, more = _undone(pair, denoiser, state, pulled, sources)
            totals = [g if t is None else t if g is None else t + g for t, g in zip(totals, more, strict=True)]
        return None, pulled[0], *totals


def _undone(
    pair: tuple[Program, Program], denoiser: Denoiser, state: tuple[Tensor, ...], cotangents: list[Tensor],
    sources: list[Tensor],
) -> tuple[tuple[Tensor, ...], list[Tensor], list[Tensor | None]]:  # fmt: skip
    """State before a step, cotangents there, and what the step adds to those of the sources."""
    once = _Once(denoiser)
    there, back = (program.with_denoiser(once) for program in pair)  # type: ignore[arg-type]
    since = clock()
    with torch.enable_grad():
        newer = tuple(s.detach().requires_grad_() for s in state)
        x, beside = back(newer)
        before = tuple(_leaf(v, newer) for v in (x, *beside)[: there.plan.inputs])
        after, memory = there(before)
    outputs = [after, *memory]
    check_known(outputs, [*before, *sources], since, "reversible")
    inputs = [*before, *sources]
    found = torch.autograd.grad(outputs, inputs, cotangents, allow_unused=True)
    pulled = [torch.zeros_like(b) if g is None else g for b, g in zip(before, found, strict=False)]
    return tuple(b.detach() for b in before), pulled, list(found[len(before) :])


def _leaf(value: Tensor, known: tuple[Tensor, ...]) -> Tensor:
    """The start of a graph: where a state is one that was known already, itself, so that its evaluation serves."""
    return value if any(value is one for one in known) else value.detach().requires_grad_()


class _Once:
    """A denoiser that evaluates the same state at the same node once: the way back and the way there share it."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self._known: list[tuple[Tensor, Any, Tensor]] = []

    def __call__(self, x: Tensor, t: Tensor, asked: Asked) -> Tensor:
        for state, node, value in self._known:
            if state is x and node == asked.node:
                return value
        self._known.append((x, asked.node, self._denoiser(x, t, asked)))
        return self._known[-1][2]
