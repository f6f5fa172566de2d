"""Elastic solids: stored energies, contact, loads, and the incremental potential of one implicit Euler step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, final

import torch
from torch import Tensor

from sciode.pde.strain import arap, determinant, rotation

__all__ = [
    "PRESETS",
    "Form",
    "Load",
    "Material",
    "NeoHookean",
    "Plane",
    "Setup",
    "Solid",
    "Sphere",
    "contact",
    "force_at",
    "incremental_potential",
    "misfits",
    "penetration",
    "potential",
    "squares",
    "surplus",
]


def _demand_weights(density: float, **weights: float) -> None:
    for name, weight in weights.items():
        if not weight >= 0:
            raise ValueError(f"{name} must be >= 0, got {weight}")
    if not density > 0:
        raise ValueError(f"density must be > 0, got {density}")


@final
@dataclass(frozen=True)
class Material:
    """W(F) = arap sum (sigma_i - 1)^2 + volume (det F - 1)^2, energies per unit of reference volume.

    density: mass per unit of reference volume. A small strain e costs arap |e|^2 + volume (tr e)^2: Lame's
    constants are mu = arap and lambda = 2 volume. volume / arap = 1000 is nearly incompressible: linear finite
    elements lock. Raises ValueError for a negative weight or a density that is not positive.
    """

    arap: float
    volume: float
    density: float = 1.0

    def __post_init__(self) -> None:
        _demand_weights(self.density, arap=self.arap, volume=self.volume)


@final
@dataclass(frozen=True)
class NeoHookean:
    """W(F) = mu/2 (|F|^2 - d) - mu (det F - 1) + (lambda + mu)/2 (det F - 1)^2, per unit of reference volume.

    shear: mu; lame: lambda, the constants of linear elasticity that small strains see; density: mass per unit of
    reference volume. Unlike the form with log(det F) it is finite for every F, inverted ones too, which a search for a
    minimum from afar needs. Raises ValueError for a negative constant or a density that is not positive.
    Source: Smith, de Goes, Kim: Stable neo-Hookean flesh simulation (2018).
    """

    shear: float
    lame: float
    density: float = 1.0

    def __post_init__(self) -> None:
        _demand_weights(self.density, shear=self.shear, lame=self.lame)


Solid = Material | NeoHookean
Form = Literal["textbook", "official"]


def potential(gradient: Tensor, material: Solid) -> Tensor:
    """Return the stored energy W(F) per unit of reference volume, [..., d, d] -> [...]; 0 with no stress at F = 1."""
    change = determinant(gradient) - 1
    if isinstance(material, Material):
        return material.arap * arap(gradient) + material.volume * change**2
    if isinstance(material, NeoHookean):
        mu = material.shear
        stretch = gradient.square().sum((-2, -1)) - gradient.shape[-1]
        return mu / 2 * stretch - mu * change + (material.lame + mu) / 2 * change**2
    raise ValueError(f"material: expected Material or NeoHookean, got {type(material).__name__}")


def misfits(gradient: Tensor, material: Material) -> Tensor:
    """Return r with |r|^2 = W(F), for Gauss-Newton: (sqrt(arap) (F - R), sqrt(volume) (det F - 1)), [..., d d + 1].

    R is the nearest rotation; away from its kinks (see `stretch_sum`) r is smooth.
    """
    shape = (gradient - rotation(gradient)).flatten(-2)
    change = determinant(gradient).unsqueeze(-1) - 1
    return torch.cat((material.arap**0.5 * shape, material.volume**0.5 * change), -1)


def squares(gradient: Tensor, material: Solid) -> Tensor:
    """Return r with |r|^2 = W(F) + `surplus`, for Gauss-Newton, [..., d d + 1].

    `misfits` of a `Material`. A `NeoHookean` solid's square is completed: with k = (lambda + mu) / 2,
    W = |sqrt(mu/2) F|^2 + k (det F - 1 - mu / (2 k))^2 - mu d / 2 - mu^2 / (4 k).
    """
    if isinstance(material, Material):
        return misfits(gradient, material)
    mu, k = material.shear, (material.lame + material.shear) / 2
    change = determinant(gradient).unsqueeze(-1) - 1 - (mu / (2 * k) if k else 0.0)
    return torch.cat(((mu / 2) ** 0.5 * gradient.flatten(-2), k**0.5 * change), -1)


def surplus(material: Solid, dimension: int) -> float:
    """Return |r|^2 - W(F) of `squares`, a constant: 0 for a `Material`."""
    if isinstance(material, Material):
        return 0.0
    mu, twice = material.shear, material.lame + material.shear
    return mu * dimension / 2 + (mu**2 / (2 * twice) if twice else 0.0)


@final
@dataclass(frozen=True)
class Plane:
    """The obstacle of all points with normal . x < offset. normal: any length but 0, pointing out of the obstacle."""

    normal: tuple[float, ...]
    offset: float

    def __post_init__(self) -> None:
        if not any(self.normal):
            raise ValueError("normal of a plane: all its components are 0")


@final
@dataclass(frozen=True)
class Sphere:
    """The obstacle of all points nearer to `centre` than `radius`; a circle in the plane."""

    centre: tuple[float, ...]
    radius: float

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ValueError(f"radius of a sphere must be > 0, got {self.radius}")


def penetration(place: Tensor, obstacle: Plane | Sphere) -> tuple[Tensor, Tensor]:
    """Return (depth, way out) of points [..., d]: depth [...] is 0 outside, the way out [..., d] a unit vector.

    The depth below a plane, or R - |x - c| in a sphere, whose centre has no way out: there the vector is 0.
    """
    if isinstance(obstacle, Plane):
        normal = place.new_tensor(obstacle.normal)
        length = normal.norm()
        # The offset is that of the normal as it was given.
        depth = (obstacle.offset - place @ normal) / length
        return depth.clamp(min=0), (normal / length).expand_as(place)
    arm = place - place.new_tensor(obstacle.centre)
    square = arm.square().sum(-1, keepdim=True)
    apart = square > 0
    distance = torch.where(apart, torch.where(apart, square, 1).sqrt(), 0)
    out = torch.where(apart, arm / torch.where(apart, distance, 1), 0)
    return (obstacle.radius - distance.squeeze(-1)).clamp(min=0), out


def contact(
    place: Tensor, obstacles: Sequence[Plane | Sphere], stiffness: float, before: Tensor | None = None
) -> Tensor:
    """Return the energy of penetration per unit of reference volume, [..., d] -> [...]; 0 outside all obstacles.

    stiffness/2 depth^2 an obstacle: a spring, whose force starts from 0 at the surface. With `before`, the position a
    step ago, the official form instead: -stiffness (place - before) . (depth way out), which works against motion
    inwards, jumps at the surface, and lets a point that was inside stay about half as deep.
    """
    total = place.new_zeros(place.shape[:-1])
    for obstacle in obstacles:
        depth, out = penetration(place, obstacle)
        if before is None:
            total = total + stiffness / 2 * depth**2
        else:
            total = total - stiffness * depth * ((place - before) * out).sum(-1)
    return total


@final
@dataclass(frozen=True)
class Load:
    """A force per unit of reference volume, [d], that acts in the first `steps` steps; None (default): in all."""

    force: tuple[float, ...]
    steps: int | None = None


def force_at(step: int, loads: Sequence[Load], dimension: int) -> tuple[float, ...]:
    """Return the sum of the loads that act in step 0, 1, ..., a force of `dimension` components (0 without loads)."""
    acting = [load.force for load in loads if load.steps is None or step < load.steps]
    if any(len(force) != dimension for force in acting):
        raise ValueError(f"loads: a force in {dimension} dimensions has {dimension} components, got {acting}")
    return tuple(sum(force[axis] for force in acting) for axis in range(dimension))


def incremental_potential(
    place: Tensor,
    gradient: Tensor,
    material: Solid,
    *,
    dt: float | None = None,
    before: Tensor | None = None,
    earlier: Tensor | None = None,
    force: Tensor | None = None,
    obstacles: Sequence[Plane | Sphere] = (),
    stiffness: float = 0.0,
    form: Form = "textbook",
) -> Tensor:
    """Return the density, per unit of reference volume, whose integral one step of implicit Euler minimises.

    rho |phi - 2 phi_n + phi_(n-1)|^2 / (2 dt^2) + W(F) - f . phi + contact, [...]; its minimum obeys
    rho (phi - 2 phi_n + phi_(n-1)) / dt^2 = div dW/dF + f.

    place, before, earlier: phi, phi_n and phi_(n-1) at the same material points, [..., d]; gradient: F = d phi/dx,
    [..., d, d]. Without `dt` (None) the step is quasi-static: no inertia. force: f, [d] or [..., d]. stiffness: of the
    contact, see `contact`; 1e2 to 1e4 times the load.
    form="official" is w_k |v - v_n|^2 + W - dt v . f + contact with v = (phi - phi_n)/dt and w_k = rho / 2, as the
    authors' code weights it. Written out, its dt cancels: its inertia is the textbook's with rho = 2 w_k and its force
    differs by f . phi_n, which moves no minimum. What differs is the contact alone.
    Raises ValueError if `dt` comes without `before` and `earlier`, or the official form without `before` meets
    obstacles or a force.
    Source: Martin, Thomaszewski, Grinspun, Gross: Example-based elastic materials (2011) for incremental potentials.
    """
    if form not in ("textbook", "official"):
        raise ValueError(f'form: expected "textbook" or "official", got {form!r}')
    if dt is not None and (before is None or earlier is None or not dt > 0):
        raise ValueError(f"dt={dt}: a dynamic step needs dt > 0, before= and earlier=; dt=None is quasi-static")
    official = form == "official"
    if official and before is None and (obstacles or force is not None):
        raise ValueError("the official form measures contact and force by the motion of the step: pass before=")
    total = potential(gradient, material)
    if dt is not None and before is not None and earlier is not None:
        total = total + material.density / (2 * dt**2) * (place - 2 * before + earlier).square().sum(-1)
    if force is not None:
        moved = place - before if official and before is not None else place
        total = total - (moved * force).sum(-1)
    return total + contact(place, obstacles, stiffness, before if official else None)


@final
@dataclass(frozen=True)
class Setup:
    """What an experiment of the authors' weights is made of; see `PRESETS`.

    boundary: weight of |phi(x_b) - target|^2 on held faces; stiffness: the contact's; dt None: one quasi-static step.
    """

    material: Solid
    dimension: int
    dt: float | None = None
    steps: int = 1
    loads: tuple[Load, ...] = ()
    obstacles: tuple[Plane | Sphere, ...] = ()
    boundary: float = 0.0
    stiffness: float = 0.0


_FLOOR = Plane((0.0, 0.0, 1.0), -2.0)

PRESETS: Mapping[str, Setup] = MappingProxyType(
    {
        "stretch": Setup(Material(1.0, 1e3), 2, boundary=1e4),
        "collide": Setup(
            Material(20.0, 1e3, density=20.0),
            2,
            dt=0.1,
            steps=20,
            loads=(Load((0.0, -200.0), 2),),
            obstacles=(Sphere((0.0, -2.0), 1.0),),
            stiffness=1e4,
        ),
        "bunny": Setup(
            Material(100.0, 1e3, density=2.0),
            3,
            dt=0.1,
            steps=20,
            loads=(Load((0.0, 0.0, -100.0), 5),),
            obstacles=(_FLOOR,),
            stiffness=1e6,
        ),
        "lucy": Setup(
            Material(1e3, 1e3, density=2.0),
            3,
            dt=0.1,
            steps=20,
            loads=(Load((0.0, 0.0, -20.0), 10),),
            obstacles=(_FLOOR,),
            stiffness=1e6,
        ),
    }
)
"""The weights of the authors' public code (Chen, Wu, Grinspun, Zheng, Chen, 2023) in this file's terms.

Densities are 2 w_k. "bunny" serves their "spot" too. "stretch": the left face of [-1, 1]^2 is held, the right one moved
by +2 along x; it has no inertia.
"""
