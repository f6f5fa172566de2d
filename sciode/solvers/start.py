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

__all__ = ["any_bad", "fixed_steps", "initial_step", "spans", "start_carry"]

_AHEAD = 12
"""How many times of rejected steps are kept, where they are (`PID.revisit`)."""


def start_carry(problem: Problem, y0: Tensor, first: tuple[Tensor, ...]) -> Carry:
    """The carry before the first step; `first` is what the field's first evaluation at (t0, y0) returned."""
    s0 = problem.s0
    controller = problem.controller
    control: tuple[Tensor, ...] = ()
    if isinstance(controller, PID):
        control = controller.start(s0)
        with torch.no_grad():
            h = initial_step(problem, controller, y0, first)
    else:
        h = torch.full_like(s0, controller.dt)
    zero = torch.zeros(s0.shape, dtype=torch.int64, device=s0.device)
    status = torch.where(problem.s1 > s0, RUNNING, int(Status.SUCCESS)).to(torch.int8)
    memory = problem.stepper.start(problem.field, problem.forward(s0), y0, first)
    ahead = tuple(torch.full_like(s0, torch.inf) for _ in range(_AHEAD if problem.revisits else 0))
    return Carry(s0, h, zero, y0, memory, control, status, zero, zero, ahead)


def initial_step(problem: Problem, controller: PID, y0: Tensor, first: tuple[Tensor, ...]) -> Tensor:
    """The length [L] of a first step; `first`: what the field's evaluation at (s0, y0) returned. One evaluation more.

    For an ODE Hairer's heuristic: a step whose first two Taylor terms stay within 1 % of the tolerance. For an SDE see
    `_noisy_step`. Source: Hairer, Norsett, Wanner: Solving ODEs I (1993), section II.4.
    """
    if controller.first_step is not None:
        return torch.full_like(problem.s0, min(controller.first_step, controller.dtmax or controller.first_step))
    order = problem.stepper.error_order
    assert order is not None
    norm, f0 = Norm(problem.rtol, problem.atol, problem.coupled, problem.weight), first[0]
    if problem.field.stochastic:
        h = _noisy_step(problem, norm, y0.detach(), first, order)
        return h if controller.dtmax is None else h.clamp(max=controller.dtmax)
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


def _noisy_step(problem: Problem, norm: Norm, y0: Tensor, first: tuple[Tensor, ...], order: float) -> Tensor:
    """Hairer's idea with a diffusion: how f h and g sqrt(h) change where they themselves lead in a short time h0.

    h0 is so short that they move the state by a hundredth (but between 1e-4 and 1e-1 of the interval); the change
    counts as an error O(h^k) there, and the step is the one at which it would be half the tolerance, at most 100 h0.
    """
    span = problem.s1 - problem.s0
    rate, kick = norm(first[0].detach(), y0), norm(_spread(first[1].detach()), y0)
    moved = 0.01 * norm(y0, y0)
    h0 = torch.minimum(moved / rate.clamp(min=1e-30), (moved / kick.clamp(min=1e-30)).square())
    h0 = torch.minimum(torch.maximum(h0, 1e-4 * span), 0.1 * span)
    f, g = first[0].detach(), _spread(first[1].detach())
    h, root = ((problem.sign * h0).to(y0.dtype).unsqueeze(-1), h0.sqrt().to(y0.dtype).unsqueeze(-1))
    there = problem.field.first(problem.forward(problem.s0 + h0), y0 + f * h + g * root)
    change = norm((there[0].detach() - f).abs() * h.abs() + (_spread(there[1].detach()) - g).abs() * root, y0)
    step = h0 * torch.clamp((0.5 / change.clamp(min=1e-30)) ** (1 / order), max=100.0)
    return torch.where(torch.isfinite(step) & (step > 0), step, 1e-3 * h0)


def _spread(g: Tensor) -> Tensor:
    """The size of the noise in every component [B, D], with the sign of g where each has its own."""
    return g if g.ndim == 2 else torch.linalg.vector_norm(g, dim=-1)


def _refine(norm: Norm, h0: Tensor, d1: Tensor, y0: Tensor, f0: Tensor, f1: Tensor, order: float) -> Tensor:
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
