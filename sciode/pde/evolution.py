"""An evolution equation as data: the same lines serve a network's residual, a spectral solver and a grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from sciode.pde.operators import FieldFunction, expansion, jacobian
from sciode.solvers.suggest import choose

__all__ = ["Evolution"]

WALLS = ("periodic", "zero", "slip")


@dataclass(frozen=True, eq=False)
class Evolution:
    """u_t = diffusion Lap u + rate(u, grad u) on a box, with initial values, and the exact solution if there is one.

    - `name`; `lower`, `upper` [d]: the box. `channels`: c, the number of components of u.
    - `walls`: "periodic", "zero" (u = 0 on the boundary) or "slip" (the velocity's normal component is 0 there).
    - `initial`: the field function u(., 0). It takes any real dtype and computes in it.
    - `rate(u [..., c], slopes [..., c, d]) -> [..., c]`: the equation but for diffusion, with slopes du_i/dx_j; at one
      point, or at all points of a grid at once. None: 0.
    - `diffusion`: at least 0.
    - `incompressible`: div u = 0 holds besides, and a pressure sees to it: u_t = P(diffusion Lap u + rate), with P the
      projection onto fields without divergence that keep to the walls. `equation` leaves P to the solver.
    - `exact(x [d], t) -> u [c]`, or None. `end`: a horizon at which methods are usually compared.
    - `parameters`: the numbers that the functions above were made of, by name. `reference`: where it is from.

    The functions are called once, at the centre of the box in float64, when the problem is made: ValueError where
    shapes don't fit; an error of theirs comes as it is.
    """

    name: str
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    channels: int
    walls: Literal["periodic", "zero", "slip"]
    initial: FieldFunction
    rate: Callable[[Tensor, Tensor], Tensor] | None = None
    diffusion: float = 0.0
    incompressible: bool = False
    exact: Callable[[Tensor, Tensor | float], Tensor] | None = None
    end: float = 1.0
    parameters: Mapping[str, float] = field(default_factory=dict)
    reference: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lower", tuple(float(value) for value in self.lower))
        object.__setattr__(self, "upper", tuple(float(value) for value in self.upper))
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))
        choose("walls", self.walls, WALLS)
        if len(self.lower) != len(self.upper) or not self.lower:
            raise ValueError(f"lower and upper need one number an axis each, got {self.lower} and {self.upper}")
        if not all(low < high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError(f"lower must be below upper on every axis, got {self.lower} and {self.upper}")
        if not self.diffusion >= 0.0:
            raise ValueError(f"diffusion is {self.diffusion}; below 0 the problem is not well posed")
        if not self.end > 0.0:
            raise ValueError(f"end is {self.end}; it must be positive")
        if (self.incompressible or self.walls == "slip") and self.channels != self.dimension:
            raise ValueError(f"a velocity has {self.dimension} components here, got channels={self.channels}")
        self._try_out()

    @property
    def dimension(self) -> int:
        """d, the number of axes."""
        return len(self.lower)

    @property
    def periodic(self) -> bool:
        """Whether opposite sides of the box are one."""
        return self.walls == "periodic"

    def equation(self, u: FieldFunction) -> FieldFunction:
        """F(u) = diffusion Lap u + rate(u, grad u), from field function to field function; without the projection P."""

        def slope(x: Tensor) -> Tensor:
            if not self.diffusion:
                value = u(x)
                return torch.zeros_like(value) if self.rate is None else self.rate(value, jacobian(u)(x))
            value, slopes, bend = expansion(u)(x)
            spread = self.diffusion * bend
            return spread if self.rate is None else spread + self.rate(value, slopes)

        return slope

    def _try_out(self) -> None:
        centre = (torch.tensor(self.lower, dtype=torch.float64) + torch.tensor(self.upper, dtype=torch.float64)) / 2.0
        tried = {"initial": self.initial(centre), "rate": self.equation(self.initial)(centre)}
        if self.exact is not None:
            tried["exact"] = self.exact(centre, 0.0)
        for what, value in tried.items():
            if value.shape != (self.channels,):
                raise ValueError(f"{what} gives {tuple(value.shape)} at a point, expected ({self.channels},)")
