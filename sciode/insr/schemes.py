"""Time schemes as residuals of fields: what a coefficient table asks of the field at the end of a step.

A network is trained until, at every point x, the residual of the scheme vanishes. Tables are those of
`sciode.solvers.tableaux`, read here, written there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor

from sciode.pde import FieldFunction
from sciode.solvers.tableaux import ImplicitTableau, MultistepTableau, implicit_method

__all__ = ["Scheme", "last", "scheme_of"]

Rate = Callable[[FieldFunction], FieldFunction]
"""u -> F(u) of u_t = F(u)."""


class Scheme(ABC):
    """One step of u_t = F(u) as a residual in the fields that a network tells.

    told: how many fields of c channels the network tells; the last of them is u at the end of the step. past: how many
    earlier fields the step reads, the newest first. start: the scheme for steps that lack them, or None.
    """

    told: int = 1
    past: int = 1
    start: Scheme | None = None

    def __init__(self, table: ImplicitTableau | MultistepTableau) -> None:
        self.table = table

    def __repr__(self) -> str:
        return f"<Scheme {self.table.name}>"

    def known(self, past: Sequence[FieldFunction], rate: Rate, dt: float) -> FieldFunction:
        """What is known of the step at a point beforehand: worked out once, then given to `residual`. Here u^n."""
        return past[0]

    @abstractmethod
    def residual(
        self, new: FieldFunction, known: Tensor, past: Sequence[FieldFunction], rate: Rate, dt: float
    ) -> FieldFunction:
        """What vanishes where the fields told by `new` are the step's."""


@final
class OneStage(Scheme):
    """A Runge-Kutta table with one stage to solve for: it follows from u, so the network tells u alone.

    With k0 = F(u^n), where the table has a row of zeros, and k the slope that is sought,

        u = u^n + dt (b_0 k0 + b k)  and  U = u^n + dt (a_0 k0 + a k)  give
        u - u^n - dt b_0 k0 - dt b F(U) = 0,   U = u^n + dt a_0 k0 + (a/b) (u - u^n - dt b_0 k0).

    The trapezoidal rule has U = u, the midpoint rule U = (u^n + u)/2.
    """

    def __init__(self, table: ImplicitTableau) -> None:
        super().__init__(table)
        (sought,), known = _stages(table)
        self.a, self.b = table.a[sought][sought], table.b[sought]
        self.a0, self.b0 = sum(table.a[sought][j] for j in known), sum(table.b[j] for j in known)

    def known(self, past: Sequence[FieldFunction], rate: Rate, dt: float) -> FieldFunction:
        """u^n + dt b_0 k0."""
        if not self.b0:
            return past[0]
        slope = rate(past[0])
        return lambda x: past[0](x) + dt * self.b0 * slope(x)

    def residual(
        self, new: FieldFunction, known: Tensor, past: Sequence[FieldFunction], rate: Rate, dt: float
    ) -> FieldFunction:
        """See `Scheme.residual`."""
        ratio, shift = self.a / self.b, dt * (self.a0 - self.a / self.b * self.b0)

        def stage(x: Tensor) -> Tensor:
            value = ratio * new(x)
            if ratio != 1.0:
                value = value + (1.0 - ratio) * past[0](x)
            return value + shift * rate(past[0])(x) if shift else value

        slope = rate(stage)
        return lambda x: new(x) - known - dt * self.b * slope(x)


@final
class Stages(Scheme):
    """A Runge-Kutta table with several stages to solve for: the network tells them all, and u after them.

        U_i - u^n - dt sum_j a_ij F(U_j) = 0,   u - u^n - dt sum_j b_j F(U_j) = 0;

    where the table is stiffly accurate, u is its last stage. A known stage is F(u^n).
    """

    def __init__(self, table: ImplicitTableau) -> None:
        super().__init__(table)
        sought, known = _stages(table)
        rows = [table.a[i] for i in sought]
        if not table.stiffly_accurate:
            rows.append(table.b)
        self.told, self.count = len(rows), len(sought)
        self.slopes = [[row[j] for j in sought] for row in rows]
        self.first = [sum(row[j] for j in known) for row in rows]

    def known(self, past: Sequence[FieldFunction], rate: Rate, dt: float) -> FieldFunction:
        """u^n + dt a_i0 F(u^n) of every row, one after another."""
        slope = rate(past[0])

        def rows(x: Tensor) -> Tensor:
            value = past[0](x)
            at_start = slope(x) if any(self.first) else torch.zeros_like(value)
            return torch.cat([value + dt * weight * at_start for weight in self.first])

        return rows

    def residual(
        self, new: FieldFunction, known: Tensor, past: Sequence[FieldFunction], rate: Rate, dt: float
    ) -> FieldFunction:
        """See `Scheme.residual`."""

        def rows(x: Tensor) -> Tensor:
            told = new(x)
            channels = len(told) // self.told
            stages = [_part(new, i * channels, channels) for i in range(self.count)]
            found = torch.stack([rate(stage)(x) for stage in stages])
            return told - known - dt * (found.new_tensor(self.slopes) @ found).reshape(-1)

        return rows


@final
class Multistep(Scheme):
    """A multistep table: sum_j alpha_j u^{n+1-j} = dt beta F(u^{n+1}); its first steps are trapezoidal ones."""

    def __init__(self, table: MultistepTableau) -> None:
        super().__init__(table)
        self.alpha, self.beta, self.past = table.alpha, table.beta, table.steps
        self.start = scheme_of("cranknicolson") if table.steps > 1 else None

    def known(self, past: Sequence[FieldFunction], rate: Rate, dt: float) -> FieldFunction:
        """-sum_{j >= 1} alpha_j u^{n+1-j}."""

        def earlier(x: Tensor) -> Tensor:
            return -torch.stack([a * field(x) for a, field in zip(self.alpha[1:], past, strict=True)]).sum(0)

        return earlier

    def residual(
        self, new: FieldFunction, known: Tensor, past: Sequence[FieldFunction], rate: Rate, dt: float
    ) -> FieldFunction:
        """See `Scheme.residual`."""
        slope = rate(new)
        return lambda x: new(x) - known - dt * self.beta * slope(x)


def scheme_of(name: str | ImplicitTableau | MultistepTableau) -> Scheme:
    """Return the scheme of a table, or of a table's name; ValueError, with a suggestion, for an unknown name."""
    table = implicit_method(name) if isinstance(name, str) else name
    if isinstance(table, MultistepTableau):
        return Multistep(table)
    sought, _ = _stages(table)
    return OneStage(table) if len(sought) == 1 and table.b[sought[0]] else Stages(table)


def last(told: FieldFunction, channels: int) -> FieldFunction:
    """Return u of what a network tells: the last c of its outputs."""
    return lambda x: told(x)[..., -channels:]


def _stages(table: ImplicitTableau) -> tuple[list[int], list[int]]:
    """The stages to solve for, and those that are known: rows of zeros, where U = u^n."""
    known = [i for i, row in enumerate(table.a) if not any(row)]
    return [i for i in range(table.stages) if i not in known], known


def _part(field: FieldFunction, first: int, count: int) -> FieldFunction:
    return lambda x: field(x)[first : first + count]
