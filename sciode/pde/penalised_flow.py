"""Incompressible flow around walls of any shape: a fluid that walls hold back by friction, in Fourier modes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from sciode.pde.semilinear import march

__all__ = ["FluidBox", "PenalisedFlow", "simulate_penalised_flow"]

Force = Callable[[Tensor], Tensor]
"""t (0-d) -> a force [B, 2, nx, ny], or what broadcasts to it."""


@final
@dataclass(frozen=True, eq=False)
class FluidBox:
    """A periodic box of fluid with walls in it.

    - `solid` [B, nx, ny], between 0 (fluid) and 1 (wall), first axis x: a smooth edge of two or three cells serves
      best. `sides`: lengths of the box. Its dtype and device are those of the computation.
    - `viscosity`: above 0. `porosity`: eta, the time in which walls stop a flow; walls leak by about
      sqrt(eta viscosity), and eta bounds the step: dt <= 2.7 eta.
    - `sponge` [nx, ny] and `inflow` [2, nx, ny] or [B, 2, nx, ny]: where and to what the flow is drawn, at a rate of
      `sponge` (1/time): an inlet that swallows what comes around the periodic box. None: no inlet.

    Raises ValueError for shapes and numbers that don't fit.
    """

    solid: Tensor
    viscosity: float
    porosity: float
    sides: tuple[float, float] = (1.0, 1.0)
    sponge: Tensor | None = None
    inflow: Tensor | None = None

    def __post_init__(self) -> None:
        shape = self.solid.shape
        if len(shape) != 3 or shape[1] % 2 or shape[2] % 2 or min(shape[1:]) < 8 or not self.solid.is_floating_point():
            raise ValueError(f"solid is real [B, nx, ny], nx and ny even and >= 8, got {tuple(shape)}")
        if not (self.viscosity > 0.0 and self.porosity > 0.0 and min(self.sides) > 0.0):
            raise ValueError(
                f"viscosity, porosity and sides must be positive, got {self.viscosity}, {self.porosity}, {self.sides}"
            )
        if (self.sponge is None) != (self.inflow is None):
            raise ValueError("a sponge draws the flow to an inflow: give both or neither")
        if self.sponge is not None and self.sponge.shape[-2:] != shape[1:]:
            raise ValueError(f"sponge is on another grid than solid: {tuple(self.sponge.shape)}, {tuple(shape)}")


class PenalisedFlow(NamedTuple):
    """`velocity` [T, B, 2, nx, ny] and `pressure` [T, B, nx, ny], of mean 0 over the box (density 1)."""

    velocity: Tensor
    pressure: Tensor


def simulate_penalised_flow(
    box: FluidBox,
    velocity: Tensor,
    ts: Sequence[float],
    *,
    dt: float,
    force: Force | None = None,
    capture: int = 0,
) -> PenalisedFlow:
    """Solve u_t = P(u x curl u - solid u / porosity + sponge (inflow - u) + force) + viscosity Lap u, div u = 0.

    P is the projection onto fields without divergence, exact in Fourier modes; products are taken on the grid, modes
    with wave numbers of a third of the points or more dropped, steps of the integrating-factor Runge-Kutta method
    (order 4). In walls the flow is nearly at rest: as porosity falls it tends to that between walls without slip.

    - `velocity` [B, 2, nx, ny]: at ts[0]; its divergence is taken out. The mean flow is an unknown like any other:
      a constant force pushes it, as a fall of pressure along a channel does.
    - `ts` [T]: increasing, the initial time first. `dt`: below 2.7 porosity and a Courant number of 1.
    - `force`: of time; a tensor that it makes has to be on the box's device. `capture`: see `march`.

    Returns velocity and pressure at ts; not finite where dt was too large. Raises ValueError for shapes that don't fit.
    Source: Angot, Bruneau & Fabrie (1999), Numer. Math. 81 (the penalisation and its errors); Kevlahan & Ghidaglia
    (2001), Eur. J. Mech. B 20 (in Fourier modes).
    """
    shape = (box.solid.shape[0], 2, *box.solid.shape[1:])
    if velocity.shape != shape:
        raise ValueError(f"velocity is [B, 2, nx, ny] on the grid of solid, {list(shape)}, got {list(velocity.shape)}")
    size = shape[2:]
    modes = _modes(box)
    friction, drawn = _resistance(box)

    def push(t: Tensor, hat: Tensor) -> tuple[Tensor, Tensor]:
        """(modes of all forces before the projection, the velocity)."""
        along, across = modes.slope
        curl = torch.fft.irfft2(along * hat[:, 1] - across * hat[:, 0], s=size)
        u = torch.fft.irfft2(hat, s=size)
        total = torch.stack((u[:, 1] * curl, -u[:, 0] * curl), 1) - friction * u + drawn
        if force is not None:
            total = total + force(t).to(total.dtype)
        return torch.fft.rfft2(total) * modes.kept, u

    def rate(t: Tensor, hat: Tensor) -> Tensor:
        return _project(push(t, hat)[0], modes)

    def pressure(t: float, hat: Tensor) -> Tensor:
        """Of the gradient that the projection takes out, without the half square that u x curl u leaves in it."""
        pushed, u = push(torch.full((), t, dtype=torch.float64, device=hat.device), hat)
        head = torch.fft.irfft2(_potential(pushed, modes), s=size) - 0.5 * u.square().sum(1)
        return head - head.mean((-2, -1), keepdim=True)

    start = _project(torch.fft.rfft2(velocity.to(box.solid)) * modes.kept, modes)
    velocities, pressures = [], []
    for t, hat in zip(ts, march(-box.viscosity * modes.square, rate, start, ts, dt, capture=capture), strict=True):
        velocities.append(torch.fft.irfft2(hat, s=size))
        pressures.append(pressure(t, hat))
    return PenalisedFlow(torch.stack(velocities), torch.stack(pressures))


def _resistance(box: FluidBox) -> tuple[Tensor, Tensor]:
    """(friction, drawn) of the force drawn - friction u by walls and sponge."""
    friction = (box.solid / box.porosity).unsqueeze(1)
    if box.sponge is None or box.inflow is None:
        return friction, torch.zeros_like(friction)
    sponge = box.sponge.to(friction)
    return friction + sponge, sponge * box.inflow.to(friction)


class _Modes(NamedTuple):
    """Of the half spectrum [nx, ny/2 + 1]: |k|^2, which are kept, i times the waves [2, ...], and 1/|k|^2 or 0."""

    square: Tensor
    kept: Tensor
    slope: Tensor
    inverse: Tensor


def _modes(box: FluidBox) -> _Modes:
    nx, ny = box.solid.shape[1:]
    whole = torch.meshgrid(
        torch.fft.fftfreq(nx, 1.0 / nx, dtype=torch.float64),
        torch.fft.rfftfreq(ny, 1.0 / ny, dtype=torch.float64),
        indexing="ij",
    )
    first, second = (2.0 * math.pi / side * waves for side, waves in zip(box.sides, whole, strict=True))
    square = first**2 + second**2
    kept = (whole[0].abs() < nx / 3) & (whole[1].abs() < ny / 3)
    inverse = torch.where(square > 0.0, 1.0 / square.clamp(min=1e-300), 0.0)
    slope = 1j * torch.stack((first, second)) * kept
    real, device = box.solid.dtype, box.solid.device
    return _Modes(
        square.to(device, real), kept.to(device, real), slope.to(device, real.to_complex()), inverse.to(device, real)
    )


def _potential(pushed: Tensor, modes: _Modes) -> Tensor:
    """Modes of the q with Lap q = div of a vector field's modes [B, 2, ...]."""
    return -modes.inverse * (modes.slope * pushed).sum(1)


def _project(pushed: Tensor, modes: _Modes) -> Tensor:
    return pushed - modes.slope * _potential(pushed, modes)[:, None]
