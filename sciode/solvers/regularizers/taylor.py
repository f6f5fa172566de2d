"""The size of a high derivative of the trajectory in time, which is what a method of that order has trouble with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from torch import Tensor

from .integral import Integral, check_part

if TYPE_CHECKING:
    from ..problem import Problem

__all__ = ["Taylor"]


@final
@dataclass(frozen=True)
class Taylor(Integral):
    """integral |d^k y / dt^k|^2 dt / D along the solution, through Taylor-mode differentiation of the field (`jets`).

    k = 1 is `Kinetic` over D. Costs 2 k evaluations a step on series of up to k terms.
    part: of the state's first components only, and over their number (see `Kinetic`); None = all.
    Good values: k = 2 or 3, one more than what the task needs; weights of 1e-5 to 1e-2 in the loss.

    Source: Kelly, Bettencourt, Johnson, Duvenaud: Learning differential equations that are easy to solve (2020).
    """

    k: int = 3
    name: str = "taylor"
    part: int | None = None

    def __post_init__(self) -> None:
        check_part(self.part)
        if not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"Taylor: k is the order of a derivative, at least 1, got {self.k!r}")

    def density(self, problem: Problem, t: Tensor, y: Tensor, drawn: Tensor) -> Tensor:
        """The mean square of the k-th derivative."""
        from ..jets import taylor

        field = problem.field
        clock = field.clocks((t,), y)[0]
        coefficients = taylor(field.drift_at, clock, y, self.k)
        return (coefficients[self.k] * math.factorial(self.k))[:, : self.part].abs().square().mean(1)
