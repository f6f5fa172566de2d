"""Everything a solve needs that does not change while it runs, and everything that does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .books import Book, namespace, whole_number
from .brownian import BrownianTree
from .controllers import PID, Fixed
from .fields import Field
from .norms import rms
from .steppers import Memory, Step, Stepper

if TYPE_CHECKING:
    from .regularizers import Regularizer

__all__ = ["PLACE", "Carry", "Problem", "scaled_error"]


class Carry(NamedTuple):
    """The state of a solve between two steps; L is 1 (one step size for all) or B.

    t [L] float64, in the direction of the solve (it always grows); h [L] the next step; n [L] fixed steps taken since
    the grid's origin; y [B, D]; memory, the stepper's; control, the controller's; status [L] int8; trials, accepted
    [L]; ahead, times [L] that steps have to end at, nearest first, inf for none, or () where no such times are kept.
    The step that ends a sample is not merged: a finished sample's carry is the one before its last step, from which a
    later solve can go on as if the end had not been there.
    """

    t: Book
    h: Book
    n: Book
    y: Tensor
    memory: Memory
    control: tuple[Book, ...]
    status: Book
    trials: Book
    accepted: Book
    ahead: tuple[Book, ...] = ()


PLACE = 6
"""So many fields of a carry say where a sample is; the rest is what became of it."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A solve as data. Time runs in the solve's direction: s = sign * t grows from s0 to s1 (each [L] float64).

    noise: increments by the number of a step (`counted`), or a tree that is asked for an interval; revisits: whether
    the times of rejected steps are kept (`PID.revisit`).
    """

    field: Field
    stepper: Stepper
    controller: PID | Fixed
    output: Any
    sign: int
    s0: Book
    s1: Book
    rtol: float | Tensor
    atol: float | Tensor
    coupled: bool = False
    weight: Tensor | None = None
    steps: Book | None = None
    noise: Any = None
    regularizers: tuple[Regularizer, ...] = ()
    drawn: tuple[Tensor, ...] = ()
    revisits: bool = False

    def forward(self, s: Book) -> Book:
        """Time as the field knows it, from time in the solve's direction; also maps a step length to a signed step."""
        return s if self.sign > 0 else -s

    @property
    def smallest(self) -> Book:
        """Steps below this [L] cannot be told from rounding of the time, or see too smooth a path."""
        xp = namespace(self.s0)
        rounding = 16 * torch.finfo(torch.float64).eps * xp.maximum(abs(self.s0), abs(self.s1))
        if not isinstance(self.noise, BrownianTree):
            return rounding
        return xp.maximum(rounding, (self.s1 - self.s0) * 2.0**-self.noise.levels)

    def length_of(self, h: Book) -> Book:
        """The step [L] to take where the controller wants h: along a tree, h rounded down to five bits.

        A path is so rough that steps a rounding apart would lead to others a thousandth apart soon after. Rounded, they
        are the same whatever the batch, the engine and the device.
        """
        if not isinstance(self.noise, BrownianTree):
            return h
        xp, count = namespace(h), 2**self.noise.levels
        # Positive for a sample of one time too, which takes no step.
        leaf = xp.clip(self.s1 - self.s0, torch.finfo(torch.float64).tiny, None) / count
        n = filled = whole_number(xp.clip(h / leaf, 1.0, float(count)))
        for shift in (1, 2, 4, 8, 16):
            filled = filled | (filled >> shift)
        return (n & ~(filled >> 5)) * leaf

    @property
    def counted(self) -> bool:
        """Whether it is driven by increments that hang on the number of a step."""
        return self.noise is not None and not isinstance(self.noise, BrownianTree)

    def driven(self, given: Tensor | None, t: Tensor, dt: Tensor) -> Tensor | None:
        """The noise of a step from t to t + dt: what an engine has drawn for it, else what a tree says."""
        if given is not None or not isinstance(self.noise, BrownianTree):
            return given
        with torch.no_grad():
            return self.noise.over(t, dt)


def scaled_error(problem: Problem, y: Tensor, step: Step, coupled: bool) -> tuple[Tensor, Tensor]:
    """rms(error / (atol + rtol max(|y|, |y1|))), and max |y1|: per sample [B], or [1] if coupled."""
    assert step.error is not None
    size = torch.maximum(y.abs(), step.y1.abs())
    ratio = rms(step.error / (size * problem.rtol + problem.atol), coupled, problem.weight)
    return ratio, size.amax().reshape(1) if coupled else size.amax(dim=1)
