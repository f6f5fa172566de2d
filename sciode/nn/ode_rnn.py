"""ODE-RNNs: a recurrent network whose state moves along an ODE between readings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from sciode.solvers import Solution, Tableau, solve
from sciode.solvers.tableaux import explicit

__all__ = ["Encoded", "OdeRnn", "SolveGaps", "StepGaps"]

Field = Callable[[Tensor, Tensor], Tensor]
Evolve = Callable[[Field, Tensor, Tensor, Tensor], Tensor]


@lru_cache
def _table(method: str | Tableau) -> Tableau:
    """The method's coefficients; ValueError for an unknown name."""
    known = explicit()
    if isinstance(method, str) and method not in known:
        raise ValueError(f"method: no explicit method is called {method!r}; there are {', '.join(known)}")
    return known[method] if isinstance(method, str) else method


def _combined(h: Tensor, dt: Tensor, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """h + dt sum_i w_i k_i, without work for weights of 0 and 1: most of an encoder's time is the launching of it."""
    terms = [k if weight == 1.0 else weight * k for weight, k in zip(weights, slopes, strict=False) if weight]
    return h + dt * reduce(torch.add, terms) if terms else h


@dataclass(frozen=True)
class StepGaps:
    """Cross a gap in `steps` equal steps of an explicit method: cheap, the same work for every gap, no error control.

    method: a name in `sciode.methods("ode")` or a tableau. One Euler step is what the latent ODE authors' encoder does.
    Called as evolve(f, h [*batch, size], t0 [*batch, 1], t1 [*batch, 1]) -> h at t1; a gap of no length changes no bit.
    Raises ValueError for an unknown method or steps < 1.
    """

    method: str | Tableau = "euler"
    steps: int = 1

    def __post_init__(self) -> None:
        _table(self.method)
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")

    def __call__(self, f: Field, h: Tensor, t0: Tensor, t1: Tensor) -> Tensor:
        """The state at t1."""
        table = _table(self.method)
        dt = (t1 - t0) / self.steps
        for step in range(self.steps):
            slopes: list[Tensor] = []
            for node, row in zip(table.c, table.a, strict=True):
                moved = _combined(h, dt, row, slopes)
                slopes.append(f(t0 + (step + node) * dt, moved))
            h = _combined(h, dt, table.b, slopes)
        return h


@dataclass(frozen=True)
class SolveGaps:
    """Cross a gap by `sciode.solve`, every sample with its own steps: as accurate as asked for, a solve a reading.

    options: those of `solve`, e.g. {"rtol": 1e-4}. The solve runs over s in [0, 1] with t = t0 + s (t1 - t0). Called as
    `StepGaps` is.
    """

    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, f: Field, h: Tensor, t0: Tensor, t1: Tensor) -> Tensor:
        """The state at t1."""
        return self.solved(f, h, t0, t1).ys[-1]

    def solved(self, f: Field, h: Tensor, t0: Tensor, t1: Tensor) -> Solution:
        """The solution over s in [0, 1], with its penalties and status."""

        def scaled(s: Tensor, h: Tensor, gap: tuple[Tensor, Tensor]) -> Tensor:
            begin, length = gap
            return length * f(begin + s * length, h)

        return solve(scaled, h, [0.0, 1.0], args=(t0, t1 - t0), batch_dims=h.ndim - 1, **self.options)


class Encoded(NamedTuple):
    """What an `OdeRnn` read: last [*batch, size], its state at the end; states [*batch, L, size], after each point."""

    last: Tensor
    states: Tensor


@final
class OdeRnn(nn.Module):
    """h' = f(t, h) between points, h <- cell([x, seen], h) at a point with a reading, from h = 0 at the first of them.

    Readings that are not there (seen False) have no influence, whatever number or NaN stands in their place; a point
    without any reading is passed over. Samples do not influence one another.

    Parameters
    ----------
    field: f(t [*batch, 1], h [*batch, size]) -> [*batch, size].
    cell: (x [*batch, 2 C], h [*batch, size]) -> [*batch, size], e.g. `nn.GRUCell(2 * C, size)`; x holds the readings,
        zero where there is none, and which of them are there.
    size: of the state.
    evolve: how a gap is crossed: `StepGaps()` or `SolveGaps()`.
    backward: read from the last point to the first, as an encoder of an initial state does.

    Source: Rubanova, Chen, Duvenaud: Latent ordinary differential equations for irregularly sampled series (2019).
    """

    def __init__(
        self,
        field: Field,
        cell: Callable[[Tensor, Tensor], Tensor],
        size: int,
        *,
        evolve: StepGaps | SolveGaps = StepGaps(),
        backward: bool = False,
    ) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.field, self.cell, self.size, self.evolve, self.backward = field, cell, size, evolve, backward

    def forward(
        self,
        times: Tensor,
        values: Tensor,
        seen: Tensor,
        *,
        until: float | None = None,
        evolve: Evolve | None = None,
    ) -> Encoded:
        """Read series: times [*batch, L] in order, values and seen (bool) [*batch, L, C]; the end of short ones unseen.

        until: a time to go on to after the last point that is read (for `backward`, usually the first time, 0); None
        stays there. evolve: another way to cross gaps, for this call. Raises ValueError for shapes that do not fit or
        a mask that is not bool.
        """
        if times.ndim < 1 or values.shape[:-1] != times.shape or seen.shape != values.shape:
            shapes = [tuple(x.shape) for x in (times, values, seen)]
            raise ValueError(f"times must be [*batch, L], values and seen [*batch, L, C], got {shapes}")
        if seen.dtype != torch.bool:
            raise ValueError(f"seen must be a mask of bool, got {seen.dtype}: use values.isfinite()")
        inputs = torch.cat((torch.where(seen, values, 0.0), seen.to(values.dtype)), -1)
        here, t0, t1 = self._gaps(times.to(values.dtype), seen.any(-1))
        h = inputs.new_zeros(*times.shape[:-1], self.size)
        visits = list(zip(*(x.unbind(-2) for x in (inputs, here, t0, t1)), strict=True))
        states, evolve = [], evolve or self.evolve
        for x, read, begin, end in reversed(visits) if self.backward else visits:
            h = evolve(self.field, h, begin, end)
            h = torch.where(read, self.cell(x, h), h)
            states.append(h)
        if until is not None:
            begin = visits[0 if self.backward else -1][3]
            started = here.any(-2)
            h = evolve(self.field, h, begin, torch.where(started, until, begin))
        return Encoded(h, torch.stack(states[::-1] if self.backward else states, -2))

    def _gaps(self, times: Tensor, here: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which points are read, and from when to when the state moves before each [*batch, L, 1].

        A point that is passed over, and the first that is read, have a gap of no length.
        """
        if self.backward:
            times, here = times.flip(-1), here.flip(-1)
        place = torch.where(here, torch.arange(here.shape[-1], device=here.device), -1).cummax(-1).values
        known = torch.where(here, times, 0.0)
        end = torch.where(place >= 0, known.gather(-1, place.clamp(min=0)), 0.0)
        begin = torch.cat((end[..., :1], end[..., :-1]), -1)
        before = torch.cat((place[..., :1], place[..., :-1]), -1)
        begin = torch.where(before >= 0, begin, end)
        found = (here, begin, end)
        return tuple((x.flip(-1) if self.backward else x).unsqueeze(-1) for x in found)  # type: ignore[return-value]
