"""`deform`: an elastic body whose displacement is a network of space, moved by minima of its incremental potential."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from sciode.insr.body import Body
from sciode.insr.flat import Flat
from sciode.insr.kept import Kept
from sciode.insr.optimise import Fit, Optimiser, minimised
from sciode.insr.plan import Limits, Policy, Stepping, attempted, digits, network_told, walk
from sciode.insr.points import Points
from sciode.insr.potential import Elastic, Instant, blocks, measured, skin, softened
from sciode.insr.trajectory import Step, Trajectory
from sciode.pde import FieldFunction, Material, draw
from sciode.solvers.suggest import choose
from sciode.training import Block, LevenbergMarquardt, Minimum

__all__ = ["deform"]

_FITS = 1e-6
"""Mean squares of a displacement at which the start is met."""


def deform(
    body: Body,
    field: nn.Module,
    *,
    optimiser: Optimiser | None = None,
    soften: Sequence[float] = (),
    fit: Fit | None = None,
    points: Points | None = None,
    seed: int = 0,
    accept: float = 2e-2,
    attempts: int = 2,
    failing: Policy = "stop",
    folder: str | Path | None = None,
    progress: bool = False,
) -> Trajectory:
    """Move an elastic body, phi(x) = x + u(x; theta), by implicit Euler or from equilibrium to equilibrium.

    theta^{n+1} minimises the mean over the body of rho |phi - 2 phi_n + phi_(n-1)|^2 / (2 dt^2) + W(F) - f . phi +
    contact, F = d phi/dx, plus boundary |phi - target|^2 over what is held (Chen, Wu, Grinspun, Zheng & Chen, ICML
    2023). All but the work of a load without inertia are squares, so that Gauss-Newton steps apply: of ARAP's
    sum (sigma_i - 1)^2 they are F - R, whose R, nearest to F, adds nothing to the slope.

    Parameters
    ----------
    body: a `Body`: domain, material, loads, obstacles, steps.
    field: a network x [d] -> u [d], in float64. It is copied, not changed.
    optimiser: `LevenbergMarquardt` (default: 20 iterations, until a step promises 3e-3 of the loss or strains are 1e-4)
        or `Descent`.
    soften: shares of the volume weight to go through before all of it, in every step: (0.01, 0.1) leads a nearly
        incompressible body (volume / arap = 1000) past entangled minima.
    points: default: Sobol points, as many as the first power of two from twice the weights on; walls: a tenth of that
        on each held part or the surface.
    accept: the share of the potential that a further step may still promise for a step to be taken; one that promises
        more is tried again on other points, `attempts` times in all. failing, folder, progress: as for `evolve`.

    Returns a `Trajectory` of displacements; `steps[k].penalties` has the energies "elastic", "kinetic", "potential"
    and "contact" of the whole body, "penetration", the largest depth of its surface, and "inverted", the share of it
    with det F <= 0, none of which stops a run by itself. Good values: Siren with omega = 2, width 20.
    Raises ValueError for a field that does not fit, or numbers that make no sense.
    """
    choose("failing", failing, ("stop", "go on"))
    how = optimiser or _default(body)
    flat, times = Flat(copy.deepcopy(field)), body.times
    _check(body, flat, how, soften, points, Limits(accept, attempts, failing))
    count = 2 ** math.ceil(math.log2(2 * flat.size))
    where = points or Points(count, how="sobol")
    where = replace(where, walls=where.walls or max((where.count or count) // 10, 10), count=where.count or count)
    work = Elastic(body, flat, where, seed)
    start = fit or Fit(None, LevenbergMarquardt(iterations=40, damping=1e-6, tolerance=1e-11, chunk=512))
    plan = _Deforming(work, how, tuple(soften), start, Limits(accept, attempts, failing))
    kept = Kept.opened(folder, plan.identity(), times, flat.theta)
    walk(plan, kept, times, progress)
    return kept.trajectory(body, flat.network, 1, times)


def _default(body: Body) -> LevenbergMarquardt:
    """A body in flight has no energy to take a share of: there, strains of 1e-4 are none."""
    solid = body.setup.material
    stiffness = solid.arap if isinstance(solid, Material) else solid.shear
    return LevenbergMarquardt(damping=1e-4, fall=3e-3, tolerance=1e-8 * stiffness, chunk=512)


class _Deforming(Stepping):
    """How one body is moved."""

    def __init__(self, work: Elastic, how: Optimiser, soften: tuple[float, ...], fit: Fit, limits: Limits) -> None:
        self.work, self.how, self.soften, self.fit, self.limits = work, how, soften, fit, limits
        self.name, self.fits = work.body.name, _FITS

    def first(self, dt: float) -> Minimum:
        """See `Stepping.first`."""
        work, wanted = self.work, self.work.body.displacement or torch.zeros_like

        def drawn(k: int, at: Tensor, stage: int) -> list[Block]:
            x = work.points.inside(work.body.domain, work.flat.size, work.flat.theta, work.seed, 0, k, stage)
            return [Block(lambda theta, p: work.flat.field(theta)(p[0]) - p[1], (x, vmap(wanted)(x)))]

        return self.fit.found(drawn, work.flat.theta)

    def step(self, kept: Kept, times: Sequence[float]) -> tuple[Tensor | None, Step]:
        """See `Stepping.step`."""
        at = self._instant(kept.thetas, len(kept.steps))
        theta, step = attempted(
            lambda attempt: self._minimum(at, kept.thetas[-1], attempt),
            lambda found: found.status == "converged" or found.fall <= self.limits.accept,
            self.limits,
            times[at.number],
        )
        return theta, step if theta is None else step._replace(penalties=measured(self.work, at, theta))

    def _instant(self, thetas: Sequence[Tensor], number: int) -> Instant:
        body, flat = self.work.body, self.work.flat
        before, dt = flat.field(thetas[-1]), body.setup.dt
        if dt is None:
            return Instant(number, before, None)
        if number > 1:
            return Instant(number, before, flat.field(thetas[-2]))
        velocity = body.velocity
        return Instant(number, before, before if velocity is None else _back(before, velocity, dt))

    def _minimum(self, at: Instant, theta: Tensor, attempt: int) -> Minimum:
        """Through the softer materials to the body's own."""
        spent: list[float] = []
        at = replace(at, skin=skin(self.work, at.number, attempt))
        for stage, share in enumerate((*self.soften, 1.0)):
            material = softened(self.work.body.setup.material, share)
            found = minimised(
                lambda k, m=material, stage=stage: blocks(self.work, at, m, at.number, k, attempt, stage),
                theta,
                self.how,
            )
            if found.status == "non-finite":
                break
            theta = found.theta
            spent += found.losses[: found.iterations]
        return found._replace(losses=[*spent, *found.losses[-1:]])

    def identity(self) -> dict[str, Any]:
        """What a folder's steps hang on, but for their number."""
        work, body = self.work, self.work.body
        x = draw(body.domain, 16, "sobol", 1, dtype=torch.float64)
        told = {"displacement": body.displacement, "velocity": body.velocity}
        values = {name: digits(vmap(what)(x)) for name, what in told.items() if what is not None}
        values["points"] = digits(x)
        for k, part in enumerate(body.held):
            ends = part.draw(4, 0)
            values[f"held {k}"] = digits(torch.cat([ends, vmap(part.target)(ends)]))
        numbers = [repr(replace(body.setup, steps=1)), body.form, body.contact, body.name]
        return {
            "problem": {"numbers": numbers, **values},
            **network_told(work.flat, body.domain.hull),
            "how": [repr(part) for part in (self.how, self.soften, self.fit, work.points)],
            "limits": [*self.limits, work.seed],
        }


