"""Families of partial differential equations in one dimension, as data, and their solutions by Fourier modes.

u_t = sum of d^m/dx^m of expressions of u, on a periodic interval: what is linear in a field itself is solved exactly,
mode by mode, the rest goes by Runge-Kutta steps of order 4 (`sciode.pde.semilinear`).

Source of the choice: Liu, Sun, Lu, Zhang, Schaeffer: PROSE-PDE (Phys. Rev. E 111, 035304, 2025).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciode.pde.semilinear import march
from sciode.prose.samples import numbers_of
from sciode.prose.trees import Expression, parameter, sin, square, variables

__all__ = ["FAMILIES", "Family", "Fields", "Term", "draw_fields", "evolve_fields", "random_fields"]


class Term(NamedTuple):
    """d^order/dx^order of an expression of the fields u_0, u_1, ..., in the equation of one field.

    own: whether it is a number times that field itself, so that modes solve it.
    """

    field: int
    order: int
    expression: Expression
    own: bool = False


@dataclass(frozen=True, eq=False)
class Family:
    """u_t = the sum of terms, on a circle of length `length`.

    nominal: parameters by name, drawn within `spread` of that. fields: how many; random starts are made of the first
    one, the others begin at 0. end: the last time. dt: of steps, good for 128 points. level: what starts lie around.
    Raises ValueError for parameters that no term reads, or terms of fields that there are not.
    """

    name: str
    terms: tuple[Term, ...]
    nominal: Mapping[str, float]
    fields: int = 1
    length: float = 2.0
    end: float = 1.0
    dt: float = 2e-3
    level: float = 0.0
    size: float = 1.0
    spread: float = 0.1

    def __post_init__(self) -> None:
        read = {name for one in self.terms for name in one.expression.parameters}
        if read != set(self.nominal):
            raise ValueError(f"{self.name}: terms read {sorted(read)}, nominal names {sorted(self.nominal)}")
        if not all(0 <= one.field < self.fields for one in self.terms):
            raise ValueError(f"{self.name}: terms belong to fields 0 to {self.fields - 1}")


class Fields(NamedTuple):
    """values [n, T, fields, points] in float64 at times [T]; numbers [n, parameters]; fine [n]: finite to the end."""

    times: Tensor
    values: Tensor
    numbers: Tensor
    fine: Tensor


def _family(name: str, make: Callable[..., tuple[Term, ...]], fields: int = 1, **rest: Any) -> Family:
    nominal = rest.pop("nominal")
    named = SimpleNamespace(**{one: parameter(one) for one in nominal})
    return Family(name, make(named, *variables(fields)), nominal, fields, **rest)


def _wave(p: Any, u: Expression, v: Expression) -> tuple[Term, ...]:
    return Term(0, 0, v), Term(1, 2, square(p.c) * u)


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        one.name: one
        for one in (
            _family("advection", lambda p, u: (Term(0, 1, -p.beta * u, True),), nominal={"beta": 0.5}),
            _family("heat", lambda p, u: (Term(0, 2, p.c * u, True),), nominal={"c": 3e-3}),
            _family(
                "burgers",
                lambda p, u: (Term(0, 2, p.nu * u, True), Term(0, 1, -0.5 * square(u))),
                nominal={"nu": 1e-2},
            ),
            _family(
                "kdv",
                lambda p, u: (Term(0, 3, -p.delta * u, True), Term(0, 1, -0.5 * square(u))),
                nominal={"delta": 4.84e-4},
                dt=5e-4,
            ),
            _family(
                "logistic_reaction",
                lambda p, u: (Term(0, 2, p.nu * u, True), Term(0, 0, p.rho * u * (1.0 - u))),
                nominal={"nu": 3e-3, "rho": 1.0},
                level=0.5,
                size=0.4,
            ),
            _family(
                "bistable_reaction",
                lambda p, u: (Term(0, 2, p.nu * u, True), Term(0, 0, p.rho * u * (1.0 - u) * (u - p.a))),
                nominal={"nu": 3e-3, "rho": 1.0, "a": 0.3},
                level=0.5,
                size=0.4,
            ),
            _family(
                "cahn_hilliard",
                lambda p, u: (Term(0, 4, -p.gamma * u, True), Term(0, 2, p.m * (u**3 - u))),
                nominal={"gamma": 1e-6, "m": 1e-3},
            ),
            _family("wave", _wave, 2, nominal={"c": 0.5}),
            _family(
                "klein_gordon",
                lambda p, u, v: (*_wave(p, u, v), Term(1, 0, -p.mass * u)),
                2,
                nominal={"c": 1.0, "mass": 0.1},
            ),
            _family(
                "sine_gordon",
                lambda p, u, v: (*_wave(p, u, v), Term(1, 0, -p.k * sin(u))),
                2,
                nominal={"c": 1.0, "k": 1.0},
            ),
        )
    }
)
"""By name: transport, diffusion, shocks that are smoothed, dispersion, reactions, phases that part, and waves."""


def draw_fields(
    family: Family, equations: int, starts: int, seed: int, points: int = 128, frames: int = 32,
    device: torch.device | str = "cpu", part: str = "all",
) -> Fields:  # fmt: skip
    """Return `starts` random starts of each of `equations` sets of numbers, solved; the same for the same seed.

    part: of `sciode.prose.samples.PARTS`: sets of numbers of different parts never meet.
    """
    generator = torch.Generator().manual_seed(seed)
    numbers = numbers_of(family.nominal, family.spread, equations, seed, part).repeat_interleave(starts, 0)
    begin = random_fields(family, equations * starts, points, generator)
    times = torch.linspace(0, family.end, frames, dtype=torch.float64)
    return evolve_fields(family, numbers.to(device), begin.to(device), times)


def random_fields(family: Family, count: int, points: int, generator: torch.Generator, waves: int = 4) -> Tensor:
    """Return starts [count, fields, points]: `level` and a few waves of random sizes and phases, together <= `size`."""
    draws = torch.rand(2, count, waves, 1, generator=generator, dtype=torch.float64)
    x = torch.arange(points, dtype=torch.float64) / points
    order = torch.arange(1, waves + 1, dtype=torch.float64)[:, None]
    shapes = torch.sin(2 * math.pi * (order * x + draws[1])) * draws[0] / order
    first = family.level + family.size * shapes.sum(1) / (1 / order).sum()
    rest = first.new_zeros(count, family.fields - 1, points)
    return torch.cat((first[:, None], rest), 1)


def evolve_fields(family: Family, numbers: Tensor, start: Tensor, times: Tensor, dt: float | None = None) -> Fields:
    """Solve from start [n, fields, points] with parameters numbers [n, p], at times [T].

    Modes from a third of the points on are dropped, so that quadratic terms alias into none that is kept. dt: the
    family's own by default. Raises ValueError for fewer than 8 points or another number of fields or parameters.
    """
    count, fields, points = start.shape
    if fields != family.fields or numbers.shape != (count, len(family.nominal)) or points < 8:
        raise ValueError(
            f"{family.name}: expected {family.fields} fields on 8 points or more and {len(family.nominal)} parameters, "
            f"got {tuple(start.shape)} and {tuple(numbers.shape)}"
        )
    own = dict(zip(family.nominal, numbers.double()[..., None].unbind(1), strict=True))
    k = 2 * math.pi / family.length * torch.arange(points // 2 + 1, dtype=torch.float64, device=start.device)
    kept = (torch.arange(points // 2 + 1, device=start.device) < points / 3).double()

    def modes(values: Tensor) -> Tensor:
        return torch.fft.rfft(values, dim=-1) * kept

    decay = torch.zeros(count, fields, len(k), dtype=torch.complex128, device=start.device)
    one = [torch.ones_like(own_number) for own_number in list(own.values())[:1]] * fields
    for term in family.terms:
        if term.own:
            decay[:, term.field] += torch.as_tensor(term.expression.at(one, own)) * (1j * k) ** term.order
    others = [term for term in family.terms if not term.own]

    def rate(t: Tensor, hat: Tensor) -> Tensor:
        u = torch.fft.irfft(hat, n=points, dim=-1).unbind(1)
        found = [torch.zeros_like(hat[:, 0]) for _ in range(fields)]
        for term in others:
            value = torch.as_tensor(term.expression.at(u, own)).expand(count, points)
            found[term.field] = found[term.field] + modes(value) * (1j * k) ** term.order
        return torch.stack(found, 1)

    states = march(decay, rate, modes(start.double()), times.tolist(), dt or family.dt)
    values = torch.stack([torch.fft.irfft(hat, n=points, dim=-1) for hat in states], 1)
    fine = values.isfinite().flatten(1).all(1)
    return Fields(times, values, numbers, fine)
