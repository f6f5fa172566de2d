"""The contract of one step: a pure function that every engine repeats and every adjoint differentiates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from ..fields import Field

__all__ = ["Memory", "Step", "Stepper"]

Memory = tuple[Tensor, ...]


class Step(NamedTuple):
    """What one step from t to t + dt gives.

    y1 [B, D]; error [B, D], the local error estimate, or None; memory, what the next step starts from; stages,
    whatever dense output and regularizers need; ok [B] bool, whether the step exists (a Newton iteration may fail), or
    None if it always does; nfe, evaluations of the field it took.
    """

    y1: Tensor
    error: Tensor | None
    memory: Memory
    stages: Any
    ok: Tensor | None
    nfe: int


class Stepper(ABC):
    """A one-step method. Subclasses are final; all of a method's state is in `memory`.

    `step` must be pure: no `.item()`, no Python branch on a tensor, no in-place write, the samples of a batch apart.
    Then every engine, adjoint and test works. `sciode.testing.check_method` holds a stepper of your own to this
    contract. Shapes: t, dt [L] float64 with L = 1 (shared) or B; y [B, D]; dt is negative backward in time.
    """

    name: str
    kind: str
    order: float
    nstages: int = 1
    adaptive: bool = False
    error_order: float | None = None
    memoryless: bool = False
    """Whether its memory is always empty and its steps explicit: a step is a function of time and state alone."""
    reference: str = ""

    @abstractmethod
    def start(self, field: Field, t: Tensor, y: Tensor, f0: Any) -> Memory:
        """The memory of the first step; f0 is what `field.first(t, y)` returned."""

    @abstractmethod
    def step(self, field: Field, noise: Tensor | None, t: Tensor, dt: Tensor, y: Tensor, memory: Memory) -> Step:
        """One step. `noise` [B, m] is the Brownian increment over it, None for an ODE."""

    @abstractmethod
    def basis(self, field: Field, t: Tensor, dt: Tensor, y: Tensor, step: Step) -> tuple[Tensor, ...]:
        """Vectors K_i [B, D] that span the dense output of a step: y(t + theta dt) = y + sum_i w_i(theta) K_i."""

    @abstractmethod
    def weights(self, theta: Tensor, dt: Tensor) -> Tensor:
        """The weights w [s, *theta.shape] of the dense output, for theta in [0, 1]; dt has theta's shape."""

    def weights_apart(self, theta: Tensor, dt: Tensor) -> Sequence[Tensor]:
        """The same weights, each by itself: for compiled loops, which fuse them with what uses them."""
        return self.weights(theta, dt).unbind()

    @property
    def nfe(self) -> int:
        """Evaluations of the field (for an SDE: of the drift) that every step takes."""
        return self.nstages

    @property
    def hands_on(self) -> bool:
        """Whether a memory is the slope at the end of a step, which then has to be finite, as the state does."""
        return False

    def overlooks(self, adaptive: bool) -> bool:
        """Whether that slope has to be looked at: no error estimate sees it."""
        return self.hands_on

    @property
    def basis_nfe(self) -> int:
        """Evaluations of the field that `basis` takes beyond the step's own."""
        return 0

    def essential(self, memory: Memory) -> Memory:
        """The part of a memory that cannot be recomputed from (t, y): what an adjoint must record."""
        return memory

    def restore(self, field: Field, t: Tensor, y: Tensor, essential: Memory) -> Memory:
        """The memory again, from its essential part."""
        return essential
