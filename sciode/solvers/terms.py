"""What is solved: right-hand sides as users write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .interpolants import ControlPath
from .suggest import choose

__all__ = ["NOISES", "CDETerm", "Calculus", "Noise", "ODETerm", "SDETerm", "as_term"]

Noise = Literal["diagonal", "additive", "scalar", "general"]
Calculus = Literal["ito", "stratonovich"]

NOISES = ("diagonal", "additive", "scalar", "general")
CALCULI = ("ito", "stratonovich")


@dataclass(frozen=True, eq=False)
class ODETerm:
    """dy/dt = f(t, y), or f(t, y, args) if `solve` is given args.

    f returns what y is: the same nesting, shapes, dtype and device. Without `method=` an ODE is solved by tsit5.
    """

    field: Callable[..., Any]

    def __post_init__(self) -> None:
        if not callable(self.field):
            raise ValueError(f"field: expected a callable f(t, y), got {type(self.field).__name__}")


@dataclass(frozen=True, eq=False)
class SDETerm:
    """dy = f(t, y) dt + g(t, y) dW, in the Ito or the Stratonovich sense.

    Arguments:
        drift: f(t, y[, args]) -> [*batch, *state], like an ODE's field.
        diffusion: g(t, y[, args]) -> the state's shape if `noise="diagonal"` (component i feels W_i alone, and g_i
            should depend on y_i alone if a method of order above 1/2 is to keep its order), else [*batch, *state, m]
            for m Brownian motions.
        noise: "diagonal"; "additive" (g does not depend on y); "scalar" (m = 1); "general".
        calculus: "ito" (method None = euler, which needs dt) or "stratonovich" (method None = heun).
        prior_drift: h(t, y[, args]), shaped like f, of a prior dy = h dt + g dW with the same diagonal diffusion:
            `Solution.penalties["kl"]` is then the divergence in nats of a path from it, whose mean over paths is that
            of the laws (see `sciode.solvers.regularizers.Divergence`), differentiable but under adjoint="backsolve".
        one_clock: f and g take one 0-d time for the whole batch, torchsde's convention; ts must then be shared, and
            adaptive steps too (`coupled=True`).

    Adaptive steps: "sriw1" or "sosri" (Ito, diagonal and scalar noise), "spark" or "heun" (Stratonovich), "shark" or
    "sra1" (additive); good tolerances: 1e-1 to 1e-4.

    Source: Kloeden, Platen: Numerical Solution of Stochastic Differential Equations (1992), chapters 4 and 10.
    """

    drift: Callable[..., Any]
    diffusion: Callable[..., Any]
    noise: Noise = "diagonal"
    calculus: Calculus = "ito"
    one_clock: bool = False
    prior_drift: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        for name in ("drift", "diffusion"):
            if not callable(getattr(self, name)):
                raise ValueError(f"{name}: expected a callable, got {type(getattr(self, name)).__name__}")
        choose("noise", self.noise, NOISES)
        choose("calculus", self.calculus, CALCULI)
        if self.prior_drift is not None and not callable(self.prior_drift):
            raise ValueError(f"prior_drift: expected a callable, got {type(self.prior_drift).__name__}")
        if self.prior_drift is not None and self.noise != "diagonal":
            raise ValueError(
                f"prior_drift: the divergence divides by a diagonal diffusion, the noise is {self.noise!r}; write the "
                "steering u with drift h + g u instead, and |u|^2 / 2 as one more component of the state"
            )


@dataclass(frozen=True, eq=False)
class CDETerm:
    """dz = f(t, z) dX(t): a controlled differential equation, solved as the ODE dz/dt = f(t, z) dX/dt.

    Arguments:
        f: f(t, z[, args]) -> [*batch, *state, C], a column for every channel of the control; the state is one tensor.
        path: X, e.g. a `HermitePath` [B, C] with one path a sample (one at all, without a batch). Time is a channel
            only if it is put there. A path made of tensors that require grad needs adjoint="direct", engine="eager".

    Without `method=` it is solved by tsit5, which suits continuously differentiable paths (Hermite, natural cubic). On
    linear and rectilinear ones, method="midpoint" with `dt` such that steps end at observations keeps its order.
    ValueError from `solve` for a path of another batch or number of channels.
    Source: Kidger, Morrill, Foster, Lyons: Neural controlled differential equations for irregular time series (2020).
    """

    f: Callable[..., Tensor]
    path: ControlPath

    def __post_init__(self) -> None:
        if not callable(self.f):
            raise ValueError(f"f: expected a callable f(t, z), got {type(self.f).__name__}")
        if not isinstance(self.path, ControlPath):
            raise ValueError(f"path: expected a control path such as HermitePath, got {type(self.path).__name__}")

    def __call__(self, t: Tensor, z: Tensor, *args: Any) -> Tensor:
        """dz/dt, in the state's shape."""
        if not isinstance(z, Tensor):
            raise ValueError(f"y0: the state of a CDETerm is one tensor, got {type(z).__name__}")
        samples = t.numel()
        if samples != self.path.batch:
            raise ValueError(
                f"path: there are {self.path.batch} paths for {samples} samples; give every sample its own"
            )
        columns = self.f(t, z, *args)
        slope = self.path.derivative(t.reshape(-1, 1)).to(columns.dtype)  # [B, C]
        if columns.shape[:-1] != z.shape or columns.shape[-1] != slope.shape[-1]:
            wanted = (*z.shape, slope.shape[-1])
            raise ValueError(f"f: its output has shape {tuple(columns.shape)}; expected {wanted}, a column a channel")
        flat = columns.reshape(samples, -1, slope.shape[-1])
        return torch.matmul(flat, slope.unsqueeze(-1)).reshape(z.shape)


def as_term(field: Any) -> ODETerm | SDETerm:
    """Read a callable, a term, or a torchsde object (f, g, noise_type, sde_type) as a term; a `CDETerm` as its ODE."""
    if isinstance(field, ODETerm | SDETerm):
        return field
    if all(hasattr(field, name) for name in ("f", "g", "noise_type", "sde_type")):
        return SDETerm(field.f, field.g, noise=field.noise_type, calculus=field.sde_type, one_clock=True)
    return ODETerm(field)
