"""Methods for SDEs that no table holds. Source, if not said: Kloeden, Platen: Numerical Solution of SDEs (1992)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..fields import Field
from .base import Memory, Step, Stepper
from .explicit import scale_of

__all__ = ["EULER", "HEUN", "MILSTEIN", "REVERSIBLE_HEUN", "Euler", "Heun", "Milstein", "ReversibleHeun", "SDEStepper"]


class SDEStepper(Stepper):
    """What SDE methods share: dense output is the straight line between two steps.

    area: whether `noise` is dW and the space-time Levy area H [2, B, m] (`BrownianTree`), not dW [B, m] alone.
    """

    kind = "sde"
    calculi: tuple[str, ...]
    noises: tuple[str, ...] = ("diagonal", "additive", "scalar", "general")
    area: bool = False
    memoryless = True

    def start(self, field: Field, t: Tensor, y: Tensor, f0: tuple[Tensor, ...]) -> Memory:
        """Nothing is handed on."""
        return ()

    def basis(self, field: Field, t: Tensor, dt: Tensor, y: Tensor, step: Step) -> tuple[Tensor, ...]:
        """The chord."""
        return (step.y1 - y,)

    def weights(self, theta: Tensor, dt: Tensor) -> Tensor:
        """theta itself."""
        return theta.unsqueeze(0)


@dataclass(frozen=True)
class Euler(SDEStepper):
    """Euler–Maruyama: y1 = y + f dt + g dW. Ito; strong order 1/2 (1 for additive noise), weak order 1."""

    name = "euler"
    order = 0.5
    calculi = ("ito",)
    reference = "Kloeden & Platen (1992), section 10.2"

    def step(self, field: Field, noise: Tensor | None, t: Tensor, dt: Tensor, y: Tensor, memory: Memory) -> Step:
        """One evaluation of drift and diffusion."""
        f, g = field.first(t, y)
        return Step(increment(field, y, f, g, scale_of(dt, y), noise), None, (), None, None, 1)


@dataclass(frozen=True)
class Heun(SDEStepper):
    """Predictor p = y + f dt + g dW, then the trapezoid y1 = y + (f + f_p) dt/2 + (g + g_p) dW/2.

    Stratonovich; strong order 1 for commutative noise (diagonal with g_i(y_i), scalar, additive), 1/2 for general
    noise. The error estimate y1 - p is O(dt), O(dt^1.5) for additive noise: it sees the diffusion's change over the
    step whole, where the error itself is what the trapezoid leaves of it, and so is on the safe side.
    Source: Ruemelin: Numerical treatment of stochastic differential equations (SIAM J. Numer. Anal. 19, 1982).
    """

    name = "heun"
    order = 1.0
    nstages = 2
    adaptive = True
    error_order = 1
    calculi = ("stratonovich",)
    reference = "Ruemelin (1982)"

    def step(self, field: Field, noise: Tensor | None, t: Tensor, dt: Tensor, y: Tensor, memory: Memory) -> Step:
        """Two evaluations."""
        h = scale_of(dt, y)
        f, g = field.first(t, y)
        p = increment(field, y, f, g, h, noise)
        fp, gp = field.first(t + dt, p)
        y1 = increment(field, y, 0.5 * (f + fp), 0.5 * (g + gp), h, noise)
        return Step(y1, y1 - p, (), g, None, 2)


@dataclass(frozen=True)
class Milstein(SDEStepper):
    """y1 = y + f dt + g dW + (g(p) - g) / (2 sqrt|dt|) * I, the derivative-free form with a supporting value p.

    Ito: p = y + f dt + g sqrt|dt|, I = dW^2 - |dt|; Stratonovich: p = y + g sqrt|dt|, I = dW^2. Strong order 1 for
    diagonal noise with g_i(y_i) and for scalar noise. Sections 11.1 and 11.3.
    """

    name = "milstein"
    order = 1.0
    nstages = 2
    calculi = ("ito", "stratonovich")
    noises = ("diagonal", "scalar", "additive")
    reference = "Kloeden & Platen (1992), section 11.1"

    @property
    def nfe(self) -> int:
        """The drift is evaluated once."""
        return 1

    def step(self, field: Field, noise: Tensor | None, t: Tensor, dt: Tensor, y: Tensor, memory: Memory) -> Step:
        """One evaluation of the drift, two of the diffusion."""
        assert noise is not None
        h = scale_of(dt, y)
        f, g = field.first(t, y)
        euler = increment(field, y, f, g, h, noise)
        if field.term.noise == "additive":  # type: ignore[union-attr]
            return Step(euler, None, (), None, None, 1)
        size = h.abs()
        root, square = size.sqrt(), noise * noise
        ito = field.term.calculus == "ito"  # type: ignore[union-attr]
        support = y + (f * h if ito else 0) + (g if g.ndim == 2 else g.squeeze(-1)) * root
        # A sample that has ended takes a step of no length; the divisor is safe, so that no 0 / 0 reaches a gradient.
        across = 2 * torch.where(root > 0, root, 1.0)
        slope = (field.diffusion(t, support) - g) / (across if g.ndim == 2 else across.unsqueeze(-1))
        return Step(euler + field.product(slope, square - size if ito else square), None, (), None, None, 1)


@dataclass(frozen=True)
class ReversibleHeun(SDEStepper):
    """z1 = 2 y - z + f(z) dt + g(z) dW,  y1 = y + (f(z) + f(z1)) dt/2 + (g(z) + g(z1)) dW/2.

    One evaluation a step, algebraically reversible. Stratonovich; strong order as Heun's, with a small stability
    region. No error estimate: one like Heun's measures the distance of the twins, which shorter steps do not mend.
    Memory: the twin z and the field there; an adjoint records the twin alone.
    Source: Kidger, Foster, Li, Lyons: Efficient and accurate gradients for neural SDEs (NeurIPS 2021).
    """

    name = "reversibleheun"
    order = 1.0
    memoryless = False
    calculi = ("stratonovich",)
    reference = "Kidger, Foster, Li & Lyons (2021)"

    def start(self, field: Field, t: Tensor, y: Tensor, f0: tuple[Tensor, ...]) -> Memory:
        """The twin starts where y starts."""
        return (y, *f0)

    def step(self, field: Field, noise: Tensor | None, t: Tensor, dt: Tensor, y: Tensor, memory: Memory) -> Step:
        """One evaluation, at the new twin."""
        h = scale_of(dt, y)
        z, f, g = memory
        z1 = increment(field, 2 * y - z, f, g, h, noise)
        f1, g1 = field.first(t + dt, z1)
        y1 = increment(field, y, 0.5 * (f + f1), 0.5 * (g + g1), h, noise)
        return Step(y1, None, (z1, f1, g1), None, None, 1)

    def essential(self, memory: Memory) -> Memory:
        """The twin."""
        return memory[:1]

    def restore(self, field: Field, t: Tensor, y: Tensor, essential: Memory) -> Memory:
        """Evaluate the field at the twin again."""
        return (*essential, *field.first(t, essential[0]))


def increment(field: Field, y: Tensor, f: Tensor, g: Tensor, h: Tensor, dw: Tensor | None) -> Tensor:
    """y + f h + g dW."""
    assert dw is not None
    drifted = torch.addcmul(y, f, h)
    return torch.addcmul(drifted, g, dw) if g.ndim == 2 else drifted + field.product(g, dw)


EULER, HEUN, MILSTEIN, REVERSIBLE_HEUN = Euler(), Heun(), Milstein(), ReversibleHeun()
