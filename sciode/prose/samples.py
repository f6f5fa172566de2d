"""Trajectories of systems whose numbers are drawn, solved in one batch a system by `sciode.solve`.

Numbers are rounded to what tokens can say BEFORE the solve, so that an equation and its trajectory agree exactly, and
so that a system of one number has only some 35 to 160 values of it. Which part of the data a set of numbers belongs to
is therefore a function of the set: training, validation and tests never share one, whatever the seeds.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciode.prose.systems import SYSTEMS, System
from sciode.prose.trees import Expression
from sciode.prose.vocabulary import mantissa_of, on_grid
from sciode.solvers import solve
from sciode.solvers.suggest import choose

__all__ = ["PARTS", "Drawing", "Samples", "draw", "equations_of", "noisy", "numbers_of", "part_of", "simulate"]

_CLASSES = 7
PARTS: Mapping[str, frozenset[int]] = MappingProxyType(
    {
        "test": frozenset({0}),
        "validation": frozenset({3}),
        "train": frozenset({1, 2, 4, 5, 6}),
        "all": frozenset(range(_CLASSES)),
    }
)
"""Classes of sets of numbers that each part of the data has: of each number's values, whatever the others, one in seven
is held out for tests and one in seven for validation."""

_ROUNDS = 200


@dataclass(frozen=True)
class Drawing:
    """What is drawn of each system: equations times starts; and how it is solved. The defaults are the paper's.

    systems: names in `SYSTEMS`, or systems of your own. equations: sets of numbers a system; starts: initial values a
    set. end, frames: times. most: trajectories that grow beyond are left out, as are those that the solver gives up.
    part: of `PARTS`, sets of numbers of different parts never meet. Raises ValueError for unknown systems, two of one
    name, or sizes below one.
    """

    systems: tuple[str | System, ...] = tuple(SYSTEMS)
    equations: int = 100
    starts: int = 20
    end: float = 6.0
    frames: int = 192
    rtol: float = 1e-5
    atol: float = 1e-6
    most: float = 1e3
    method: str = "tsit5"
    engine: str = "auto"
    part: str = "train"

    def __post_init__(self) -> None:
        for one in self.systems:
            if not isinstance(one, System):
                choose("system", one, SYSTEMS)
        if len(set(self.names)) < len(self.systems):
            raise ValueError(f"systems must have names of their own, got {', '.join(self.names)}")
        choose("part", self.part, PARTS)
        if min(len(self.systems), self.equations, self.starts, self.frames - 1) < 1 or not self.end > 0:
            raise ValueError(f"sizes must be at least 1, frames at least 2 and end positive, got {self}")

    @property
    def chosen(self) -> tuple[System, ...]:
        """The systems themselves."""
        return tuple(one if isinstance(one, System) else SYSTEMS[one] for one in self.systems)

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(one.name for one in self.chosen)

    @property
    def times(self) -> Tensor:
        """Return the times [frames], float64."""
        return torch.linspace(0, self.end, self.frames, dtype=torch.float64)


class Samples(NamedTuple):
    """Trajectories of one system: values [n, frames, d] on the device that was asked for, the set of numbers that each
    has [n], and all sets' equations.

    left_out: how many were drawn beside those, which grew too large or were given up.
    """

    system: str
    values: Tensor
    owner: Tensor
    equations: tuple[tuple[Expression, ...], ...]
    left_out: int


def draw(how: Drawing, seed: int, device: torch.device | str = "cpu") -> Iterator[Samples]:
    """Yield the samples of one system after another; the same for the same seed, whatever other systems are drawn."""
    for system in how.chosen:
        generator = np.random.default_rng([seed, zlib.crc32(system.name.encode())])
        numbers = numbers_of(system.nominal, system.spread, how.equations, generator, how.part)
        starts = generator.uniform(-system.start, system.start, (how.equations * how.starts, system.dimension))
        if system.first is not None:
            starts[:, 0] = system.first
        owner = torch.arange(how.equations).repeat_interleave(how.starts)
        values, fine = simulate(system, numbers[owner], torch.from_numpy(starts), how, device)
        named = [dict(zip(system.nominal, row, strict=True)) for row in numbers.tolist()]
        trees = system.equations
        equations = tuple(tuple(one.bound(own) for one in trees) for own in named)
        kept = fine.cpu()
        yield Samples(system.name, values[fine], owner[kept], equations, int((~kept).sum()))


def simulate(
    system: System, numbers: Tensor, starts: Tensor, how: Drawing, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Return trajectories [n, frames, d] and which are fit for use, bool [n]: solved to the end and bounded.

    numbers: the system's parameters [n, p]; starts: [n, d]. Float64.
    """
    y0, args = starts.to(device, torch.float64), numbers.to(device, torch.float64)
    options: dict[str, Any] = {"method": how.method, "rtol": how.rtol, "atol": how.atol, "engine": how.engine}
    with torch.no_grad():
        found = solve(_field(system), y0, how.times.to(device), args=args, throw=False, **options)
    values = found.ys.transpose(0, 1)
    bounded = values.isfinite().flatten(1).all(1) & (values.abs().flatten(1).amax(1) < how.most)
    return values, bounded & (found.status == 0)


