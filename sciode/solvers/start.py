"""The first carry of a solve, and the first step size."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .brownian import Ending
from .controllers import PID
from .norms import rms
from .problem import Carry, Problem
from .status import RUNNING, Status

__all__ = ["fixed_steps", "initial_step", "spans", "start_carry"]


def start_carry(problem: Problem, y0: Tensor, first: tuple[Tensor, ...]) -> Carry:
    """The carry before the first step; `first` is what the field's first evaluation at (t0, y0) returned."""
    s0 = problem.s0
    controller = problem.controller
    control: tuple[Tensor, ...] = ()
    if isinstance(controller, PID):
        control = controller.start(s0)
        with torch.no_grad():
            h = initial_step(problem, controller, y0, first[0])
    else:
        h = torch.full_like(s0, controller.dt)
    zero = torch.zeros(s0.shape, dtype=torch.int64, device=s0.device)
    status = torch.where(problem.s1 > s0, RUNNING, int(Status.SUCCESS)).to(torch.int8)
    memory = problem.stepper.start(problem.field, problem.forward(s0), y0, first)
    return Carry(s0, h, zero, y0, memory, control, status, zero, zero)


def initial_step(problem: Problem, controller: PID, y0: Tensor, f0: Tensor) -> Tensor:
    """Hairer's heuristic [L]: a step whose first two Taylor terms stay within 1 % of the tolerance.

    Costs one evaluation. Source: Hairer, Norsett, Wanner: Solving ODEs I (1993), section II.4.
    """
    if controller.first_step is not None:
        return torch.full_like(problem.s0, min(controller.first_step, controller.dtmax or controller.first_step))
    order = problem.stepper.error_order
    assert order is not None
    norm = Norm(problem.rtol, problem.atol, problem.coupled, problem.weight)
    h0, d1, y1 = _guess(norm, problem.s0, problem.s1, problem.sign, y0.detach(), f0.detach())
    f1 = problem.field.drift(problem.forward(problem.s0 + h0), y1)
    h = _refine(norm, h0, d1, y0.detach(), f0.detach(), f1.detach(), order)
    return h if controller.dtmax is None else h.clamp(max=controller.dtmax)


class Norm(NamedTuple):
    """The scaled norm of the heuristic: tolerances, and whether the batch is one system, with which weights."""

    rtol: float | Tensor
    atol: float | Tensor
    coupled: bool
    weight: Tensor | None

    def __call__(self, x: Tensor, y0: Tensor) -> Tensor:
        """rms(x / (atol + rtol |y0|)), float64 [L]; step sizes carry no gradient."""
        return rms(x / (y0.abs() * self.rtol + self.atol), self.coupled, self.weight).to(torch.float64)


def _guess(norm: Norm, s0: Tensor, s1: Tensor, sign: int, y0: Tensor, f0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A first guess h0 from |y0| / |f0|, the norm of f0, and the Euler step of this length."""
    d0, d1 = norm(y0, y0), norm(f0, y0)
    h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1.clamp(min=1e-5))
    h0 = torch.minimum(h0, s1 - s0)
    return h0, d1, torch.addcmul(y0, (sign * h0).to(y0.dtype).unsqueeze(-1), f0)


def _refine(norm: Norm, h0: Tensor, d1: Tensor, y0: Tensor, f0: Tensor, f1: Tensor, order: int) -> Tensor:
    """The step that the change of the slope over h0 allows."""
    steepest = torch.maximum(d1, norm(f1 - f0, y0) / h0.clamp(min=1e-300))
    h1 = torch.where(steepest <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / steepest) ** (1 / order))
    h = torch.minimum(100 * h0, h1)
    return torch.where(torch.isfinite(h) & (h > 0), h, (h0 * 1e-3).clamp(min=1e-6))


def fixed_steps(span: np.ndarray, dt: float) -> Ending:
    """How many steps of dt cover a span [L], and the length of the last one; reckoned on the host.

    A span that is a multiple of dt up to rounding (also float32 rounding of either) counts as one.
    """
    ratio = span / dt
    whole = np.round(ratio)
    divides = np.abs(ratio - whole) <= np.minimum(1e-6 * np.maximum(ratio, 1), 1e-4)
    steps = np.where(divides, whole, np.ceil(ratio))
    last = np.where(divides, dt, span - (steps - 1) * dt)
    return Ending(steps.astype(np.int64), last)


def spans(rows: np.ndarray, lanes: int) -> np.ndarray:
    """How long the solves over times [R, T], padded with inf, are: [L]."""
    last = np.where(np.isinf(rows), -np.inf, rows).max(1)
    return np.broadcast_to(last - rows[:, 0], lanes)


def any_bad(first: Any) -> Tensor:
    """Which samples' first evaluation is not finite [B]."""
    good = [x.detach().flatten(1).abs().amax(1) < torch.inf for x in first]
    return ~(good[0] if len(good) == 1 else torch.stack(good).all(0))
