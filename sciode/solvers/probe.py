"""The step that a local regularizer takes after a solve, from a random time of its trajectory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .adjoints.results import Results
from .brownian import unit_normals
from .controllers import PID, Fixed
from .engines import CompileNotice, alone, key_of, own_code, quietly
from .moments import Moment, fractions
from .outputs import compact, gather_rows
from .problem import Problem
from .regularizers import Local
from .start import initial_step
from .status import Status
from .trajectory import accepts, begun_at

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
    # A sample that failed takes a step of no length from where it began, or its stand-in did, and counts as 0.
    good = spot.good & (found.run.carry.status == int(Status.SUCCESS))
    if not (found.run.clean or bool(good.any())):
        return y.real.new_zeros(y.shape[0])
    begun = None if found.run.clean else begun_at(found.run)
    first, since = (found.ys[0][0], problem.s0) if begun is None else (begun.y, begun.s)
    y = torch.where(good.unsqueeze(-1), y, first.detach())
    lanes = good[:1] if problem.coupled else good
    s = torch.where(lanes, spot.s, since)
    units = unit_normals(seeds, _STREAM, problem.noise.channels, y.dtype) if problem.counted else None
    # From here on as the clocks have it [L].
    spot = spot._replace(s=s, y=y, good=lanes)
    arguments = (local, problem, spot, units, local.kind.draw(seeds, y))
    if found.run.engine == "eager":
        value = _probed(*arguments)
    else:
        with alone(y.device):
            value = _compiled(arguments)
    return torch.where(good, value, torch.zeros_like(value))


def _probed(local: Local, problem: Problem, spot: _Spot, units: Tensor | None, drawn: Tensor) -> Tensor:
    """What is measured of the step [B]; units: normals for a step whose interval is none of the noise's grid."""
    field, s, y, t = problem.field, spot.s, spot.y, problem.forward(spot.s)
    with torch.no_grad() if local.state == "frozen" else nullcontext():
        first = field.first(t, y)
    with torch.no_grad():
        # Nobody has said that the field goes on behind the last time.
        length = torch.minimum(_length(local, problem, spot, first), problem.s1 - s)
        length = torch.where(spot.good, length, 0.0)
    memory = problem.stepper.start(field, t, y, first)
    dt = problem.forward(length)
    noise = problem.driven(None, t, dt) if units is None else units * dt.abs().sqrt().to(y.dtype).unsqueeze(-1)
    step = problem.stepper.step(field, noise, t, dt, y, memory)
    return local.kind.measure(problem, t, dt, y, step, drawn)


def _length(local: Local, problem: Problem, spot: _Spot, first: tuple[Tensor, ...]) -> Tensor:
    """The length of the step [L]."""
    if isinstance(problem.controller, Fixed):
        return torch.full_like(spot.s, problem.controller.dt)
    if local.step == "solver":
        assert spot.length is not None
        return spot.length
    assert isinstance(problem.controller, PID)
    controller = replace(problem.controller, first_step=None)
    return initial_step(replace(problem, s0=spot.s), controller, spot.y, first)


_KEPT = 64
"""Compiled steps kept for later solves, the first dropped first."""
_steps_made: dict[Hashable, Callable[..., Tensor]] = {}


def _compiled(arguments: tuple[Any, ...]) -> Tensor:
    """`_probed` as one compiled function, where the solve was one; op by op it is some hundred launches."""
    local, problem, spot = arguments[:3]
    key = key_of("probe", problem, spot.y, local)
    fresh = key not in _steps_made
    if fresh:
        while len(_steps_made) >= _KEPT:
            del _steps_made[next(iter(_steps_made))]
        _steps_made[key] = compiler(_probed)
    try:
        with quietly() if fresh else nullcontext():
            return _steps_made[key](*arguments)
    except Exception as error:
        if _steps_made[key] is _probed:
            raise
        # Whatever it is: if the field itself is at fault, it raises again.
        _steps_made[key] = _probed
        warnings.warn(f"regularize: the local step is not compiled: {error}", CompileNotice, stacklevel=2)
        return _probed(*arguments)


def compiler(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Inductor, with graphs of the function's own."""
    return torch.compile(own_code(function), fullgraph=True, dynamic=False)


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
        steps = _steps_of(found)
        inside = steps.taken & (steps.starts <= s) & (s <= steps.starts + steps.lengths)
        index = inside.to(torch.int8).argmax(0, keepdim=True)
        length = steps.lengths.gather(0, index).squeeze(0)
    return _Spot(s, y, length, good)


def _accepted(found: Results, seeds: Tensor) -> _Spot:
    """At one of a sample's own accepted steps, each as likely as any other."""
    steps = _steps_of(found)
    lanes, samples = steps.taken.shape[1], steps.states.shape[1]
    order, count = compact(steps.taken)
    drawn = fractions(seeds, lanes, seeds.device)
    # Never the step after the last, however close to 1 the draw is.
    nth = torch.minimum((drawn * count).to(torch.int64), (count - 1).clamp(min=0))
    index = order.gather(0, nth.unsqueeze(0))
    s, length = (x.gather(0, index).squeeze(0) for x in (steps.starts, steps.lengths))
    y = gather_rows(steps.states, index).squeeze(0).detach()
    return _Spot(s, y, length, (count > 0).expand(samples))


def _steps_of(found: Results) -> _Steps:
    """What the engine recorded; a step of no length that nobody took, where it recorded none."""
    run = found.run
    if not (run.records or (run.tape is not None and any(block.count for block in run.tape.blocks))):
        start = run.problem.s0.unsqueeze(0)
        none = torch.zeros_like(start)
        return _Steps(start, none, none > 0, found.ys[0][:1].detach())
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
