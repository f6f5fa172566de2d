"""The solver's own local error estimate as a penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from ..problem import scaled_error
from ..suggest import choose
from .base import REDUCTIONS, Reduction, Regularizer

if TYPE_CHECKING:
    from ..problem import Problem
    from ..steppers import Step, Stepper

__all__ = ["Error"]


@dataclass(frozen=True)
class Error(Regularizer):
    """sum_j E_j |h_j| (power 1) or sum_j E_j^2 (power 2) over accepted steps, or their mean or maximum.

    E_j = rms(error / (atol + rtol max(|y_j|, |y_{j+1}|))) is the scaled error the controller sees, taken per sample
    even if the batch shares its steps. The step size carries no gradient.
    Good values: power=1, reduce="sum"; weights of 1 to 1000 in the loss, falling exponentially.

    Source: Pal, Ma, Shah, Rackauckas: Opening the Blackbox (ICML 2021).
    """

    reduce: Reduction = "sum"
    power: Literal[1, 2] = 1
    name: str = "error"

    def __post_init__(self) -> None:
        choose("reduce", self.reduce, REDUCTIONS)
        if self.power not in (1, 2):
            raise ValueError(f"Error: power must be 1 (E |h|) or 2 (E^2), got {self.power}")

    def check(self, stepper: Stepper) -> None:
        """The method must have an embedded error estimate."""
        if stepper.error_order is None:
            raise ValueError(
                f"regularize: {stepper.name!r} has no error estimate; use an adaptive method such as tsit5"
            )

    def measure(self, problem: Problem, t: Tensor, dt: Tensor, y: Tensor, step: Step, drawn: Tensor) -> Tensor:
        """E |h| or E^2."""
        error, _ = scaled_error(problem, y, step, coupled=False)
        return error * dt.abs().to(error.dtype) if self.power == 1 else error * error
