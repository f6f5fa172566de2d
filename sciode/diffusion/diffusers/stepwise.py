"""A sampler's program run from one evaluation to the next, by a caller who owns the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciode.diffusion.denoiser import Denoiser
from sciode.diffusion.diffusers.spacing import Spaced
from sciode.diffusion.path import Path
from sciode.diffusion.plan import Call, Plan
from sciode.diffusion.run import Normals, Program
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
        x, _ = plan.follow(sampler.program(path, **extra), x)
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
        self._program, self._registers = Program(plan, denoiser, x), {0: x}
        self._cuts = [n for n, line in enumerate(plan.lines) if isinstance(line, Call)] + [len(plan.lines)]
        self._taken = 0

    @property
    def done(self) -> bool:
        """Whether the last evaluation is behind."""
        return self._taken + 1 == len(self._cuts)

    @property
    def state(self) -> Tensor:
        """Where the model is to be called, or the sample."""
        return self._registers[self._register]

    @property
    def _register(self) -> int:
        plan = self._program.plan
        return plan.result if self.done else plan.reads(self._cuts[self._taken])[0]

    def replace(self, x: Tensor) -> None:
        """Go on from another state, as inpainting does."""
        self._registers = self._registers | {self._register: x.to(self.state.dtype)}

    def step(self, output: Tensor, normals: Normals) -> Tensor:
        """The next state, given the model's output at this one; normals(n) is the n-th draw."""
        here = self._program.with_denoiser(replace(self._program.denoiser, model=lambda x, t: output))
        cut, self._taken = self._cuts[self._taken], self._taken + 1
        self._registers = here.advance(self._registers, normals, cut, self._cuts[self._taken])
        return self.state
