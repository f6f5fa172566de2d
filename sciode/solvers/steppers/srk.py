"""Stochastic Runge-Kutta methods with embedded error estimates, read off their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..fields import Field
from ..tableaux import AdditiveTableau, ItoTableau, StratonovichTableau
from .base import Memory, Step
from .explicit import combine, scale_of
from .stochastic import SDEStepper

__all__ = ["AdditiveRK", "ItoRK", "StratonovichRK", "from_table"]

Table = AdditiveTableau | ItoTableau | StratonovichTableau


class _TableStepper(SDEStepper):
    """What methods read off a table share: increments with areas, and an error O(dt^1.5)."""

    table: Table
    adaptive = True
    error_order = 1.5
    area = True

    @property
    def name(self) -> str:  # type: ignore[override]
        """The table's name."""
        return self.table.name

    @property
    def reference(self) -> str:  # type: ignore[override]
        """Where the table comes from."""
        return self.table.reference


@dataclass(frozen=True)
class AdditiveRK(_TableStepper):
    """A method for additive noise, strong order 1.5, weak order 2: see `AdditiveTableau`."""

    table: AdditiveTableau
    order = 1.5
    calculi: ClassVar[tuple[str, ...]] = ("ito", "stratonovich")
    noises: ClassVar[tuple[str, ...]] = ("additive",)

    @property
    def nstages(self) -> int:  # type: ignore[override]
        """Stages a step."""
        return len(self.table.b)

    def step(self, field: Field, noise: Tensor | None, t: Tensor, dt: Tensor, y: Tensor, memory: Memory) -> Step:
        """The drift at every stage, the diffusion at both ends."""
        assert noise is not None
        table, h = self.table, scale_of(dt, y)
        clocks = field.clocks([t, *(torch.add(t, dt, alpha=c) for c in table.c), t + dt], y)
        g, g1 = field.diffusion_at(clocks[0], y), field.diffusion_at(clocks[-1], y)
        w, levy = noise.unbind()
        driven = field.product(g, w), field.product(g, levy)
        slopes: list[Tensor] = []
        for clock, row, weights in zip(clocks[1:-1], table.a, zip(table.w, table.h, strict=True), strict=True):
            state = _plus(_plus(y, row, slopes, h), weights, driven)
            slopes.append(field.drift_at(clock, state))
        turned = field.product(g1 - g, 0.5 * w - levy)
        y1 = torch.addcmul(y, h, combine(table.b, slopes)) + driven[0] + turned
        error = h * combine((table.b[0] - 1, *table.b[1:]), slopes) + turned
        return Step(y1, error, (), g, None, self.nfe)


@dataclass(frozen=True)
class StratonovichRK(_TableStepper):
    """A method for any noise in the Stratonovich sense: see `StratonovichTableau` for its orders."""

    table: StratonovichTableau
    order = 1.0
    calculi: ClassVar[tuple[str, ...]] = ("stratonovich",)

    @property
    def nstages(self) -> int:  # type: ignore[override]
        """Stages a step."""
        return len(self.table.b)

    def step(self, field: Field, noise: Tensor | None, t: Tensor, dt: Tensor, y: Tensor, memory: Memory) -> Step:
        """Drift and diffusion at every stage."""
        assert noise is not None
        table, h, pair = self.table, scale_of(dt, y), noise.unbind()
        clocks = field.clocks([torch.add(t, dt, alpha=c) for c in table.c], y)
        drifts: list[Tensor] = []
        diffusions: list[Tensor] = []

        def moved(start: Tensor, b: Sequence[float], bw: Sequence[float], bh: Sequence[float]) -> Tensor:
            total = _plus(start, b, drifts, h)
            for g, *weights in zip(diffusions, bw, bh, strict=True):
                if any(weights):
                    total = total + field.product(g, combine(weights, pair))
            return total

        for clock, rows in zip(clocks, zip(table.a, table.w, table.h, strict=True), strict=True):
            state = moved(y, *rows)
            drifts.append(field.drift_at(clock, state))
            diffusions.append(field.diffusion_at(clock, state))
        apart = (
            [p - q for p, q in zip(exact, embedded, strict=True)]
            for exact, embedded in ((table.b, table.eb), (table.bw, table.ew), (table.bh, table.eh))
        )
        y1, error = moved(y, table.b, table.bw, table.bh), moved(torch.zeros_like(y), *apart)
        return Step(y1, error, (), diffusions[0], None, self.nfe)


