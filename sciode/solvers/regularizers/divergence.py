"""The divergence of an SDE's paths from those of a prior with the same diffusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from ..steppers import SDEStepper
from .base import Reduction, Regularizer

if TYPE_CHECKING:
    from ..problem import Problem
    from ..steppers import Step, Stepper

__all__ = ["Divergence"]


@final
@dataclass(frozen=True)
class Divergence(Regularizer):
    """integral |(f - h) / g|^2 / 2 dt, f the drift, h the prior's, g the diagonal diffusion, by left points.

    By Girsanov's theorem its mean is the Kullback-Leibler divergence in nats of the law of the paths from the prior's;
    with Euler's method, of the two Euler chains exactly, else up to the first order in the steps. Where f = h nothing
    is added, whatever g is; where g alone is 0 it is infinite, and so is the divergence. One evaluation of f, g and h a
    step. `SDETerm(prior_drift=h)` asks for it.
    Source: Li, Wong, Chen, Duvenaud: Scalable gradients for stochastic differential equations (2020), section 5.
    """

    name: str = "kl"
    reduce: Reduction = "sum"

    def check(self, stepper: Stepper) -> None:
        """The method must be one for SDEs."""
        if not isinstance(stepper, SDEStepper):
            raise ValueError(f"regularize: {self.name!r} compares the paths of SDEs; {stepper.name!r} solves ODEs")

    def measure(self, problem: Problem, t: Tensor, dt: Tensor, y: Tensor, step: Step, drawn: Tensor) -> Tensor:
        """|(f - h) / g|^2 |dt| / 2 at the step's start."""
        field, clock = problem.field, problem.field.clocks((t,), y)[0]
        apart = field.drift_at(clock, y) - field.prior_at(clock, y)
        same = apart == 0
        # Twice where: a division that is not taken must not leave NaN in the gradient.
        push = torch.where(same, 0.0, apart / torch.where(same, 1.0, field.diffusion_at(clock, y)))
        return 0.5 * dt.abs().to(push.dtype) * push.square().sum(1)
