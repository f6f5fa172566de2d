"""One step of any explicit Runge–Kutta method, read off its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..fields import Field
from ..tableaux import Tableau
from .base import Memory, Step, Stepper

__all__ = ["ExplicitRK", "Stages"]


class Stages(NamedTuple):
    """Slopes k_i of a step, and the states of the two stages that share a node (for the stiffness estimate)."""

    slopes: tuple[Tensor, ...]
    pair: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class ExplicitRK(Stepper):
    """k_i = f(t + c_i dt, y + dt sum_j a_ij k_j),  y1 = y + dt sum_i b_i k_i,  error = dt sum_i (b_i - b^_i) k_i.

    Memory is the slope at the start of the step where the table's last stage is f(t1, y1) (FSAL), else empty.
    Source: Hairer, Norsett, Wanner: Solving Ordinary Differential Equations I (1993), section II.1.
    """

    table: Tableau
    kind = "ode"

    @property
    def name(self) -> str:  # type: ignore[override]
        """The table's name."""
        return self.table.name

    @property
    def order(self) -> float:  # type: ignore[override]
        """The table's claim."""
        return self.table.order

    @property
    def nstages(self) -> int:  # type: ignore[override]
        """Stages a step."""
        return self.table.stages

    @property
    def adaptive(self) -> bool:  # type: ignore[override]
        """Whether the table has an embedded error estimate."""
        return self.table.adaptive

    @property
    def error_order(self) -> int | None:  # type: ignore[override]
        """k such that the error estimate is O(dt^k)."""
        return self.table.error_order

    @property
    def reference(self) -> str:  # type: ignore[override]
        """Where the table comes from."""
        return self.table.reference

    def start(self, field: Field, t: Tensor, y: Tensor, f0: tuple[Tensor, ...]) -> Memory:
        """The first slope, where the method hands slopes on."""
        return f0 if self.table.fsal else ()

    def step(self, field: Field, noise: Tensor | None, t: Tensor, dt: Tensor, y: Tensor, memory: Memory) -> Step:
        """All stages, then the solution and its error estimate."""
        table = self.table
        h = scale_of(dt, y)
        clocks = field.clocks([torch.add(t, dt, alpha=c) for c in table.c], y)
        slopes, states = [memory[0] if table.fsal else field.drift_at(clocks[0], y)], [y]
        for clock, row in zip(clocks[1:], table.a[1:], strict=True):
            states.append(torch.addcmul(y, h, combine(row, slopes)))
            slopes.append(field.drift_at(clock, states[-1]))
        y1 = states[-1] if table.fsal else torch.addcmul(y, h, combine(table.b, slopes))
        error = None if table.b_error is None else h * combine(table.b_error, slopes)
        pair = None if table.stiffness_pair is None else tuple(states[i] for i in table.stiffness_pair)
        last = (slopes[-1],) if table.fsal else ()
        return Step(y1, error, last, Stages(tuple(slopes), pair), None, self.nfe)  # type: ignore[arg-type]

    def basis(self, field: Field, t: Tensor, dt: Tensor, y: Tensor, step: Step) -> tuple[Tensor, ...]:
        """The slopes, and those of the table's extra stages."""
        h = scale_of(dt, y)
        slopes = list(step.stages.slopes)
        for c, row in zip(self.table.extra_c, self.table.extra_a, strict=True):
            slopes.append(field.drift(t + c * dt, torch.addcmul(y, h, combine(row, slopes))))
        return tuple(slopes)

    def weights(self, theta: Tensor, dt: Tensor) -> Tensor:
        """w_i = dt b_i(theta), the table's interpolant, by Horner's rule."""
        columns = constant(self.table.dense, theta.dtype, theta.device).T.reshape(-1, self._width, *(1,) * theta.ndim)
        total = columns[-1] * theta
        for column in reversed(columns[:-1].unbind()):
            total = (total + column) * theta
        return total * dt

    def weights_apart(self, theta: Tensor, dt: Tensor) -> Sequence[Tensor]:
        """The same with the table's numbers in the code: a compiled loop cannot hold a tensor of its own."""
        assert self.table.dense is not None
        return [_horner(row, theta) * dt for row in self.table.dense]

    @property
    def _width(self) -> int:
        return self.table.stages + len(self.table.extra_c)

    @property
    def nfe(self) -> int:
        """One evaluation a stage; none for a first stage that is the last one of the step before."""
        return self.table.stages - int(self.table.fsal)

    @property
    def hands_on(self) -> bool:
        """As the table says."""
        return self.table.fsal

    def overlooks(self, adaptive: bool) -> bool:
        """Where steps are fixed, or the estimate gives the last stage no weight."""
        return self.table.fsal and not (adaptive and self.table.b_error is not None and self.table.b_error[-1] != 0)

    @property
    def basis_nfe(self) -> int:
        """One evaluation for each extra stage."""
        return len(self.table.extra_c)

    def essential(self, memory: Memory) -> Memory:
        """Nothing: the slope is a function of (t, y)."""
        return ()

    def restore(self, field: Field, t: Tensor, y: Tensor, essential: Memory) -> Memory:
        """Evaluate the slope again."""
        return (field.drift(t, y),) if self.table.fsal else ()


def _horner(coefficients: Sequence[float], theta: Tensor) -> Tensor:
    """sum_j coefficients[j] theta^(j + 1)."""
    total = torch.full_like(theta, coefficients[-1]) * theta
    for c in reversed(coefficients[:-1]):
        total = (total + c) * theta
    return total


def combine(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """sum_i weights[i] slopes[i], leaving out the zeros; weights may be shorter than slopes."""
    total = None
    for w, k in zip(weights, slopes, strict=False):
        if w != 0.0:
            total = k * w if total is None else torch.add(total, k, alpha=w)
    assert total is not None
    return total


def scale_of(dt: Tensor, y: Tensor) -> Tensor:
    """dt [L] as a factor [L, 1] for y [B, D]."""
    return dt.to(y.dtype).unsqueeze(-1)


@lru_cache(maxsize=256)
def constant(table: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A coefficient table as a tensor, made once a device (a copy to a GPU waits for the host)."""
    return torch.tensor(table, dtype=dtype, device=device)
