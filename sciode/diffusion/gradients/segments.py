"""Exact gradients from kept states: every segment of a program is run again in backward."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sciode.diffusion.run import Normals, Program

__all__ = ["by_segments"]

Registers = dict[int, Tensor]
Run = Callable[[Registers, int, int], Registers]


def by_segments(program: Program, registers: Registers, normals: Normals, first: int, segment: int) -> Registers:
    """The registers after the last line, from those before line `first`; see `Checkpoint`."""
    run = _piece(program, normals) if segment == 1 else _pieces(program, normals)
    for start, end in pairwise([first, *(n for n in program.cuts(segment) if n > first)]):
        registers = _again(run, registers, start, end)
    return registers


def _piece(program: Program, normals: Normals) -> Run:
    return lambda registers, first, end: program.advance(registers, normals, first, end)


def _pieces(program: Program, normals: Normals) -> Run:
    """One evaluation after the other, each to be run again from its own start."""
    piece = _piece(program, normals)

    def run(registers: Registers, first: int, last: int) -> Registers:
        for start, end in pairwise([first, *(n for n in program.cuts() if first < n < last), last]):
            registers = _again(piece, registers, start, end)
        return registers

    return run


def _again(run: Run, registers: Registers, first: int, end: int) -> Registers:
    """The piece, kept as its inputs; torch frees those of inner pieces where they are arguments of their own."""
    names = list(registers)

    def piece(*values: Tensor) -> Registers:
        return run(dict(zip(names, values, strict=True)), first, end)

    return checkpoint(piece, *registers.values(), use_reentrant=False)  # type: ignore[return-value]