def _back(field: FieldFunction, velocity: FieldFunction, dt: float) -> FieldFunction:
    """A displacement, a step before."""
    return lambda x: field(x) - dt * velocity(x)


def _check(
    body: Body, flat: Flat, how: Optimiser, soften: Sequence[float], points: Points | None, limits: Limits
) -> None:
    """Raise ValueError for a field that is no displacement of the body, or numbers that make no sense."""
    if not limits.accept > 0 or limits.attempts < 1:
        raise ValueError(f"accept must be positive and attempts at least 1, got {limits.accept} and {limits.attempts}")
    if not all(0 < share < 1 for share in soften):
        raise ValueError(f"soften: shares between 0 and 1, the softest first, got {tuple(soften)}")
    if isinstance(how, LevenbergMarquardt) and not 0 < how.fall <= limits.accept:
        raise ValueError(f"optimiser: no energy falls to 0: give a fall in (0, {limits.accept:g}], got {how.fall}")
    if points is not None and points.weight != 1.0:
        raise ValueError("points: what is held weighs Setup.boundary; leave Points.weight at 1")
    if points is not None and points.aimed:
        raise ValueError("points: an energy has no residual to aim at: leave Points.aimed at 0")
    try:
        shape = tuple(flat.field(flat.theta)(flat.theta.new_tensor(body.domain.hull.low)).shape)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"field: it cannot be called with a point [{body.channels}]: {error}") from error
    if shape != (body.channels,):
        raise ValueError(f"field: it gives {list(shape)} at a point; a displacement has {body.channels} components")
