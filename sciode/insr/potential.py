"""The incremental potential of a displacement field as squares and work, point by point, and what it measures to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import jacfwd, vmap

from sciode.insr.body import Body
from sciode.insr.flat import Flat
from sciode.insr.points import Points
from sciode.pde import FieldFunction, Material, Setup, draw, potential
from sciode.pde.elastic import Solid, contact, force_at, penetration, squares
from sciode.pde.strain import determinant
from sciode.training import Block, derive_seed

__all__ = ["Elastic", "Instant", "blocks", "measured", "skin", "softened"]

_BODY, _SURFACE = 4096, 1024
"""Points that energies are measured with, the same at every step."""
_HELD, _MEASURE = 3, 4


class Elastic(NamedTuple):
    """What all steps of one body share."""

    body: Body
    flat: Flat
    points: Points
    seed: int


@dataclass(frozen=True)
class Instant:
    """What is known when a step begins: displacements at its start and a step before that, and its number, from 1 on.

    earlier: None where the step has no inertia. skin: the points of the surface on which contact is looked at, [S, d],
    the same throughout a step: few of them touch, and others at every iteration would pull it to and fro.
    """

    number: int
    before: FieldFunction
    earlier: FieldFunction | None
    skin: Tensor | None = None


def softened(material: Solid, share: float) -> Solid:
    """The material with a share of its resistance to changes of volume."""
    if isinstance(material, Material):
        return replace(material, volume=share * material.volume)
    return replace(material, lame=share * material.lame)


def blocks(work: Elastic, at: Instant, material: Solid, *seed: int) -> list[Block]:
    """The step's potential as terms of a loss, on points drawn by the seed.

    Per unit of volume, |r|^2 + work with r = (`squares` of W(F), sqrt(rho / 2) (phi - aim) / dt, sqrt(k / 2) depth):
    inertia and load are one square around the aim 2 phi_n - phi_(n-1) + dt^2 f / rho. Work is what a load does without
    inertia, -f . phi. Of the official contact -k depth s, s = (phi - phi_n) . out, the square is k depth^2 and the
    work -k depth (depth + s), which is linear above a plane.
    """
    body, flat = work.body, work.flat
    setup = body.setup
    x = work.points.inside(body.domain, flat.size, flat.theta, work.seed, *seed)
    force = x.new_tensor(force_at(at.number - 1, setup.loads, body.channels))
    with torch.no_grad():
        before = x + vmap(at.before)(x)
        aim = before if setup.dt is None else _aim(x, before, at, setup, force)
    meets = _Contact(body) if setup.obstacles else None
    inertia = 0.0 if setup.dt is None else math.sqrt(setup.material.density / 2) / setup.dt

    def residual(theta: Tensor, point: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        place, gradient = _jet(flat.field(theta), point[0])
        rows = [squares(gradient, material)]
        if inertia:
            rows.append(inertia * (place - point[1]))
        if meets and body.contact == "body":
            rows.append(meets.rows(place))
        return torch.cat(rows)

    def lifting(theta: Tensor, point: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        place = point[0] + flat.field(theta)(point[0])
        total = place.new_zeros(()) if inertia else -(force @ place)
        return total + meets.work(place, point[2]) if meets and body.contact == "body" and meets.works else total

    loaded = not inertia and bool(force.any())
    works = loaded or (meets is not None and meets.works and body.contact == "body")
    found = [Block(residual, (x, aim, before), 1.0, lifting if works else None)]
    if meets and at.skin is not None:
        found.append(_at_surface(flat, at.skin, at, meets))
    return found + _held(work, *seed)


def _aim(x: Tensor, before: Tensor, at: Instant, setup: Setup, force: Tensor) -> Tensor:
    """Where inertia and load alone would lead."""
    assert at.earlier is not None and setup.dt is not None
    return 2 * before - (x + vmap(at.earlier)(x)) + setup.dt**2 / setup.material.density * force


def _jet(field: FieldFunction, x: Tensor) -> tuple[Tensor, Tensor]:
    """phi = x + u(x) and F = d phi/dx at a point."""

    def place(x: Tensor) -> tuple[Tensor, Tensor]:
        value = x + field(x)
        return value, value

    gradient, value = jacfwd(place, has_aux=True)(x)
    return value, gradient


class _Contact:
    """The penalty of a point's penetration, as squares and, in the official form, work."""

    def __init__(self, body: Body) -> None:
        self.obstacles, self.stiffness = body.setup.obstacles, body.setup.stiffness
        self.works = body.form == "official"

    def rows(self, place: Tensor) -> Tensor:
        """Of all obstacles."""
        size = math.sqrt(self.stiffness if self.works else self.stiffness / 2)
        return size * torch.stack([penetration(place, obstacle)[0] for obstacle in self.obstacles])

    def work(self, place: Tensor, before: Tensor) -> Tensor:
        """See `blocks`."""
        total = place.new_zeros(())
        for obstacle in self.obstacles:
            depth, out = penetration(place, obstacle)
            total = total - self.stiffness * depth * (depth + (place - before) @ out)
        return total


