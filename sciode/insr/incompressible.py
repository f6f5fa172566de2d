"""Pressure-free equations: of a field without divergence, the curl is all that an incompressible flow has to match.

The flow obeys u_t = F(u) - grad p, with p such that div u_t = 0 and nothing crosses walls: u_t = P F(u). The curl of a
gradient is 0, so curl(u_t - F(u)) = 0 has no pressure in it; and a velocity without divergence, without flow through
the walls and (on a periodic box) of given mean is determined by its curl, so that nothing else solves it. Both modes of
`evolve` therefore look at the curl of what they look at otherwise.

Why not at mean |u_t - F(u)|^2, whose least value over such velocities is at P F(u) as well, since they are orthogonal
to gradients? Because they are so in the integral and not in a mean over points. There grad p stays as a residual of
its own size, and so much of it as the weights can fit at N points, about sqrt(P/N), is taken for motion: of a steady
vortex, 4.5 % of |F| with four points a weight, where the curl left 1.6e-5.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vmap

from sciode.insr.points import Points
from sciode.pde import Box, Evolution, FieldFunction, draw, jacobian

__all__ = ["View", "as_it_is", "check_closed", "check_incompressible", "is_solenoidal", "vorticities"]

View = Callable[[FieldFunction], FieldFunction]
"""What of a field function is looked at, itself a field function."""

_ROUNDING = 1e-3
"""Of the largest slope or speed: what a field has by construction is below that in float32, too."""


def as_it_is(field: FieldFunction) -> FieldFunction:
    """The field itself: the view of all problems but incompressible ones."""
    return field


def vorticities(field: FieldFunction) -> FieldFunction:
    """The curl of each velocity that a field tells, [k d] -> [k] in the plane, [3 k] in space."""

    def turned(x: Tensor) -> Tensor:
        slopes = jacobian(field)(x).unflatten(0, (-1, len(x)))
        twist = slopes - slopes.mT
        if len(x) == 2:
            return twist[:, 1, 0]
        return torch.stack((twist[:, 2, 1], twist[:, 0, 2], twist[:, 1, 0]), 1).flatten()

    return turned


def is_solenoidal(problem: Evolution, field: FieldFunction, like: Tensor) -> bool:
    """Whether a velocity has no divergence, to rounding."""
    slopes = vmap(jacobian(field))(_places(problem, like))
    sources = slopes.diagonal(dim1=1, dim2=2).sum(1).abs().max()
    return float(sources) <= _ROUNDING * float(slopes.abs().max())


def check_incompressible(problem: Evolution, field: FieldFunction, like: Tensor) -> None:
    """Raise ValueError unless a velocity has no divergence."""
    if not is_solenoidal(problem, field, like):
        raise ValueError(
            f"field: {problem.name} is incompressible and this field has divergence: give sciode.nn.Solenoidal(psi), "
            "or, with mode='optimise', scheme=Splitting(pressure) with a network for the pressure"
        )


def check_closed(problem: Evolution, field: FieldFunction, points: Points, like: Tensor) -> None:
    """Raise ValueError for a velocity that flows through walls which no weight closes."""
    if problem.periodic or points.weight:
        return
    x = _places(problem, like)
    places, normals = points.on_walls(problem, len(like), like, 0)
    through = (vmap(field)(places) * normals).sum(1).abs().max()
    if float(through) > _ROUNDING * float(vmap(field)(x).abs().max()):
        raise ValueError(
            f"field: it flows through the walls of {problem.name} and points.weight is 0: give a stream function that "
            "vanishes there, as HardBoundary(network, value, Box.vanishing), or a weight"
        )


def _places(problem: Evolution, like: Tensor) -> Tensor:
    return draw(Box(problem.lower, problem.upper), 16, "sobol", 0, like.device, like.dtype)