@cache
def _field(system: System) -> Any:
    """The right-hand side, with code of its own name: engines know a field by its code, and serve 8 with the same."""
    named, equations = list(system.nominal), system.equations

    def field(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
        own = dict(zip(named, p.unbind(-1), strict=True))
        u = y.unbind(-1)
        return torch.stack([torch.as_tensor(one.at(u, own)).to(y).expand(y.shape[:-1]) for one in equations], -1)

    field.__code__ = field.__code__.replace(co_name=f"field_of_{system.name}")
    return field


def noisy(values: Tensor, level: float, seed: int) -> Tensor:
    """Return trajectories [n, frames, d] with white noise whose norm is about `level` times theirs, each its own.

    Raises ValueError for a negative level.
    """
    if not 0 <= level < float("inf"):
        raise ValueError(f"level must be at least 0, got {level}")
    draws = torch.randn(values.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    size = values.square().mean((1, 2), keepdim=True).sqrt()
    return values + level * size * draws.to(values)


def numbers_of(
    nominal: Mapping[str, float], spread: float, count: int, seed: int | np.random.Generator, part: str = "all"
) -> Tensor:
    """Return sets of parameters [count, p], uniform within a share `spread` of nominal ones, on the grid of tokens.

    part: of `PARTS`. A system without numbers has the same empty set in all. ValueError where a part has none.
    """
    around: NDArray[np.float64] = np.array(list(nominal.values()))
    generator, rows = np.random.default_rng(seed), list[list[float]]()
    if not len(around):
        return torch.zeros(count, 0, dtype=torch.float64)
    for _ in range(_ROUNDS):
        drawn = around * generator.uniform(1 - spread, 1 + spread, (count, len(around)))
        rounded = [[on_grid(value) for value in row] for row in drawn.tolist()]
        rows += [row for row in rounded if part == "all" or part_of(row) == part]
        if len(rows) >= count:
            return torch.tensor(rows[:count], dtype=torch.float64)
    raise ValueError(f"within {spread:g} of {dict(nominal)} no three digits belong to part {part!r}: widen the spread")


def part_of(numbers: Sequence[float]) -> str:
    """Return the part, "train", "validation" or "test", of a set of numbers on the grid of tokens.

    The sum of k-th multiples of their digits, modulo seven.
    """
    # Multiples that are none of seven: each number's values go through all classes, whatever the others.
    total = sum((1 + place % (_CLASSES - 1)) * mantissa_of(one) for place, one in enumerate(numbers))
    return next(name for name, classes in PARTS.items() if total % _CLASSES in classes)


def equations_of(samples: Sequence[Samples]) -> list[tuple[Expression, ...]]:
    """Return the equations of every trajectory of some systems, in their order."""
    return [one.equations[place] for one in samples for place in one.owner.tolist()]
