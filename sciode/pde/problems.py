"""Evolution problems by name: advection, heat, Allen-Cahn, Burgers, and vortices of an incompressible fluid."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sciode.pde.evolution import Evolution
from sciode.pde.operators import FieldFunction
from sciode.solvers.suggest import choose

__all__ = ["PROBLEMS", "advection", "allen_cahn", "burgers", "heat", "problem_of", "taylor_green", "two_scale"]

_INSR = "Chen, Wu, Grinspun, Zheng & Chen: Implicit Neural Spatial Representations for Time-dependent PDEs (ICML 2023)"
_OWN = "initial data of sciode's own: a seeded sum of low modes"


def advection(speed: float = 0.25, start: float = -1.5, width: float = 0.1) -> Evolution:
    """u_t = -speed u_x on [-2, 2], u = 0 at both walls, from a Gaussian exp(-(x - start)^2 / (2 width^2)).

    Exact: the Gaussian moved by speed t, while it is away from the walls. At the start it is 5 widths away, so u there
    is exp(-12.5) = 3.7e-6 and not 0: no solution that keeps to the walls is nearer to it than that.
    """
    _positive(width=width)

    def exact(x: Tensor, t: Tensor | float) -> Tensor:
        return torch.exp(-((x - start - speed * t) ** 2) / (2.0 * width**2))

    return Evolution(
        name="advection",
        lower=(-2.0,),
        upper=(2.0,),
        channels=1,
        walls="zero",
        initial=lambda x: exact(x, 0.0),
        rate=lambda u, slopes: -speed * slopes[..., 0],
        exact=exact,
        end=12.0,
        parameters={"speed": speed, "start": start, "width": width},
        reference=_INSR,
    )


def heat(diffusion: float = 0.1, seed: int = 0, highest: int = 3) -> Evolution:
    """u_t = diffusion Lap u on [0, 2 pi]^2, periodic, from low modes of root mean square 1; each decays on its own."""
    modes = low_modes(seed, highest, channels=1)
    parameters = {"seed": seed, "highest": highest}
    return _from_modes("heat", modes, diffusion, parameters, exact=lambda x, t: modes.decayed(x, diffusion * t))


def allen_cahn(diffusion: float = 0.05, seed: int = 0, highest: int = 3) -> Evolution:
    """u_t = diffusion Lap u + u - u^3 on [0, 2 pi]^2, periodic: phases u = -1 and 1, walls of width sqrt(diffusion)."""
    modes = low_modes(seed, highest, channels=1, size=0.5)
    parameters = {"seed": seed, "highest": highest}
    source = f"Allen & Cahn (1979), Acta Metallurgica 27; {_OWN}"
    return _from_modes("allencahn", modes, diffusion, parameters, rate=lambda u, slopes: u - u**3, reference=source)


def burgers(diffusion: float = 0.1, seed: int = 0, highest: int = 2) -> Evolution:
    """u_t = diffusion Lap u - (u . grad) u for a velocity on [0, 2 pi]^2, periodic, from low modes: fronts form."""
    modes = low_modes(seed, highest, channels=2, size=0.5)
    parameters = {"seed": seed, "highest": highest}
    source = f"Bateman (1915), Monthly Weather Review 43; {_OWN}"
    return _from_modes("burgers", modes, diffusion, parameters, rate=_carried, end=2.0, reference=source)


def taylor_green() -> Evolution:
    """Incompressible Euler on [-1, 1]^2, free slip: four vortices, u = (sin X cos Y, -cos X sin Y)/pi, X = (x+1) pi.

    A steady exact solution (its pressure balances): whatever a solver changes is its error, and whatever kinetic
    energy it loses from 1/pi^2 is numerical dissipation.
    """

    def velocity(x: Tensor) -> Tensor:
        return _vortex((x + 1.0) * math.pi)

    return _fluid("taylorgreen", velocity, {}, exact=lambda x, t: velocity(x))


def two_scale(ratio: float = 0.25) -> Evolution:
    """Incompressible Euler on [-1, 1]^2 with free slip: one vortex on [-1, 0]^2, one of `ratio` its size in (1, 1).

    The small one fills [1 - ratio, 1]^2 at the same speed. Outside its square each fades to 0 linearly, along both
    axes, over 0.05 of the square's side. There the divergence is not 0 at the start: the first projection removes it.

    ratio: from 0 to 1, both excluded; 1/4 is the paper's.
    """
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"ratio is {ratio}; it must lie between 0 and 1")

    def velocity(x: Tensor) -> Tensor:
        return _faded(x, -1.0, 1.0) + _faded(x, 1.0 - ratio, ratio)

    return _fluid("twoscale", velocity, {"ratio": ratio})


PROBLEMS: dict[str, Callable[..., Evolution]] = {
    "advection": advection,
    "heat": heat,
    "allencahn": allen_cahn,
    "burgers": burgers,
    "taylorgreen": taylor_green,
    "twoscale": two_scale,
}


def problem_of(name: str, **parameters: float) -> Evolution:
    """The problem of this name with its parameters, as in `problem_of("heat", diffusion=0.2)`.

    Raises ValueError for a name or a parameter that does not exist, with a suggestion.
    """
    maker = PROBLEMS[choose("problem", name, PROBLEMS)]
    for given in parameters:
        choose(f"{name}'s parameter", given, inspect.signature(maker).parameters)
    return maker(**parameters)


class Modes(NamedTuple):
    """A zero-mean periodic field: waves [m, d], and the coefficients of their cosines and sines, each [m, c]."""

    waves: Tensor
    cosines: Tensor
    sines: Tensor

    def field(self, x: Tensor) -> Tensor:
        """sum_m cosines_m cos(k_m . x) + sines_m sin(k_m . x), [d] -> [c]."""
        return self.decayed(x, 0.0)

    def decayed(self, x: Tensor, time: Tensor | float) -> Tensor:
        """The same after u_t = Lap u for a time: each term times exp(-|k|^2 time)."""
        waves, cosines, sines = (part.to(dtype=x.dtype, device=x.device) for part in self)
        decay = torch.exp(-(waves**2).sum(-1, keepdim=True) * time)
        phase = waves @ x
        return phase.cos() @ (decay * cosines) + phase.sin() @ (decay * sines)


def low_modes(seed: int, highest: int, channels: int, size: float = 1.0) -> Modes:
    """All waves in 2-D with components up to `highest`, coefficients N(0, 1)/(1 + |k|^2), root mean square `size`.

    The draw is a function of the seed alone; each component of the field has the size.
    """
    if highest < 1:
        raise ValueError(f"highest is {highest}; a sum of modes needs 1 at least")
    span = range(-highest, highest + 1)
    # Of k and -k, which are one wave, the first.
    waves = np.array([(k, m) for k in span for m in span if k > 0 or (k == 0 and m > 0)], dtype=float)
    drawn = np.random.default_rng(seed).normal(size=(2, len(waves), channels))
    drawn /= 1.0 + (waves**2).sum(-1)[:, None]
    drawn *= size / np.sqrt((drawn**2).sum((0, 1)) / 2.0)
    return Modes(*(torch.from_numpy(part) for part in (waves, drawn[0], drawn[1])))


def _from_modes(
    name: str,
    modes: Modes,
    diffusion: float,
    parameters: Mapping[str, float],
    rate: Callable[[Tensor, Tensor], Tensor] | None = None,
    exact: Callable[[Tensor, Tensor | float], Tensor] | None = None,
    end: float = 4.0,
    reference: str = _OWN,
) -> Evolution:
    """A problem on [0, 2 pi]^2, periodic, that starts from low modes and diffuses."""
    _positive(diffusion=diffusion)
    return Evolution(
        name=name,
        lower=(0.0, 0.0),
        upper=(2.0 * math.pi, 2.0 * math.pi),
        channels=modes.cosines.shape[-1],
        walls="periodic",
        initial=modes.field,
        rate=rate,
        diffusion=diffusion,
        exact=exact,
        end=end,
        parameters={"diffusion": diffusion, **parameters},
        reference=reference,
    )


def _carried(u: Tensor, slopes: Tensor) -> Tensor:
    """-(u . grad) u."""
    return -(slopes @ u[..., None])[..., 0]


def _fluid(
    name: str,
    velocity: FieldFunction,
    parameters: dict[str, float],
    exact: Callable[[Tensor, Tensor | float], Tensor] | None = None,
) -> Evolution:
    return Evolution(
        name=name,
        lower=(-1.0, -1.0),
        upper=(1.0, 1.0),
        channels=2,
        walls="slip",
        initial=velocity,
        rate=_carried,
        incompressible=True,
        exact=exact,
        end=5.0,
        parameters=parameters,
        reference=_INSR,
    )


def _vortex(angles: Tensor) -> Tensor:
    sine, cosine = angles.sin(), angles.cos()
    return torch.stack((sine[0] * cosine[1], -cosine[0] * sine[1])) / math.pi


def _faded(x: Tensor, lower: float, side: float) -> Tensor:
    """One vortex on the square [lower, lower + side]^2, continued by its boundary values times linear ramps."""
    nearest = x.clamp(lower, lower + side)
    ramps = (1.0 - (x - nearest).abs() / (0.05 * side)).clamp(min=0.0)
    return _vortex((nearest - lower) / side * math.pi) * ramps.prod()


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name} is {value}; it must be positive")
