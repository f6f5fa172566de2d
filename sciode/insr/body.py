"""An elastic problem as data: what a solid fills, what it is made of, what holds it, moves it and stands in its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from sciode.pde import Domain, FieldFunction, Setup
from sciode.pde.elastic import Form, force_at
from sciode.solvers.suggest import choose

__all__ = ["Body", "Held"]


@final
@dataclass(frozen=True, eq=False)
class Held:
    """A part of a body whose place is told, by the weight `Setup.boundary`.

    draw(n, seed) -> n points of that part [n, d], e.g. `lambda n, seed: box.face(0, 1, n, seed).points`. target: the
    field function x [d] -> phi(x) [d], where they shall be.
    """

    draw: Callable[[int, int], Tensor]
    target: FieldFunction


@final
@dataclass(frozen=True, eq=False)
class Body:
    """An elastic solid, for `deform`: it fills `domain` at rest and is at phi(x) = x + u(x).

        square = Box((-1.0, -1.0), (1.0, 1.0))
        Body(Setup(Material(20.0, 100.0), 2, dt=0.05, steps=20, loads=(Load((0.0, -9.8)),),
                   obstacles=(Plane((0.0, 1.0), -1.5),), stiffness=1e4), square)

    - `setup`: material, step, loads, obstacles, and the weights of contact and of what is held: a `sciode.pde.Setup`,
      as in `sciode.pde.PRESETS`. dt=None: no inertia, `steps` equilibria one after another.
    - `domain`: any of 2 or 3 dimensions; `Shape.domain()` of `sciode.pde.SHAPES`.
    - `held`: parts held by weight. Where a field can be made to hold them exactly (`sciode.nn.HardBoundary`), do that.
    - `displacement`, `velocity`: field functions x [d] -> [d] at the start; None = 0. With a hard field and no inertia
      give a displacement that the field can have, as the uniform stretch.
    - `form`: of the incremental potential, see `sciode.pde.incremental_potential`; what differs is the contact.
    - `contact`: "body", the penalty's mean over all points of the body, as finite elements here have it; "surface", its
      mean over points of the surface.

    Raises ValueError for dimensions that differ, parts held with no weight, a velocity without inertia.
    """

    setup: Setup
    domain: Domain
    held: tuple[Held, ...] = ()
    displacement: FieldFunction | None = None
    velocity: FieldFunction | None = None
    form: Form = "textbook"
    contact: Literal["body", "surface"] = "body"
    name: str = "body"

    def __post_init__(self) -> None:
        object.__setattr__(self, "held", tuple(self.held))
        choose("form", self.form, ("textbook", "official"))
        choose("contact", self.contact, ("body", "surface"))
        setup, d = self.setup, self.domain.dimension
        if d not in (2, 3) or setup.dimension != d:
            raise ValueError(f"a body has 2 or 3 dimensions, and its setup as many; got {d} and {setup.dimension}")
        if setup.steps < 1 or (setup.dt is not None and not setup.dt > 0):
            raise ValueError(f"setup: at least one step, of dt > 0 or None, got {setup.steps} of {setup.dt}")
        if bool(self.held) != (setup.boundary > 0):
            raise ValueError(
                f"held: {len(self.held)} parts by the weight Setup.boundary = {setup.boundary:g}: give both"
            )
        if setup.obstacles and not setup.stiffness > 0:
            raise ValueError(f"setup: obstacles act by their stiffness, got {setup.stiffness}")
        if self.velocity is not None and setup.dt is None:
            raise ValueError("velocity: a body with dt=None has no inertia")
        force_at(0, setup.loads, d)
        centre = (torch.tensor(self.domain.hull.low) + torch.tensor(self.domain.hull.high)).double() / 2
        told = {"displacement": self.displacement, "velocity": self.velocity}
        told |= {f"target {k} of held": part.target for k, part in enumerate(self.held)}
        for what, function in told.items():
            if function is not None and tuple(function(centre).shape) != (d,):
                raise ValueError(f"{what} gives {tuple(function(centre).shape)} at a point, expected ({d},)")

    @property
    def channels(self) -> int:
        """d, the components of a displacement."""
        return self.domain.dimension

    @property
    def times(self) -> list[float]:
        """The ends of all steps; without inertia, their numbers."""
        dt = 1.0 if self.setup.dt is None else self.setup.dt
        return [k * dt for k in range(self.setup.steps + 1)]
