"""Steps of an incompressible flow for networks that know nothing of it: advect, find the pressure, project."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.func import vmap

from sciode.insr.flat import Flat
from sciode.insr.optimise import Fit, Optimiser, Work, fitted, minimised
from sciode.insr.points import Points, check_periodic
from sciode.pde import Box, Evolution, FieldFunction, divergence, gradient, laplacian
from sciode.solvers.suggest import choose
from sciode.training import Block, Minimum, derive_seed
from sciode.training.least_squares import Status

__all__ = ["KINDS", "TRACES", "Splitting", "WithPressure", "check_splitting", "fitted_flow", "split", "traced"]

TRACES = ("euler", "midpoint")


class Part(NamedTuple):
    """A part of a step: advect for `share` of it, then project. mirror: what is advected lies on the other side of the
    last projection, at twice its result minus what went in, and is carried by its result."""

    share: float
    mirror: bool = False


KINDS: dict[str, tuple[Part, ...]] = {
    "chorin": (Part(1.0),),
    "reflect": (Part(0.5), Part(0.5, mirror=True)),
}
"""Splittings by name, as parts of a step one after another."""


@dataclass(frozen=True)
class Splitting:
    """A step in three least-squares problems, or twice three: the `scheme` of `evolve` for a network of the velocity.

        u*(x) = u(x - dt u(x))                advect: the network is fitted to it
        Lap q = div u*,  dq/dn = u* . n       pressure (times dt), by a network of its own
        u = u* - grad q                       project: the network is fitted to it

    A velocity without divergence by construction (`sciode.nn.Solenoidal`) takes one fit instead of three,

        u + grad q = u*                       u and q at once

    since it is orthogonal to gradients: what u can follow of u* is its projection. The initial values are fitted so
    too, and may have divergence. It is the way for rough flows: no curl is taken, and nothing of u* is left over.

    pressure: a network [..., d] -> [..., 1]. It is copied; its weights stand before the velocity's in a trajectory.
    kind: "chorin", the lines above, of first order in dt; it dissipates: 11 % of Taylor-Green's energy until t = 5 at
    dt = 0.05, however fine space is. "reflect" goes through the first projection to its other side and is of second
    order: advect for dt/2, project, take twice the result minus u*, advect that for dt/2 along the result, project.
    trace: how the place is found that x came from; "euler" takes the velocity at x, "midpoint" that half way back, of
    second order in dt.

    For u_t = -(u . grad) u on a box, periodic or between slip walls. Raises ValueError for names that do not exist.
    Source: Chorin (1968), Math. Comp. 22; Stam (1999), SIGGRAPH; Zehnder, Narain & Thomaszewski (2018), ACM Trans.
    Graph. 37 (reflection); Chen, Wu, Grinspun, Zheng & Chen (ICML 2023) take "chorin" and "euler".
    """

    pressure: nn.Module = field(repr=False)
    kind: str = "reflect"
    trace: str = "midpoint"

    def __post_init__(self) -> None:
        choose("kind", self.kind, KINDS)
        choose("trace", self.trace, TRACES)


@final
class WithPressure(nn.Module):
    """x -> (q, u): the networks of a splitting as one, so that both are kept at every step.

    solenoidal: whether the velocity has no divergence by construction.
    """

    def __init__(self, pressure: nn.Module, velocity: nn.Module, solenoidal: bool) -> None:
        super().__init__()
        self.pressure, self.velocity, self.solenoidal = pressure, velocity, solenoidal

    def forward(self, x: Tensor) -> Tensor:
        """Return q and u, one after the other."""
        return torch.cat((self.pressure(x), self.velocity(x)), -1)


def fitted_flow(work: Work, how: Splitting, dt: float, fit: Fit) -> Minimum:
    """Fit the initial velocity, and the pressure of the first step: its network, too, has random weights."""
    network = work.flat.network
    assert isinstance(network, WithPressure)
    q, u = Flat(network.pressure), Flat(network.velocity)
    if network.solenoidal:
        # The initial velocity without its divergence: u and q of u + grad q = u(., 0).
        drawn = _decomposition(work, q, u, work.problem.initial)
        return fit.found(lambda k, _, stage: drawn(work.points, work.seed, 0, k, stage), work.flat.theta)
    found = fitted(work._replace(flat=u), fit)
    if not math.isfinite(found.loss):
        return found
    start, pressed = u.field(found.theta), q.theta
    advected = traced(start, start, KINDS[how.kind][0].share * dt, how.trace, work.problem)
    for stage, one in enumerate((fit.descent, fit.refine)):
        if one is not None:
            pressed = _Stages(work, q, u, one, (0, stage)).pressed(pressed, advected)
    return found._replace(theta=torch.cat((pressed, found.theta)))


def split(
    work: Work, how: Splitting, theta: Tensor, dt: float, optimiser: Optimiser, step: int, attempt: int
) -> Minimum:
    """Take a step from theta, the pressure's weights and the velocity's; the loss is the largest of all fits'."""
    network = work.flat.network
    assert isinstance(network, WithPressure)
    stages = _Stages(work, Flat(network.pressure), Flat(network.velocity), optimiser, (step, attempt))
    q, u = theta.split([stages.q.size, stages.u.size])
    projected = stages.u.field(u)
    advected = projected
    for part in KINDS[how.kind]:
        carried = _reflected(projected, advected) if part.mirror else projected
        source = traced(carried, projected, part.share * dt, how.trace, work.problem)
        if network.solenoidal:
            q, u = stages.decomposed(torch.cat((q, u)), source).split([stages.q.size, stages.u.size])
            advected, projected = _plus_slope(stages.u.field(u), stages.q.field(q)), stages.u.field(u)
            continue
        u = stages.fitted(u, source)
        advected = stages.u.field(u)
        q = stages.pressed(q, advected)
        u = stages.fitted(u, _projected(advected, stages.q.field(q)))
        projected = stages.u.field(u)
    return stages.ended(torch.cat((q, u)))


