"""Integrals along the trajectory of what makes a field hard to integrate: its speed, its Jacobian."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..brownian import unit_normals
from ..steppers import ExplicitRK
from .base import Reduction, Regularizer

if TYPE_CHECKING:
    from ..problem import Problem
    from ..steppers import Step, Stepper

__all__ = ["Integral", "Jacobian", "Kinetic", "check_ode", "check_part"]

_GAUSS = (0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6)
"""Where in a step a density is looked at: Gauss's two points, exact for cubics."""
_STREAM = 0x2545F4914F6CDD1D
"""Tells these draws from the noise of an SDE with the same seeds."""


class Integral(Regularizer):
    """The integral over |dt| of a density g(t, y), by two points of the dense output a step."""

    reduce: Reduction = "sum"

    def check(self, stepper: Stepper) -> None:
        """The method must be one for ODEs."""
        check_ode(self.name, stepper)

    @abstractmethod
    def density(self, problem: Problem, t: Tensor, y: Tensor, drawn: Tensor) -> Tensor:
        """g [B] at t [L] and y [B, D]."""

    def measure(self, problem: Problem, t: Tensor, dt: Tensor, y: Tensor, step: Step, drawn: Tensor) -> Tensor:
        """The integral over one step [B]."""
        stepper = problem.stepper
        basis = stepper.basis(problem.field, t, dt, y, step)
        values = []
        for point in _GAUSS:
            at, state = torch.full_like(dt, point), y
            for w, k in zip(stepper.weights_apart(at, dt), basis, strict=True):
                state = state + w.to(y.dtype).unsqueeze(-1) * k
            values.append(self.density(problem, t + point * dt, state, drawn))
        return 0.5 * dt.abs().to(y.dtype) * (values[0] + values[1])


@final
@dataclass(frozen=True)
class Kinetic(Regularizer):
    """integral |f(t, y)|^2 dt, by the method's own weights: sum_j |h_j| sum_i b_i |k_i|^2, at no evaluation more.

    |.|^2 is the sum of squares over the components of the state. part: over its first ones only, where the rest is an
    account of the trajectory (a flow's log-density) and no place to be; None = all.
    Good values: weights of 0.01 in the loss, together with `Jacobian`.

    Source: Finlay, Jacobsen, Nurbekyan, Oberman: How to train your neural ODE (ICML 2020).
    """

    name: str = "kinetic"
    reduce: Reduction = "sum"
    part: int | None = None

    def __post_init__(self) -> None:
        check_part(self.part)

    def check(self, stepper: Stepper) -> None:
        """The method must have slopes."""
        check_ode(self.name, stepper)

    def measure(self, problem: Problem, t: Tensor, dt: Tensor, y: Tensor, step: Step, drawn: Tensor) -> Tensor:
        """|h| sum_i b_i |k_i|^2."""
        assert isinstance(problem.stepper, ExplicitRK)
        total = y.real.new_zeros(y.shape[0])
        for weight, slope in zip(problem.stepper.table.b, step.stages.slopes, strict=False):
            if weight:
                total = total + weight * slope[:, : self.part].abs().square().sum(1)
        return dt.abs().to(total.dtype) * total


@final
@dataclass(frozen=True)
class Jacobian(Integral):
    """integral |J eps|^2 dt, J = df/dy, whose mean over random signs eps [D] is the integral of |J|_F^2 (Hutchinson).

    One eps a sample and solve, from the seed of the solve. Costs two evaluations with their derivatives a step.
    part: the block of J that belongs to the first components of the state (see `Kinetic`); None = all of it.
    Good values: weights of 0.01 in the loss, together with `Kinetic`.

    Source: Finlay, Jacobsen, Nurbekyan, Oberman: How to train your neural ODE (ICML 2020); Hutchinson (1990).
    """

    name: str = "jacobian"
    part: int | None = None
    draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_part(self.part)

    def draw(self, seeds: Tensor, y: Tensor) -> Tensor:
        """Signs +1 and -1 [B, D], 0 outside the part."""
        normals = unit_normals(seeds, _STREAM, y.shape[1], y.real.dtype)
        signs = torch.where(normals < 0, -1.0, 1.0).to(y.dtype)
        return signs if self.part is None else pad(signs[:, : self.part], (0, y.shape[1] - self.part))

    def density(self, problem: Problem, t: Tensor, y: Tensor, drawn: Tensor) -> Tensor:
        """|J eps|^2, forward through the field."""
        clock = problem.field.clocks((t,), y)[0]
        change = torch.func.jvp(lambda state: problem.field.drift_at(clock, state), (y,), (drawn,))[1]
        return change[:, : self.part].abs().square().sum(1)


def check_part(part: int | None) -> None:
    """ValueError unless it is a number of components."""
    if part is not None and part < 1:
        raise ValueError(f"part: how many of the state's first components count, at least 1 (or None), got {part}")


def check_ode(name: str, stepper: Stepper) -> None:
    """ValueError unless the method is an explicit Runge-Kutta method."""
    if not isinstance(stepper, ExplicitRK):
        raise ValueError(f"regularize: {name!r} integrates along an ODE; {stepper.name!r} is not an explicit method")
