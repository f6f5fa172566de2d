"""The ways to differentiate a sample, and what each needs."""

from __future__ import annotations

from dataclasses import dataclass

from sciode.diffusion.samplers.base import Adaptive, Sampler
from sciode.diffusion.samplers.runge_kutta import tableau_of
from sciode.solvers import methods
from sciode.solvers.suggest import choose

__all__ = ["GRADIENTS", "Adjoint", "Checkpoint", "Gradient", "checked"]

GRADIENTS = ("auto", "direct", "checkpoint", "reversible", "adjoint")


@dataclass(frozen=True)
class Checkpoint:
    """`gradient="checkpoint"`: keep states alone, and take the evaluations again in backward; exact.

    segment: evaluations between kept states. 1 keeps all N of them and evaluates twice; round(sqrt(N)) keeps some
    2 sqrt(N) states and evaluates three times. One evaluation's activations are alive at a time, whatever it is.
    """

    segment: int = 1

    def __post_init__(self) -> None:
        if self.segment < 1:
            raise ValueError(f"segment: expected at least 1 evaluation, got {self.segment}")


@dataclass(frozen=True)
class Adjoint:
    """`gradient="adjoint"`: the adjoint equation of the probability-flow ODE, solved backward beside the sample.

        dy / dlambda = -rho eps,   da / dlambda = rho alpha a^T d eps / dx,   dtheta / dlambda = rho a^T d eps / dtheta,

    for y = x / alpha, a = dL / dy, rho = sigma / alpha: no linear part is left, so nothing is stiff. It is the gradient
    of the exact flow: beside that of the sampler's own steps it is wrong by the sampler's error, whatever rtol is.

    Each sample has steps of its own: y and a do not depend on who else is in the batch. Integrals for conditions and
    weights, which are sums over samples, are taken in a second walk along the steps that were accepted, by the method's
    own weights; the times of those steps are kept, and the two states of each while it chooses them.

    - method: an explicit one with an error estimate; rtol, atol, max_steps: of the backward `sciode.solve`; 1e-5 and
      1e-7 suit float32.

    Source: Pan et al. (2024), AdjointDPM; the exponential form is re-derived.
    """

    rtol: float = 1e-5
    atol: float = 1e-7
    method: str = "tsit5"
    max_steps: int = 10_000

    def __post_init__(self) -> None:
        choose("method", self.method, methods("ode"))
        if not tableau_of(self.method).adaptive:
            raise ValueError(f"method: {self.method!r} has no error estimate; use tsit5, dopri5 or bosh3")
        if not (self.rtol > 0 and self.atol > 0 and self.max_steps >= 1):
            raise ValueError(f"expected rtol > 0, atol > 0 and max_steps >= 1, got {self}")


Gradient = str | Checkpoint | Adjoint
"""A name of GRADIENTS, or settings."""


def checked(gradient: Gradient, sampler: Sampler | Adaptive) -> Gradient:
    """The gradient, if the sampler has it; ValueError with the mend if not."""
    if isinstance(gradient, Checkpoint | Adjoint):
        name = type(gradient).__name__.lower()
    else:
        name = choose("gradient", gradient, GRADIENTS)
    if isinstance(sampler, Adaptive):
        if name in ("auto", "direct"):
            return "direct"
        raise ValueError(f"gradient: {sampler.name} chooses its steps as it goes; use 'direct', or a sampler on a grid")
    if name == "reversible" and sampler.pairs is None:
        raise ValueError(f"gradient: {sampler.name} cannot be undone step by step; use bdia, belm or edict")
    if name == "adjoint" and sampler.kind != "ode":
        raise ValueError(f"gradient: {sampler.name} does not follow the probability-flow ODE; use 'checkpoint'")
    return gradient
