"""A task: one problem of a family, and its parameters as a context that bandits read."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciode.pinn.decomposition import Decomposition
from sciode.pinn.families import FAMILIES, Family
from sciode.pinn.problem import Problem
from sciode.solvers.suggest import choose

__all__ = ["Task", "draw_tasks"]


@dataclass(frozen=True)
class Task:
    """A problem by the name of its family in `FAMILIES` and the parameters that its function takes first.

    official_supervision: also tell networks the exact values at the last time, as the authors' code does, which is what
    is asked for. Off by default. Raises ValueError for an unknown family or another number of parameters.
    """

    family: str
    values: tuple[float, ...]
    official_supervision: bool = False

    def __post_init__(self) -> None:
        choose("family", self.family, FAMILIES)
        if len(self.values) != (count := _count(FAMILIES[self.family])):
            raise ValueError(f"{self.family} has {count} parameters, got {len(self.values)}")

    def problem(self) -> Problem:
        """Return the boundary-value problem."""
        return FAMILIES[self.family].make(*self.values, official_supervision=self.official_supervision)

    def cut(self, problem: Problem) -> Decomposition:
        """Return the pieces that the authors cut the family's domain into."""
        return FAMILIES[self.family].cut(problem)

    @property
    def context(self) -> Tensor:
        """The parameters, less the mean of their family's range and over its standard deviation, float64 [d]."""
        family = FAMILIES[self.family]
        middle, spread = (family.low + family.high) / 2, (family.high - family.low) / math.sqrt(12)
        return (torch.tensor(self.values, dtype=torch.float64) - middle) / spread


def draw_tasks(
    family: str, count: int, seed: int, share: float = 1.0, official_supervision: bool = False
) -> list[Task]:
    """Return tasks with parameters drawn uniformly from the first `share` of the family's range.

    share: below 1 for budgets that the far end is too hard for. Raises ValueError for an unknown family, no task, or a
    share outside (0, 1].
    """
    choose("family", family, FAMILIES)
    if count < 1 or not 0 < share <= 1:
        raise ValueError(f"draw at least one task from a share in (0, 1] of the range, got {count} and {share}")
    own, generator = FAMILIES[family], torch.Generator().manual_seed(seed % 2**63)
    drawn = torch.rand(count, _count(own), generator=generator, dtype=torch.float64)
    values = own.low + share * (own.high - own.low) * drawn
    return [Task(family, tuple(row), official_supervision) for row in values.tolist()]


def _count(family: Family) -> int:
    """A family's own parameters come before `official_supervision`."""
    return list(inspect.signature(family.make).parameters).index("official_supervision")
