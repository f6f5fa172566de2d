"""The loop: one interpreter for the plans of all samplers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciode.diffusion.denoiser import Denoiser
from sciode.diffusion.plan import Call, Draw, Mix, Plan

__all__ = ["run"]


def run(
    plan: Plan,
    denoiser: Denoiser,
    inputs: tuple[Tensor, ...],
    normals: Callable[[int], Tensor],
    own_times: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The sample and its memory from the given registers [B, ...]; `normals(n)` is the n-th draw.

    own_times: whether coefficients that are arrays are one a sample (else of one sample's shape). Times and arrays are
    sent to the device once, before the first step; nothing is read back.
    """
    x = inputs[0]
    sent = _Sent(x, own_times)
    lines = [_sent_line(line, sent) for line in plan.lines]
    calls = [line for line in plan.lines if isinstance(line, Call)]
    asked = [denoiser.asks(line.node, line.kind).sent(sent) for line in calls]
    times = sent.times([line.node.t for line in calls])
    last, called = plan.last_uses(), 0
    registers: dict[int, Tensor] = dict(enumerate(inputs))
    for n, line in enumerate(lines):
        if isinstance(line, Call):
            registers[line.out] = denoiser(registers[line.state], times[called], asked[called])
            called += 1
        elif isinstance(line, Draw):
            registers[line.out] = normals(line.number)
        else:
            registers[line.out] = _mixed(line, registers)
        for register in [r for r in _read(line) if last[r] == n]:
            registers.pop(register, None)
    return registers[plan.result], tuple(registers[r] for r in plan.memory)


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


def _read(line: Call | Mix | Draw) -> list[int]:
    if isinstance(line, Mix):
        return list(dict.fromkeys(register for register, _ in line.terms))
    return [line.state] if isinstance(line, Call) else []


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