@final
class _Stages:
    """The fits of a step, and how each went."""

    def __init__(self, work: Work, q: Flat, u: Flat, optimiser: Optimiser, seed: Sequence[int]) -> None:
        self.work, self.q, self.u, self.optimiser, self.seed = work, q, u, optimiser, seed
        self.done: list[Minimum] = []

    def fitted(self, u: Tensor, wanted: FieldFunction) -> Tensor:
        """The velocity's weights fitted to a field function and to the walls, from u on."""
        problem, flat, many = self.work.problem, self.u, vmap(wanted)

        def draw(points: Points, *seed: int) -> list[Block]:
            x = points.inside(problem, flat.size, u, *seed)
            inside = Block(lambda theta, at: flat.field(theta)(at[0]) - at[1], (x, many(x)))
            return [inside, *points.walled(problem, 1, flat.field, flat.size, u, *seed)]

        return self._minimised(u, draw)

    def decomposed(self, theta: Tensor, wanted: FieldFunction) -> Tensor:
        """The weights of q and u, from theta on, with u + grad q = wanted."""
        return self._minimised(theta, _decomposition(self.work, self.q, self.u, wanted))

    def pressed(self, q: Tensor, advected: FieldFunction) -> Tensor:
        """The pressure's weights after a velocity was advected, from q on."""
        problem, flat = self.work.problem, self.q
        source = vmap(divergence(advected))

        def equation(theta: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
            return laplacian(flat.field(theta))(at[0]) - at[1]

        def wall(theta: Tensor, at: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            return (gradient(flat.field(theta))(at[0]) @ at[1] - at[2]).unsqueeze(0)

        def draw(points: Points, *seed: int) -> list[Block]:
            x = points.inside(problem, flat.size, q, *seed)
            inside = Block(equation, (x, source(x)))
            if problem.periodic or not points.weight:
                return [inside]
            places, normals = points.on_walls(problem, flat.size, q, *seed)
            through = (vmap(advected)(places) * normals).sum(1)
            return [inside, Block(wall, (places, normals, through), points.weight)]

        return self._minimised(q, draw)

    def ended(self, theta: Tensor) -> Minimum:
        """All fits as one."""
        losses = [loss for one in self.done for loss in one.losses[1:]]
        failed: list[Status] = [one.status for one in self.done if one.status != "converged"]
        status: Status = failed[0] if failed else "converged"
        finite = bool(torch.isfinite(theta).all())
        return Minimum(theta, max(one.loss for one in self.done) if finite else math.inf, [0.0, *losses], status)

    def _minimised(self, theta: Tensor, draw: Callable[..., list[Block]]) -> Tensor:
        # Points of one fit differ from those of the next.
        own = derive_seed(self.work.seed, *self.seed, len(self.done))

        def blocks(k: int) -> list[Block]:
            with torch.no_grad():
                return draw(self.work.points, own, k)

        if any(not math.isfinite(one.loss) for one in self.done):
            return theta
        self.done.append(minimised(blocks, theta, self.optimiser))
        return self.done[-1].theta


def _decomposition(work: Work, q: Flat, u: Flat, wanted: FieldFunction) -> Callable[..., list[Block]]:
    """draw(points, *seed) of u + grad q = wanted, and of what the walls forbid u, in the weights of q and of u."""
    problem, many, count = work.problem, vmap(wanted), q.size

    def velocity(theta: Tensor) -> FieldFunction:
        return u.field(theta[count:])

    def equation(theta: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
        return _plus_slope(velocity(theta), q.field(theta[:count]))(at[0]) - at[1]

    def draw(points: Points, *seed: int) -> list[Block]:
        weights = count + u.size
        x = points.inside(problem, weights, u.theta, *seed)
        with torch.no_grad():
            known = many(x)
        return [Block(equation, (x, known)), *points.walled(problem, 1, velocity, weights, u.theta, *seed)]

    return draw


def _reflected(projected: FieldFunction, advected: FieldFunction) -> FieldFunction:
    return lambda x: 2.0 * projected(x) - advected(x)


def _plus_slope(velocity: FieldFunction, pressure: FieldFunction) -> FieldFunction:
    slope = gradient(pressure)
    return lambda x: velocity(x) + slope(x)


def _projected(advected: FieldFunction, pressure: FieldFunction) -> FieldFunction:
    slope = gradient(pressure)
    return lambda x: advected(x) - slope(x)


def traced(carried: FieldFunction, by: FieldFunction, dt: float, trace: str, problem: Evolution) -> FieldFunction:
    """What a velocity brings to x within dt, from inside the walls."""

    def back(x: Tensor, velocity: Tensor, time: float) -> Tensor:
        place = x - time * velocity
        if problem.periodic:
            return place
        # Axis by axis, by numbers: no tensor is made on a device.
        sides = zip(place, problem.lower, problem.upper, strict=True)
        return torch.stack([one.clamp(low, high) for one, low, high in sides])

    def brought(x: Tensor) -> Tensor:
        velocity = by(x)
        if trace == "midpoint":
            velocity = by(back(x, velocity, dt / 2.0))
        return carried(back(x, velocity, dt))

    return brought


def check_splitting(problem: Evolution, how: Splitting, points: Points, like: Tensor, solenoidal: bool) -> None:
    """Raise ValueError for a problem that is no incompressible Euler flow, or a pressure that is none of it."""
    if points.aimed:
        raise ValueError("points: the fits of a splitting have no residual to aim at: leave Points.aimed at 0")
    if not problem.incompressible:
        raise ValueError(f"scheme: {problem.name} has no pressure to split off: give the name of a time scheme")
    if problem.walls == "zero" or problem.diffusion or not _only_carries(problem):
        raise ValueError(
            f"scheme: a splitting is for u_t = -(u . grad) u, periodic or between slip walls, and {problem.name} is "
            "not: give a field without divergence (sciode.nn.Solenoidal) and a time scheme"
        )
    box = Box(problem.lower, problem.upper)
    try:
        shape: Any = tuple(how.pressure(like.new_tensor(box.low)).shape)
    except RuntimeError as error:
        raise ValueError(f"pressure: it cannot be called with a point [{problem.dimension}]: {error}") from error
    if shape != (1,):
        raise ValueError(f"pressure: it gives {list(shape)} at a point: make its outputs 1")
    flat = Flat(how.pressure)
    field = flat.field(flat.elsewhere())
    check_periodic(problem, field, like, "pressure")
    if problem.periodic or points.weight or solenoidal:
        return
    # Beside a velocity that keeps to the walls by construction, dq/dn = 0 is asked of q: by nothing, where weight is 0.
    places, normals = points.on_walls(problem, flat.size, like, 0)
    slopes = vmap(gradient(field))(places)
    if float((slopes * normals).sum(1).abs().max()) > 1e-3 * float(slopes.abs().max()):
        raise ValueError(
            "pressure: its slope through the walls is free and points.weight is 0: give a weight, or a pressure "
            "whose slope through them is 0 by construction"
        )


def _only_carries(problem: Evolution) -> bool:
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(problem.channels, dtype=torch.float64, generator=generator)
    slopes = torch.randn(problem.channels, problem.dimension, dtype=torch.float64, generator=generator)
    return problem.rate is not None and bool(torch.allclose(problem.rate(u, slopes), -slopes @ u))
