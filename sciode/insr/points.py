"""Where residuals are looked at: points of the box, afresh whenever they are asked for, and points of its walls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciode.pde import Box, Evolution, FieldFunction, draw
from sciode.training import Block, derive_seed

__all__ = ["Points", "check_periodic"]

_INSIDE, _WALL = 1, 2


@dataclass(frozen=True)
class Points:
    """How many points, and how they are drawn: count inside, walls on the boundary, of weight `weight`.

    count: None = four for each weight of the network; with fewer than one a weight it oscillates between them. walls:
    None = 1 % of them, 10 at least. weight: of the mean square of what the walls forbid, beside that of the residual.
    how: a name in `sciode.pde.WAYS`; "jittered" leaves no gaps and repeats nothing, a "grid" is fitted and overfitted.

    Raises ValueError for numbers below one.
    """

    count: int | None = None
    walls: int | None = None
    weight: float = 1.0
    how: str = "jittered"

    def __post_init__(self) -> None:
        if any(n is not None and n < 1 for n in (self.count, self.walls)) or not self.weight >= 0:
            raise ValueError("points: count and walls must be at least 1, weight at least 0")

    def inside(self, problem: Evolution, weights: int, like: Tensor, *seed: int) -> Tensor:
        """Points of the box [N, d]."""
        own = derive_seed(*seed, _INSIDE)
        return draw(_box(problem), self.count or 4 * weights, self.how, own, like.device, like.dtype)

    def on_walls(self, problem: Evolution, weights: int, like: Tensor, *seed: int) -> tuple[Tensor, Tensor]:
        """Points of the walls and their outward normals, [W, d] each."""
        count = self.walls or max((self.count or 4 * weights) // 100, 10)
        found = _box(problem).boundary(count, derive_seed(*seed, _WALL), like.device, like.dtype)
        return found.points, found.normals

    def walled(
        self,
        problem: Evolution,
        told: int,
        field: Callable[[Tensor], FieldFunction],
        weights: int,
        like: Tensor,
        *seed: int,
    ) -> list[Block]:
        """The block of what the walls forbid every field that is told: its values, or those along the normal."""
        if problem.periodic or not self.weight:
            return []

        def forbidden(theta: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
            values = field(theta)(at[0]).reshape(told, problem.channels)
            return values.reshape(-1) if problem.walls == "zero" else values @ at[1]

        return [Block(forbidden, self.on_walls(problem, weights, like, *seed), self.weight)]


def _box(problem: Evolution) -> Box:
    return Box(problem.lower, problem.upper)


def check_periodic(problem: Evolution, field: FieldFunction, like: Tensor) -> None:
    """Raise ValueError where a problem is periodic and the field is not."""
    if not problem.periodic:
        return
    low, high = like.new_tensor(problem.lower), like.new_tensor(problem.upper)
    inside = low + (high - low) * 0.37
    for axis in range(problem.dimension):
        ends = [torch.cat((inside[:axis], x[axis : axis + 1], inside[axis + 1 :])) for x in (low, high)]
        if not torch.allclose(field(ends[0]), field(ends[1]), rtol=1e-3, atol=1e-3):
            raise ValueError(
                f"field: {problem.name} is periodic on axis {axis} and this network is not: give it "
                "embedding=PeriodicEmbedding(periods)"
            )