@dataclass(frozen=True)
class ItoRK(_TableStepper):
    """A method for diagonal and scalar noise in the Ito sense, strong order 1.5: see `ItoTableau`."""

    table: ItoTableau
    order = 1.5
    calculi: ClassVar[tuple[str, ...]] = ("ito",)
    noises: ClassVar[tuple[str, ...]] = ("diagonal", "scalar", "additive")

    @property
    def nstages(self) -> int:  # type: ignore[override]
        """Stages a step."""
        return len(self.table.alpha)

    @property
    def nfe(self) -> int:
        """Drifts that some stage or the end needs, one for all at the start of the step."""
        return sum(self._drifts[i] == i for i in range(self.nstages) if self._drifts[i] is not None)

    @property
    def _drifts(self) -> list[int | None]:
        """For each stage the one whose drift it has: 0 where it starts from y, None where nobody asks."""
        table = self.table
        columns = [
            any(row[j] for rows in (table.a0, table.a1) for row in rows[j + 1 :]) or table.alpha[j] != 0
            for j in range(self.nstages)
        ]
        at_start = [not any(a) and not any(b) for a, b in zip(table.a0, table.b0, strict=True)]
        return [(0 if s else i) if c else None for i, (c, s) in enumerate(zip(columns, at_start, strict=True))]

    def step(self, field: Field, noise: Tensor | None, t: Tensor, dt: Tensor, y: Tensor, memory: Memory) -> Step:
        """Stages of the drift and of the diffusion, each by its own states."""
        assert noise is not None
        table, h, (w, levy) = self.table, scale_of(dt, y), noise.unbind()
        size = h.abs()
        root, tilt = size.sqrt(), 0.5 * w + levy
        inverse = torch.where(root > 0, 1 / torch.where(root > 0, root, 1.0), 0.0)
        integrals = (w, 0.5 * (w * w - size) * inverse, tilt, w * (w * w * inverse * inverse - 3) / 6)
        drift_clocks = field.clocks([torch.add(t, dt, alpha=c) for c in table.c0], y)
        diffusion_clocks = field.clocks([torch.add(t, dt, alpha=c) for c in table.c1], y)
        f: list[Tensor] = []
        g: list[Tensor] = []
        for i, same in enumerate(self._drifts):
            if same == i:
                state = _plus(y, table.a0[i], f, h)
                if any(table.b0[i]):
                    state = state + field.product(combine(table.b0[i], g), tilt)
                f.append(field.drift_at(drift_clocks[i], state))
            else:
                f.append(f[0])
            state = _plus(y, table.a1[i], f, h)
            if any(table.b1[i]):
                state = state + field.product(combine(table.b1[i], g), root.expand_as(w))
            g.append(field.diffusion_at(diffusion_clocks[i], state))
        y1 = torch.addcmul(y, h, combine(table.alpha, f))
        error = h * combine((table.alpha[0] - 1, *table.alpha[1:]), f)
        for k, stage in enumerate(g):
            weights = [row[k] for row in table.beta]
            y1 = y1 + field.product(stage, combine(weights, integrals))
            if any(weights[2:]):
                error = error + field.product(stage, combine(weights[2:], integrals[2:]))
        return Step(y1, error, (), g[0], None, self.nfe)


def _plus(y: Tensor, weights: Sequence[float], terms: Sequence[Tensor], scale: Tensor | None = None) -> Tensor:
    """y + scale sum_i weights_i terms_i; y itself where all weights are 0."""
    if not any(weights):
        return y
    total = combine(weights, terms)
    return y + total if scale is None else torch.addcmul(y, scale, total)


def from_table(table: Table) -> SDEStepper:
    """The stepper that reads this kind of table."""
    if isinstance(table, AdditiveTableau):
        return AdditiveRK(table)
    return ItoRK(table) if isinstance(table, ItoTableau) else StratonovichRK(table)
