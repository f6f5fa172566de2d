"""Initial value problems whose solutions are known in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciode.solvers import SDETerm
from sciode.solvers.methods import stepper_of
from sciode.solvers.steppers import SDEStepper

__all__ = ["EXPONENTIAL", "FORCED", "HOPF", "LOGISTIC", "PROBLEMS", "ROTATION", "ODEProblem", "noisy"]


@dataclass(frozen=True, eq=False)
class ODEProblem:
    """dy/dt = field(t, y) from y0 [B, D] at t0 to t1, and its solution exact(t, y0).

    `exact(t, y0)` takes t as a float64 tensor that broadcasts against y0 ([], [B, 1] or [T, 1, 1]) and a start at t0,
    and returns the state there. States and times are float64 (complex128 for ROTATION); the samples start differently,
    so that no error cancels in all of them. Units: none.
    """

    name: str
    field: Callable[[Tensor, Tensor], Tensor]
    exact: Callable[[Tensor, Tensor], Tensor]
    starts: tuple[tuple[complex, ...], ...]
    t0: float
    t1: float
    dtype: torch.dtype = torch.float64

    @property
    def y0(self) -> Tensor:
        """The starts as a tensor [B, D]."""
        return torch.tensor(self.starts, dtype=self.dtype)

    def at(self, t: Tensor | Sequence[float] | float) -> Tensor:
        """The exact states at t (a number or [T]): [B, D] or [T, B, D]."""
        times = torch.as_tensor(t, dtype=torch.float64)
        return self.exact(times.reshape(-1, 1, 1) if times.ndim else times, self.y0)


def _decay(t: Tensor, y: Tensor) -> Tensor:
    return -y


def _decayed(t: Tensor, y0: Tensor) -> Tensor:
    return y0 * torch.exp(-t)


def _logistic(t: Tensor, y: Tensor) -> Tensor:
    return y * (1 - y)


def _logistic_exact(t: Tensor, y0: Tensor) -> Tensor:
    return y0 / (y0 + (1 - y0) * torch.exp(-t))


def _forced(t: Tensor, y: Tensor) -> Tensor:
    return y * torch.cos(t)


def _forced_exact(t: Tensor, y0: Tensor) -> Tensor:
    return y0 * torch.exp(torch.sin(t))


def _rotation(t: Tensor, y: Tensor) -> Tensor:
    return 1j * y


def _turned(t: Tensor, y0: Tensor) -> Tensor:
    return y0 * torch.exp(1j * t)


def _hopf(t: Tensor, y: Tensor) -> Tensor:
    u, v = y[..., :1], y[..., 1:]
    square = u * u + v * v
    grow, turn = 1 - square, square + torch.cos(t)
    return torch.cat((grow * u - turn * v, grow * v + turn * u), dim=-1)


def _hopf_exact(t: Tensor, y0: Tensor) -> Tensor:
    u, v = y0[..., :1], y0[..., 1:]
    excess = 1 / (u * u + v * v) - 1
    stretch = torch.exp(t) * torch.sqrt((1 + excess) / (torch.exp(2 * t) + excess))
    angle = 0.5 * torch.log((torch.exp(2 * t) + excess) / (1 + excess)) + torch.sin(t)
    c, s = torch.cos(angle), torch.sin(angle)
    return stretch * torch.cat((c * u - s * v, s * u + c * v), dim=-1)


EXPONENTIAL = ODEProblem("exponential", _decay, _decayed, ((1.0,), (-0.5,), (2.0,)), 0.0, 1.0)
"""y' = -y, y = y0 exp(-t): linear, autonomous."""

FORCED = ODEProblem("forced", _forced, _forced_exact, ((1.0,), (-0.5,), (2.0,)), 0.0, 2.0)
"""y' = y cos t, y = y0 exp(sin t): linear, with explicit time."""

LOGISTIC = ODEProblem("logistic", _logistic, _logistic_exact, ((0.1,), (0.5,), (1.6,)), 0.0, 2.0)
"""y' = y (1 - y), y = y0 / (y0 + (1 - y0) exp(-t)): nonlinear, one component."""

ROTATION = ODEProblem("rotation", _rotation, _turned, ((1 + 0j,), (0.5j,), (1 - 1j,)), 0.0, 2.0, torch.complex128)
"""y' = i y, y = y0 exp(i t): complex."""

HOPF = ODEProblem("hopf", _hopf, _hopf_exact, ((0.5, 0.0), (0.0, 1.3), (-0.4, 0.6), (0.8, -0.7)), 0.0, 1.0)
"""r' = r (1 - r^2), angle' = r^2 + cos t in Cartesian components: nonlinear, coupled, with explicit time.

r^2 = e^2t / (e^2t + C) with C = 1 / r0^2 - 1, angle = angle0 + log((e^2t + C) / (1 + C)) / 2 + sin t. Every order
condition counts on it: scalar, linear or autonomous problems let some wrong tables pass. Source: the normal form of the
Hopf bifurcation, Guckenheimer, Holmes: Nonlinear Oscillations (1983), section 3.4, with a forced phase.
"""

PROBLEMS = (EXPONENTIAL, FORCED, LOGISTIC, ROTATION, HOPF)
"""All of them."""


def noisy(method: str, drift: Callable[[Tensor, Tensor], Tensor], noise: str = "diagonal") -> SDETerm:
    """dy = drift dt + g dW that an SDE method can solve: with this noise, else with scalar or additive noise.

    g = 0.3 cos(y + i) for motion i of one (scalar) or two (general), cos(y) for diagonal noise, and 0.3, 0.6 for
    additive noise. The calculus is Stratonovich where the method knows both.
    """
    stepper = stepper_of(method, "sde", method)
    assert isinstance(stepper, SDEStepper)
    kind = next(n for n in (noise, "scalar", "additive") if n in stepper.noises)
    channels = {"diagonal": 0, "scalar": 1}.get(kind, 2)

    def diffusion(t: Tensor, y: Tensor) -> Tensor:
        if kind == "additive":
            return torch.stack([0.3 * torch.ones_like(y), 0.6 * torch.ones_like(y)], -1)
        if kind == "diagonal":
            return 0.3 * torch.cos(y)
        return 0.3 * torch.stack([torch.cos(y + i) for i in range(channels)], -1)

    return SDETerm(drift, diffusion, noise=kind, calculus=stepper.calculi[-1])  # type: ignore[arg-type]
