"""Where residuals are looked at: points of the box, afresh whenever they are asked for, and points of its walls."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.func import vmap

from sciode.pde import Box, Domain, Evolution, FieldFunction, draw, weighted
from sciode.training import Block, derive_seed

__all__ = ["Points", "check_periodic"]

_INSIDE, _WALL = 1, 2


@dataclass(frozen=True)
class Points:
    """How many points, and how they are drawn: count inside, walls on the boundary, of weight `weight`.

    count: None = four for each weight of the network; with fewer than one a weight it oscillates between them. walls:
    None = 1 % of them, 10 at least. weight: of the mean square of what the walls forbid, beside that of the residual.
    how: a name in `sciode.pde.WAYS`; "jittered" leaves no gaps and repeats nothing, a "grid" is fitted and overfitted.
    aimed: the share s of the points that is drawn where the residual r of the weights at hand is large, with density

        p = (1 - s) + s |r| / mean |r|,   out of `candidates` times as many,

    which is `sciode.pde.weighted` (RAD) with floor (1 - s)/s. unbiased: every point's square counts 1/p, so that the
    loss is the box's mean of |r|^2, as it is with s = 0, only less noisy; False leaves that out, as RAD's authors do:
    the loss is then another one, larger, that presses the large residuals down.

    Good values: 0.5 where a front is narrow and points are few (a front of a hundredth of the ring, 205 weights, 100
    points: the fit's error fell from 3.2e-3 to 6.6e-4, mean of four seeds); 0.8 was worse than 0, and 0 is right where
    the field is smooth all over: choosing costs a residual at each candidate.

    Raises ValueError for numbers below one, or a share outside [0, 1).
    """

    count: int | None = None
    walls: int | None = None
    weight: float = 1.0
    how: str = "jittered"
    aimed: float = 0.0
    candidates: int = 4
    unbiased: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.aimed < 1 or self.candidates < 1:
            raise ValueError(
                f"points: aimed must lie in [0, 1) and candidates be at least 1, got {self.aimed} and {self.candidates}"
            )
        if any(n is not None and n < 1 for n in (self.count, self.walls)) or not 0 <= self.weight < math.inf:
            raise ValueError("points: count and walls must be at least 1, weight at least 0 and finite")

    def inside(self, where: Evolution | Domain, weights: int, like: Tensor, *seed: int) -> Tensor:
        """Points of the domain [N, d]."""
        own = derive_seed(*seed, _INSIDE)
        return draw(_domain(where), self.count or 4 * weights, self.how, own, like.device, like.dtype)

    def drawn(
        self, problem: Evolution, residual: FieldFunction, weights: int, like: Tensor, *seed: int
    ) -> tuple[Tensor, Tensor | None]:
        """Points of the box [N, d] that look at a residual, and what each one's residual is multiplied with [N, 1].

        None: 1, where nothing is aimed or nothing weighed.
        """
        if not self.aimed:
            return self.inside(problem, weights, like, *seed), None
        count = self.count or 4 * weights

        def finite(x: Tensor) -> Tensor:
            # Points are drawn of what is not finite, too: the loss on them says so, and ends a step by its status.
            return residual(x).nan_to_num(0.0, 0.0, 0.0)

        found = weighted(
            _domain(problem), finite, count, self.how, self.candidates * count, derive_seed(*seed, _INSIDE),
            floor=(1.0 - self.aimed) / self.aimed, device=like.device, dtype=like.dtype,
        )  # fmt: skip
        return found.points, found.weights.sqrt().unsqueeze(1) if self.unbiased else None

    def on_walls(self, where: Evolution | Domain, weights: int, like: Tensor, *seed: int) -> tuple[Tensor, Tensor]:
        """Points of the walls and their outward normals, [W, d] each."""
        count = self.walls or max((self.count or 4 * weights) // 100, 10)
        found = _domain(where).boundary(count, derive_seed(*seed, _WALL), like.device, like.dtype)
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


def _domain(where: Evolution | Domain) -> Domain:
    return where if isinstance(where, Domain) else Box(where.lower, where.upper)


def check_periodic(problem: Evolution, field: FieldFunction, like: Tensor, what: str = "field") -> None:
    """Raise ValueError where a problem is periodic and the field, or what else it is called, is not."""
    if not problem.periodic:
        return
    low, high = like.new_tensor(problem.lower), like.new_tensor(problem.upper)
    inside = draw(_domain(problem), 16, "sobol", 0, like.device, like.dtype)
    values = vmap(field)(inside)
    size = (values - values.mean(0)).abs().max()
    for axis in range(problem.dimension):
        low_end, high_end = inside.clone(), inside.clone()
        low_end[:, axis], high_end[:, axis] = low[axis], high[axis]
        if float((vmap(field)(low_end) - vmap(field)(high_end)).abs().max()) > 1e-3 * float(size):
            raise ValueError(
                f"{what}: {problem.name} is periodic on axis {axis} and this network is not: give it "
                "embedding=PeriodicEmbedding(periods)"
            )
