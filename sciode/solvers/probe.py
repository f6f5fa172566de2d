"""The step that a local regularizer takes after a solve, from a random time of its trajectory."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .adjoints.results import Results
from .brownian import unit_normals
from .controllers import PID, Fixed
from .moments import Moment, fractions
from .outputs import compact, gather_rows
from .problem import Problem
from .regularizers import Local
from .start import initial_step
from .status import Status
from .trajectory import Run, accepts

__all__ = ["local_penalty"]


_STREAM = 0x3C6EF372FE94F82B
"""Tells these draws from the noise of an SDE with the same seeds."""


class _Steps(NamedTuple):
    """The steps of a run: starts, lengths (positive), taken [I, L]; states [I, B, D] where they started."""

    starts: Tensor
    lengths: Tensor
    taken: Tensor
    states: Tensor


class _Spot(NamedTuple):
    """Where the step begins: s [L], y [B, D]; length [L] of the solver's own step there, if asked for; good [B]."""

    s: Tensor
    y: Tensor
    length: Tensor | None
    good: Tensor


def local_penalty(local: Local, problem: Problem, found: Results, moment: Moment | None, seeds: Tensor) -> Tensor:
    """The penalty [B]; problem: with the gradients of the caller's tensors; found: with the random times in it."""
    spot = _accepted(found, seeds) if local.at == "accepted" else _uniform(local, found, moment)
    y = spot.y if local.state == "attached" else spot.y.detach()
    # A sample that failed takes a step of no length from where it began, and counts as 0.
    good = spot.good & (found.run.carry.status == int(Status.SUCCESS))
    y = torch.where(good.unsqueeze(-1), y, found.ys[0][0].detach())
    lanes = good[:1] if problem.coupled else good
    s = torch.where(lanes, spot.s, problem.s0)
    field, t = problem.field, problem.forward(s)
    with torch.no_grad() if local.state == "frozen" else nullcontext():
        first = field.first(t, y)
    with torch.no_grad():
        # Nobody has said that the field goes on behind the last time.
        length = torch.minimum(_length(local, problem, spot._replace(s=s), y, first), problem.s1 - s)
        length = torch.where(lanes, length, 0.0)
    memory = problem.stepper.start(field, t, y, first)
    dt = problem.forward(length)
    step = problem.stepper.step(field, _noise(problem, t, dt, y, seeds), t, dt, y, memory)
    kind = local.kind
    value = kind.measure(problem, t, dt, y, step, kind.draw(seeds, y))
    return torch.where(good, value, torch.zeros_like(value))


def _noise(problem: Problem, t: Tensor, dt: Tensor, y: Tensor, seeds: Tensor) -> Tensor | None:
    """What drives the step: the path of the solve over its interval, or, where increments are counted, a draw of its
    own, because the interval is none of the grid's."""
    if not problem.counted:
        return problem.driven(None, t, dt)
    return unit_normals(seeds, _STREAM, problem.noise.channels, y.dtype) * dt.abs().sqrt().to(y.dtype).unsqueeze(-1)


def _length(local: Local, problem: Problem, spot: _Spot, y: Tensor, first: tuple[Tensor, ...]) -> Tensor:
    """The length of the step [L]."""
    if isinstance(problem.controller, Fixed):
        return torch.full_like(spot.s, problem.controller.dt)
    if local.step == "solver":
        assert spot.length is not None
        return spot.length
    assert isinstance(problem.controller, PID)
    controller = replace(problem.controller, first_step=None)
    return initial_step(replace(problem, s0=spot.s), controller, y, first)


def _uniform(local: Local, found: Results, moment: Moment | None) -> _Spot:
    """At the time that was drawn before the solve."""
    assert moment is not None
    run, y = found.run, moment.of(found.ys[0])
    s = moment.of(found.ts)
    good = moment.of(found.valid).expand(y.shape[0])
    lanes = run.problem.s0.shape[0]
    s = s.expand(max(lanes, s.shape[0]))
    length = None
    if local.step == "solver":
        steps = _steps_of(run)
        inside = steps.taken & (steps.starts <= s) & (s <= steps.starts + steps.lengths)
        index = inside.to(torch.int8).argmax(0, keepdim=True)
        length = steps.lengths.gather(0, index).squeeze(0)
    return _Spot(s, y, length, good)


def _accepted(found: Results, seeds: Tensor) -> _Spot:
    """At one of a sample's own accepted steps, each as likely as any other."""
    steps = _steps_of(found.run)
    lanes, samples = steps.taken.shape[1], steps.states.shape[1]
    order, count = compact(steps.taken)
    drawn = fractions(seeds, lanes, seeds.device)
    # Never the step after the last, however close to 1 the draw is.
    nth = torch.minimum((drawn * count).to(torch.int64), (count - 1).clamp(min=0))
    index = order.gather(0, nth.unsqueeze(0))
    s, length = (x.gather(0, index).squeeze(0) for x in (steps.starts, steps.lengths))
    y = gather_rows(steps.states, index).squeeze(0).detach()
    return _Spot(s, y, length, (count > 0).expand(samples))


def _steps_of(run: Run) -> _Steps:
    """What the engine recorded."""
    if run.tape is not None:
        rows = [(b.rows, b.count) for b in run.tape.blocks]
        starts, dts, taken, states = (
            torch.cat([getattr(row, name)[:count] for row, count in rows]) for name in ("s", "dt", "taken", "y")
        )
    else:
        taken = accepts(run.problem, run.records)
        starts, dts = (torch.stack([getattr(r, name) for r in run.records]).expand(taken.shape) for name in ("s", "dt"))
        states = torch.stack([r.y.detach() for r in run.records])
    return _Steps(starts, dts.abs(), taken, states)
