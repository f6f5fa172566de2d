"""A sampler's program run from one evaluation to the next, by a caller who owns the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciode.diffusion.denoiser import Denoiser
from sciode.diffusion.diffusers.spacing import Spaced
from sciode.diffusion.path import Path
from sciode.diffusion.plan import Call, Draw, Mix, Plan
from sciode.diffusion.run import _mixed, _Sent, _sent_line
from sciode.diffusion.samplers.base import Sampler
from sciode.diffusion.schedules.base import Schedule

__all__ = ["Stepwise", "calls_of", "program"]


def program(sampler: Sampler, schedule: Schedule, spaced: Spaced, low: float, **extra: Any) -> Plan:
    """One plan for all steps: from pure noise (alpha = 0) the first by the data prediction, and without an end the last
    to the data.

    low: the least time of the schedule, where a consistency model's last step is said to end. Raises ValueError for
    samplers that change the state before they first evaluate the model.
    """
    times, end = spaced
    consistent = sampler.kind == "consistency"
    nodes = times if end is None and not consistent else np.append(times, low if end is None else end)
    path, plan, x = Path.of(schedule, nodes), Plan(), 0
    if path.nodes[0].alpha == 0 and not sampler.in_time and path.steps:
        s, t = path.nodes[:2]
        x = plan.mix((x, t.sigma / s.sigma), (plan.call(x, s, "data"), t.alpha))
        path = Path(schedule, path.nodes[1:])
    if path.steps:
        x = _followed(plan, sampler.program(path, **extra), x)
    if end is None:
        # What a consistency model says last is the data already.
        x = calls_of(plan)[-1].out if consistent else plan.call(x, path.nodes[-1], "data")
    plan.result = x
    if calls_of(plan)[0].state != 0:
        raise ValueError(
            f"sampler: {sampler.name} adds noise before it first evaluates the model, and a pipeline evaluates first; "
            "use it in sciode.diffusion.sample"
        )
    return plan


def _followed(plan: Plan, other: Plan, x: int) -> int:
    """Append the lines of a program of one input; returns the register of its result."""
    here = {0: x}
    for line in other.lines:
        if isinstance(line, Call):
            here[line.out] = plan.call(here[line.state], line.node, line.kind)
        elif isinstance(line, Draw):
            here[line.out] = plan.draw()
        else:
            here[line.out] = plan.mix(*((here[register], c) for register, c in line.terms), constant=line.constant)
    return here[other.result]


def calls_of(plan: Plan) -> list[Call]:
    """The evaluations of a plan, in order."""
    return [line for line in plan.lines if isinstance(line, Call)]


class Stepwise:
    """A program between two evaluations: `state` is what the model is to be called at, `step(output)` goes on.

    Registers are float32 at least, whatever the model computes in; coefficients are sent to the device once. It holds
    tensors and numbers alone, so that it can be copied in the middle.
    """

    def __init__(self, plan: Plan, denoiser: Denoiser, x: Tensor) -> None:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        sent = _Sent(x, False)
        self._plan, self._denoiser = plan, denoiser
        self._lines = [_sent_line(line, sent) for line in plan.lines]
        self._asked = {
            n: denoiser.asks(line.node, line.kind).sent(sent)
            for n, line in enumerate(plan.lines)
            if isinstance(line, Call)
        }
        self._last, self._registers, self._at = plan.last_uses(), {0: x}, 0

    @property
    def done(self) -> bool:
        """Whether the last evaluation is behind."""
        return self._at == len(self._lines)

    @property
    def state(self) -> Tensor:
        """Where the model is to be called, or the sample."""
        line = None if self.done else self._lines[self._at]
        return self._registers[line.state if isinstance(line, Call) else self._plan.result]

    def replace(self, x: Tensor) -> None:
        """Go on from another state, as inpainting does."""
        line = self._lines[self._at]
        assert isinstance(line, Call)
        self._registers[line.state] = x.to(self.state.dtype)

    def step(self, output: Tensor, normals: Callable[[Tensor], Tensor]) -> Tensor:
        """The next state, given the model's output at this one; normals(like) draws."""
        while True:
            line = self._lines[self._at]
            if isinstance(line, Call):
                x = self._registers[line.state]
                known = replace(self._denoiser, model=lambda x, t: output)
                made = known(x, x.new_zeros(x.shape[0]), self._asked[self._at])
            elif isinstance(line, Draw):
                made = normals(next(iter(self._registers.values())))
            else:
                made = _mixed(line, self._registers)
            self._registers[line.out] = made
            for register in _read(line):
                if self._last[register] == self._at:
                    self._registers.pop(register, None)
            self._at += 1
            if self.done or isinstance(self._lines[self._at], Call):
                return self.state


def _read(line: Call | Draw | Mix) -> set[int]:
    if isinstance(line, Mix):
        return {register for register, _ in line.terms}
    return {line.state} if isinstance(line, Call) else set()