def skin(work: Elastic, *seed: int) -> Tensor | None:
    """Points of the surface, if contact acts there."""
    if not work.body.setup.obstacles or work.body.contact != "surface":
        return None
    return work.points.on_walls(work.body.domain, work.flat.size, work.flat.theta, work.seed, *seed)[0]


def _at_surface(flat: Flat, x: Tensor, at: Instant, meets: _Contact) -> Block:
    with torch.no_grad():
        before = x + vmap(at.before)(x)

    def place(theta: Tensor, x: Tensor) -> Tensor:
        return x + flat.field(theta)(x)

    official = (lambda theta, point: meets.work(place(theta, point[0]), point[1])) if meets.works else None
    return Block(lambda theta, point: meets.rows(place(theta, point[0])), (x, before), 1.0, official)


def _held(work: Elastic, *seed: int) -> list[Block]:
    flat, setup = work.flat, work.body.setup
    count = work.points.walls or max((work.points.count or 4 * flat.size) // 10, 10)
    found = []
    for k, part in enumerate(work.body.held):
        x = part.draw(count, derive_seed(work.seed, *seed, _HELD, k)).to(flat.theta)
        found.append(
            Block(
                lambda theta, point: point[0] + flat.field(theta)(point[0]) - point[1],
                (x, vmap(part.target)(x)),
                setup.boundary,
            )
        )
    return found


def measured(work: Elastic, at: Instant, theta: Tensor) -> dict[str, float]:
    """Energies of the whole body at the end of a step, the largest depth of its surface, and where it is turned over.

    elastic, kinetic, potential (of the load that acts: -f . u), contact (the spring's); penetration; inverted: the
    share of the body with det F <= 0.
    """
    body, flat = work.body, work.flat
    setup, domain = body.setup, body.domain
    x = draw(domain, _BODY, "sobol", _MEASURE, flat.theta.device, flat.theta.dtype)
    force = x.new_tensor(force_at(at.number - 1, setup.loads, body.channels))
    with torch.no_grad():
        place, gradient = vmap(lambda point: _jet(flat.field(theta), point))(x)
        found: dict[str, Any] = {
            "elastic": potential(gradient, setup.material).mean() * domain.volume,
            "potential": -((place - x) @ force).mean() * domain.volume,
            "inverted": (determinant(gradient) <= 0).double().mean(),
        }
        if setup.dt is not None:
            speed = (place - x - vmap(at.before)(x)) / setup.dt
            found["kinetic"] = setup.material.density / 2 * speed.square().sum(-1).mean() * domain.volume
        if setup.obstacles:
            edge = domain.boundary(_SURFACE, _MEASURE, flat.theta.device, flat.theta.dtype).points
            edge = edge + vmap(flat.field(theta))(edge)
            touched = place if body.contact == "body" else edge
            found["contact"] = contact(touched, setup.obstacles, setup.stiffness).mean() * domain.volume
            found["penetration"] = _deepest(edge, setup.obstacles)
    return {name: float(value) for name, value in found.items()}


def _deepest(place: Tensor, obstacles: Sequence[Any]) -> Tensor:
    return torch.stack([penetration(place, obstacle)[0].amax() for obstacle in obstacles]).amax()
