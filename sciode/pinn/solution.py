"""What a solve leaves: every arm's fields, errors, unknowns and history."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sciode.pinn.derivatives import Derivatives, residual_of
from sciode.pinn.problem import Problem
from sciode.pinn.representation import Representation

__all__ = ["Moment", "Solution", "relative_error", "test_points"]


_SHOWN = 4
"""Arms whose errors are told in one line."""


class Moment(NamedTuple):
    """An entry of the history: stage, iteration, losses [arms], terms without weights [arms, T], errors [arms], and the
    seconds of training until then, those that errors took left out (of this process on a CPU, else of the wall).
    """

    stage: int
    iteration: int
    loss: list[float]
    terms: list[list[float]]
    error: list[float]
    seconds: float = math.nan


@dataclass(frozen=True, repr=False)
class Solution:
    """Fields of all arms, [arms, ...] throughout.

    terms: names, in the order of the history's columns. status: one an arm: "budget", "converged", "stuck", or what was
    not finite and when; then theta is what came before. error: relative L2, on points that no arm was trained on; NaN
    without an exact solution or a reference. seconds: of each stage.
    """

    representation: Representation
    theta: Tensor
    terms: tuple[str, ...]
    history: tuple[Moment, ...]
    status: tuple[str, ...]
    error: Tensor
    seconds: tuple[float, ...]

    def __repr__(self) -> str:
        of, pieces = self.representation, self.representation.decomposition.size
        shown = [f"{value:.2g}" for value in self.error[:_SHOWN].tolist() if not math.isnan(value)]
        more = ", ..." if self.arms > _SHOWN else ""
        found = [
            f"{name} {', '.join(f'{value:.6g}' for value in values[:_SHOWN].tolist())}{more}"
            for name, values in self.unknowns.items()
        ]
        parts = (
            f"{of.problem.name!r}: {self.arms} {'arm' if self.arms == 1 else 'arms'}",
            f"{pieces} {'piece' if pieces == 1 else 'pieces'} of {of.network.width} x {of.network.hidden}",
            *([f"relative error {', '.join(shown)}{more}"] if shown else []),
            *found,
            f"status {', '.join(dict.fromkeys(self.status))}",
            f"{sum(self.seconds):.1f} s",
        )
        return f"Solution({'; '.join(parts)})"

    @property
    def arms(self) -> int:
        """How many there are."""
        return len(self.theta)

    @property
    def unknowns(self) -> dict[str, Tensor]:
        """What inverse problems look for, by name, [arms] each."""
        return self.representation.unknowns(self.theta)

    def __call__(self, points: Tensor) -> Tensor:
        """Return the fields of all arms at points [N, d] of the domain, [arms, N, c], where the networks are."""
        with torch.no_grad():
            return self.representation.at(self.theta, self._checked(points))

    def read(self, name: str, points: Tensor) -> Tensor:
        """Return a field or a derivative by its name, "u" or "u_xx", at points [N, d], [arms, N].

        Raises ValueError for a name that is neither, or points of another shape.
        """
        try:
            kind, channel, orders = self.representation.names.read(name)
        except AttributeError as error:
            raise ValueError(str(error)) from None
        if kind != "field":
            raise ValueError(f"{name!r} is a coordinate: it is in the points")
        with torch.no_grad():
            return self.representation.read(self.theta, self._checked(points), (orders,))[orders][..., channel]

    def residual(self, points: Tensor) -> Tensor:
        """Return what the equation leaves at points [N, d], [arms, N, m]: where a solution is wrong shows here."""
        of, at = self.representation, self._checked(points)
        with torch.no_grad():
            values = {one: value[:, None] for one, value in of.read(self.theta, at, of.problem.orders).items()}
            d = Derivatives(of.names, values, at[None, None])
            return residual_of(of.problem.equation, d, of.parameters(self.theta))[:, 0]

    def _checked(self, points: Tensor) -> Tensor:
        """The points in the networks' dtype and on their device, arrays and lists too. ValueError for another shape."""
        points = torch.as_tensor(points)
        axes = self.representation.names.axes
        if points.ndim != 2 or points.shape[1] != axes:
            raise ValueError(f"points must be [N, {axes}], got {tuple(points.shape)}")
        return points.to(self.theta)

    def field(self, arm: int = 0) -> Callable[[Tensor], Tensor]:
        """Return one arm's fields as a function of points, [N, d] -> [N, c]."""
        return lambda points: self(points)[arm]


def test_points(problem: Problem, n: int, seed: int) -> tuple[Tensor, Tensor] | None:
    """Return points and values that errors are measured on: the reference's, or n points of the exact solution."""
    if problem.reference is not None:
        return problem.reference.points, problem.reference.values
    if problem.exact is None:
        return None
    points = problem.domain.sample(n, seed, dtype=torch.float64)
    return points, problem.exact(points)


def relative_error(representation: Representation, theta: Tensor, known: tuple[Tensor, Tensor] | None) -> Tensor:
    """Return |u - exact| / |exact| of every arm, [arms]."""
    if known is None:
        return theta.new_full((len(theta),), torch.nan)
    points, values = (part.to(theta) for part in known)
    with torch.no_grad():
        found = representation.at(theta, points)
    return (found - values).flatten(1).norm(dim=1) / values.norm()
