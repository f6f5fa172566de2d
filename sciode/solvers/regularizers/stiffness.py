"""An estimate of the dominant eigenvalue, read off two stages of the same step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..norms import rms
from ..steppers import ExplicitRK
from ..suggest import choose
from .base import REDUCTIONS, Reduction, Regularizer

if TYPE_CHECKING:
    from ..problem import Problem
    from ..steppers import Step, Stepper

__all__ = ["Stiffness"]


@dataclass(frozen=True)
class Stiffness(Regularizer):
    """sum_j |k_a - k_b| / |g_a - g_b| / r, for two stages a, b of step j at the same node, or the mean or maximum.

    g are the stages' states, k the slopes there: the quotient estimates the dominant eigenvalue (units 1/time), r is
    the real stability extent of the table (tsit5: 3.507). 0/0 counts as 0.
    Good values: reduce="sum"; weights about 0.1 in the loss.

    Source: Pal, Ma, Shah, Rackauckas: Opening the Blackbox (ICML 2021); Hairer, Wanner: Solving ODEs II, section IV.2.
    """

    reduce: Reduction = "sum"
    name: str = "stiffness"

    def __post_init__(self) -> None:
        choose("reduce", self.reduce, REDUCTIONS)

    def check(self, stepper: Stepper) -> None:
        """The table must have two stages at the same node."""
        if not isinstance(stepper, ExplicitRK) or stepper.table.stiffness_pair is None:
            instead = "use tsit5 or dopri5" if stepper.kind == "ode" else "no method for SDEs has, use 'error'"
            raise ValueError(
                f"regularize: {stepper.name!r} has no two stages at the same node, so no stiffness estimate; {instead}"
            )

    def measure(self, problem: Problem, t: Tensor, dt: Tensor, y: Tensor, step: Step, drawn: Tensor) -> Tensor:
        """The quotient [B]; the divisor is made safe before dividing, so that no NaN reaches the gradient."""
        assert isinstance(problem.stepper, ExplicitRK)
        table = problem.stepper.table
        assert table.stiffness_pair is not None
        a, b = table.stiffness_pair
        slopes = rms(step.stages.slopes[b] - step.stages.slopes[a])
        states = rms(step.stages.pair[1] - step.stages.pair[0])
        apart = states > 0
        quotient = slopes / torch.where(apart, states, torch.ones_like(states)) / table.stability_extent
        return torch.where(apart, quotient, torch.zeros_like(quotient))
