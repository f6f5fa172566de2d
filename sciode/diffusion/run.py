"""The loop: one interpreter for the plans of all samplers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciode.diffusion.denoiser import Denoiser
from sciode.diffusion.plan import Call, Draw, Mix, Plan

__all__ = ["Normals", "Program", "no_draw", "run"]

Normals = Callable[[int], Tensor]
"""n -> the n-th standard normal draw [B, ...]."""


def no_draw(number: int) -> Tensor:
    """The draws of a program that has none."""
    raise AssertionError("nothing is drawn here")


def run(
    plan: Plan,
    denoiser: Denoiser,
    inputs: tuple[Tensor, ...],
    normals: Normals = no_draw,
    own_times: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The sample and its memory from the given registers [B, ...]; `normals(n)` is the n-th draw.

    own_times: whether coefficients that are arrays are one a sample (else of one sample's shape).
    """
    return Program(plan, denoiser, inputs[0], own_times)(inputs, normals)


class Program:
    """A plan with its times and coefficients where the state is: sent once, before the first step, nothing is read
    back, so that a call can be captured."""

    def __init__(self, plan: Plan, denoiser: Denoiser, like: Tensor, own_times: bool = False) -> None:
        sent = _Sent(like, own_times)
        self.plan, self.denoiser = plan, denoiser
        self._lines = [_sent_line(line, sent) for line in plan.lines]
        calls = [(n, line) for n, line in enumerate(plan.lines) if isinstance(line, Call)]
        self._asked = {n: denoiser.asks(line.node, line.kind).sent(sent) for n, line in calls}
        times = sent.times([line.node.t for _, line in calls])
        self._times = {n: times[row] for row, (n, _) in enumerate(calls)}
        self._last = plan.last_uses()

    def __call__(self, inputs: tuple[Tensor, ...], normals: Normals = no_draw) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The result and the memory."""
        registers = self.advance(dict(enumerate(inputs)), normals, 0, len(self._lines))
        return self.ends(registers)

    def ends(self, registers: Mapping[int, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The result and the memory among the registers after the last line."""
        return registers[self.plan.result], tuple(registers[r] for r in self.plan.memory)

    def advance(self, registers: dict[int, Tensor], normals: Normals, first: int, end: int) -> dict[int, Tensor]:
        """The registers that are still read after lines first to end - 1, from those before them."""
        registers = dict(registers)
        for n in range(first, end):
            line = self._lines[n]
            if isinstance(line, Call):
                registers[line.out] = self.denoiser(registers[line.state], self._times[n], self._asked[n])
            elif isinstance(line, Draw):
                registers[line.out] = normals(line.number)
            else:
                registers[line.out] = _mixed(line, registers)
            for register in self.plan.reads(n):
                if self._last[register] == n:
                    registers.pop(register, None)
        return registers

    def with_denoiser(self, denoiser: Denoiser) -> Program:
        """The same program, another denoiser of the same schedule and prediction."""
        other = copy(self)
        other.denoiser = denoiser
        return other

    def cuts(self, every: int = 1) -> list[int]:
        """Lines that begin a segment of `every` evaluations, and the end; what is before the first belongs to it."""
        calls = list(self._asked)[::every]
        return [0, *calls[1:], len(self._lines)]


class _Sent:
    """Coefficients where the state is: numbers as they are, arrays as tensors that broadcast against it."""

    def __init__(self, like: Tensor, own_times: bool) -> None:
        self.like, self.own_times = like, own_times

    def times(self, t: list[Any]) -> Tensor:
        """The times of all calls: [calls, B]."""
        # Half precision cannot tell times apart.
        dtype = torch.promote_types(self.like.dtype, torch.float32)
        both = torch.as_tensor(np.asarray(t, dtype=np.float64)).to(self.like.device, dtype)
        return both if both.ndim == 2 else both[:, None].expand(-1, self.like.shape[0])

    def __call__(self, coefficient: Any) -> Any:
        if np.ndim(coefficient) == 0:
            return float(coefficient)
        tensor = torch.as_tensor(coefficient).to(self.like)
        return tensor.reshape(-1, *[1] * (self.like.ndim - 1)) if self.own_times else tensor


def _sent_line(line: Call | Mix | Draw, sent: _Sent) -> Call | Mix | Draw:
    if not isinstance(line, Mix):
        return line
    constant = None if line.constant is None else sent(line.constant)
    return Mix(line.out, tuple((register, sent(c)) for register, c in line.terms), constant)


def _mixed(line: Mix, registers: Mapping[int, Tensor]) -> Tensor:
    """Add up in the order of the terms; a coefficient of one multiplies nothing, so that exact inversions undo it."""
    total: Tensor | None = None
    for register, c in line.terms:
        value = registers[register]
        if total is None:
            total = value if isinstance(c, float) and c == 1.0 else value * c
        elif isinstance(c, float):
            total = torch.add(total, value, alpha=c)
        else:
            total = total + value * c
    assert total is not None
    return total if line.constant is None else total + line.constant
