"""Exponential steps for `sciode.solve`: u' = L u + N(t, u), of which L is solved exactly, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from sciode.solvers.fields import Field
from sciode.solvers.steppers import Step, Stepper

__all__ = ["Lawson"]


@final
@dataclass(frozen=True, eq=False)
class Lawson(Stepper):
    """Classical Runge-Kutta for v = exp(-L t) u, whose equation has no L left: order 4, and exact where N is 0.

    The field that is solved is N alone. half: y [B, D] -> exp(L dt / 2) y. It belongs to one dt: solve with that one,
    and ask for multiples of it, between which outputs are joined by straight lines.

    Example: `solve(N, u0, ts, method=Lawson(half), dt=dt)`. Source: Lawson (1967), SIAM J. Numer. Anal. 4.
    """

    half: Callable[[Tensor], Tensor]
    name = "lawson4"
    kind = "ode"
    order = 4
    nstages = 4
    memoryless = True
    reference = "Lawson (1967)"

    def start(self, field: Field, t: Tensor, y: Tensor, f0: Any) -> tuple[Tensor, ...]:
        """Nothing is remembered."""
        return ()

    def step(
        self, field: Field, noise: Tensor | None, t: Tensor, dt: Tensor, y: Tensor, memory: tuple[Tensor, ...]
    ) -> Step:
        """Four evaluations of N, each carried on by L."""
        h = dt.to(y.real.dtype).unsqueeze(-1)
        begin, middle, end = field.clocks([t, t + 0.5 * dt, t + dt], y)
        first = field.drift_at(begin, y)
        moved, pushed = self.half(y), self.half(first)
        second = field.drift_at(middle, moved + 0.5 * h * pushed)
        third = field.drift_at(middle, moved + 0.5 * h * second)
        fourth = field.drift_at(end, self.half(moved + h * third))
        y1 = self.half(moved + h / 6 * pushed + h / 3 * (second + third)) + h / 6 * fourth
        return Step(y1, None, (), (y1,), None, self.nfe)

    def basis(self, field: Field, t: Tensor, dt: Tensor, y: Tensor, step: Step) -> tuple[Tensor, ...]:
        """What the step changes."""
        return (step.y1 - y,)

    def weights(self, theta: Tensor, dt: Tensor) -> Tensor:
        """A straight line."""
        return torch.stack((theta,))
