"""The evolution of the weights themselves: the Galerkin projection of F(u) onto what the network can follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.func import jacrev, jvp, vmap

from sciode.insr.optimise import Work
from sciode.solvers import solve
from sciode.solvers.methods import stepper_of
from sciode.training import Block

__all__ = ["Galerkin", "Moved", "moved"]


@dataclass(frozen=True)
class Galerkin:
    """How theta' is found and integrated: theta' = argmin mean |J theta' - F(u)|^2 + damping |theta'|^2.

    method, rtol, atol, regularize: as for `sciode.solve`; fixed: whether each step is one step of the method, else the
    method chooses its own steps within it. damping: of weights that the points do not see; too little makes theta'
    stiff, too much bends the path of u away from F(u), and less than the rounding of J^T J is raised to that. stiff:
    of walls, which pull u back to what they ask for at this rate (per unit of time), by the weight of `Points`.

    Good values: the defaults. Fixed steps are cheaper where they are stable, as where a profile is only moved
    (`Galerkin("rk4", fixed=True, damping=1e-10)`); where phases part, they lost over a digit at equal damping.

    Raises ValueError for numbers that make no sense.
    Source: Du & Zaki, Phys. Rev. E 104 (2021); Bruna, Peherstorfer & Vanden-Eijnden, J. Comput. Phys. 496 (2024).
    """

    method: str = "dopri5"
    fixed: bool = False
    rtol: float = 1e-5
    atol: float = 1e-5
    damping: float = 1e-8
    stiff: float = 10.0
    regularize: Any = ()
    max_steps: int = 1000
    chunk: int | None = None

    def __post_init__(self) -> None:
        if not (0 < self.damping < math.inf and 0 <= self.stiff < math.inf):
            raise ValueError(f"damping must be positive and stiff at least 0, got {self.damping} and {self.stiff}")
        if not (self.rtol > 0 and self.atol > 0) or self.max_steps < 1 or (self.chunk is not None and self.chunk < 1):
            raise ValueError("rtol and atol must be positive, max_steps and chunk at least 1")
        if not self.fixed and not stepper_of(self.method, "ode", "dopri5").adaptive:
            raise ValueError(f"method: {self.method!r} has no error estimate: take fixed=True, or another")
        stepper_of(self.method, "ode", "dopri5")


_QUIET = 1e-3
"""A slope that would change u by less than this share in a step counts as one that does."""


class Moved(NamedTuple):
    """theta at the end of a step, the larger share of F(u) that was not followed there or at its start; evaluations."""

    theta: Tensor
    loss: float
    evaluations: int
    status: str
    penalties: dict[str, float]


def moved(work: Work, theta: Tensor, t: float, dt: float, how: Galerkin, step: int) -> Moved:
    """Move theta from t to t + dt. Points are drawn once a step: within it, theta' is one function of theta."""
    points, seed = work.points, (work.seed, step, 0, 0)
    steps: dict[str, Any] = {"dt": dt} if how.fixed else {"rtol": how.rtol, "atol": how.atol}
    with torch.no_grad():
        walls = points.walled(work.problem, 1, work.flat.field, work.flat.size, theta, *seed)
        missed = _missed(work, how, dt, walls, theta, step) if points.aimed else work.problem.initial
        projection = _Projection(
            work, how, dt, walls, *points.drawn(work.problem, missed, work.flat.size, theta, *seed)
        )
        solution = solve(
            lambda _, at: projection.slope(at)[0], theta, [t, t + dt], method=how.method, batch_dims=0, engine="eager",
            throw=False, max_steps=how.max_steps, regularize=how.regularize, **steps,
        )  # fmt: skip
        ends = torch.stack([projection.slope(at)[1] for at in (theta, solution.ys[-1])])
    status = "converged" if int(solution.status) == 0 else str(solution.message)
    penalties = {name: float(value) for name, value in solution.penalties.items()}
    return Moved(solution.ys[-1], float(ends.amax()), projection.evaluations, status, penalties)


@final
class _Projection:
    """theta' as a function of theta, by the points x [N, d], each of which counts by the square of its weight."""

    def __init__(
        self, work: Work, how: Galerkin, dt: float, walls: Sequence[Block], x: Tensor, weights: Tensor | None
    ) -> None:
        self.work, self.how, self.dt, self.walls = work, how, dt, walls
        self.x, self.weights, self.evaluations = x, weights, 0

    def slope(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """theta', and the share of F(u) that it does not follow."""
        self.evaluations += 1
        flat, view, x, how = self.work.flat, self.work.view, self.x, self.how
        jacobian = self._rows(lambda at, point: view(flat.field(at))(point), theta, x)
        wanted = vmap(view(self.work.problem.equation(flat.field(theta))))(x)
        size = vmap(view(flat.field(theta)))(x)
        if self.weights is not None:
            jacobian = jacobian * self.weights.expand_as(wanted).reshape(-1, 1)
            wanted, size = wanted * self.weights, size * self.weights
        wanted = wanted.reshape(-1)
        gram, right = jacobian.T @ jacobian / len(x), jacobian.T @ wanted / len(x)
        for wall in self.walls:
            its = self._rows(wall.residual, theta, wall.points) * wall.scale
            values = vmap(wall.residual, (None, 0))(theta, wall.points).reshape(-1) * wall.scale
            gram, right = gram + its.T @ its, right - how.stiff * its.T @ values
        least = torch.finfo(gram.dtype).eps * gram.diagonal().sum()
        gram.diagonal().add_(least.clamp_min(how.damping))
        factor, info = torch.linalg.cholesky_ex(gram)
        found = torch.cholesky_solve(right.unsqueeze(1), factor)[:, 0]
        moving = wanted.norm().clamp_min(_QUIET / self.dt * size.norm())
        share = (jacobian @ found - wanted).norm() / moving
        return torch.where(info == 0, found, torch.nan), share

    def _rows(self, residual: Any, theta: Tensor, points: Any) -> Tensor:
        return vmap(jacrev(residual), (None, 0), chunk_size=self.how.chunk)(theta, points).reshape(-1, len(theta))


def _missed(
    work: Work, how: Galerkin, dt: float, walls: Sequence[Block], theta: Tensor, step: int
) -> Callable[[Tensor], Tensor]:
    """What theta' by points drawn evenly leaves of F(u) at a point: J theta' - F(u), as the work views it."""
    x = work.points.inside(work.problem, work.flat.size, theta, work.seed, step, 1, 0)
    slope, _ = _Projection(work, how, dt, walls, x, None).slope(theta)
    wanted = work.view(work.problem.equation(work.flat.field(theta)))

    def missed(x: Tensor) -> Tensor:
        followed = jvp(lambda at: work.view(work.flat.field(at))(x), (theta,), (slope,))[1]
        # Without a slope nothing is followed, and the step will say so.
        return followed.nan_to_num() - wanted(x)

    return missed
