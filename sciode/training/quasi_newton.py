"""L-BFGS for many functions at once, each arm with a history and a line search of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from sciode.training.side_by_side import CONVERGED, GOING, STUCK, Memory, Minimiser, Objective, stopped

__all__ = ["LBFGS"]

_ARMIJO, _CURVATURE = 1e-4, 0.9
_LEAST = 1e-12
"""A pair of steps counts if s.y is above this share of |y|^2."""


@final
@dataclass(frozen=True)
class LBFGS(Minimiser):
    """theta <- theta - t B g with B from the last `history` steps, and t by bisection for the weak Wolfe conditions.

    iterations: evaluations. Every arm has a search of its own and begins the next one as soon as its last is over, so
    that none waits for another's. searches: evaluations one may take; then the best length seen is taken. An arm
    without any that lowers its loss forgets its history and descends along its gradient; fails that, too, it is stuck.
    tolerance: the largest entry of a gradient that counts as none. Good values: the defaults; after Adam. Raises
    ValueError for bad numbers.

    B is kept in compact form: products of steps and changes with one another, so that B g is four products of matrices
    and two triangular solves, whatever the history.
    Source: Nocedal & Wright (2006), section 7.2; Byrd, Nocedal & Schnabel, Math. Program. 63 (1994), theorem 2.2;
    Lewis & Overton, Math. Program. 141 (2013), algorithm 4.6.
    """

    iterations: int = 1000
    history: int = 50
    tolerance: float = 1e-10
    searches: int = 20
    still: bool = True
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if min(self.iterations, self.history, self.searches) < 1 or not self.tolerance >= 0:
            raise ValueError(f"iterations, history and searches must be >= 1 and tolerance >= 0, got {self}")

    def begin(self, theta: Tensor) -> Memory:
        """See `Minimiser.begin`."""
        empty = theta.new_zeros(len(theta), self.history, theta.shape[1])
        square = theta.new_zeros(len(theta), self.history, self.history)
        pairs = {"steps": empty, "changes": empty.clone(), "products": square, "squares": square.clone()}
        return {**super().begin(theta), **pairs, "gradient": torch.full_like(theta, torch.nan)}

    def step(self, memory: Mapping[str, Tensor], objective: Objective, k: int) -> Memory:
        """See `Minimiser.step`; the first evaluation is that of the start."""
        now = dict(memory)
        if k == 0:
            loss, now["gradient"] = objective(now["theta"])
            now = stopped(now, loss, now["gradient"])
            return self._turned_to(now, torch.ones_like(loss, dtype=torch.bool))
        going = now["state"] == GOING
        now, enough = self._looked(now, objective, going)
        found = now["best"].isfinite()
        over = going & (enough | (now["tries"] >= self.searches))
        if k == self.iterations - 1:
            over = over | (going & found)
        return self._turned_to(_moved(now, over & found, over & ~found), over)

    def _looked(self, now: Memory, objective: Objective, going: Tensor) -> tuple[Memory, Tensor]:
        """One evaluation of each arm's search; which of them have a length that does."""
        length, direction, slope = now["length"], now["direction"], now["slope"]
        at = torch.where(going[:, None], now["theta"] + length[:, None] * direction, now["theta"])
        value, gradient = objective(at)
        fine = going & value.isfinite() & gradient.isfinite().all(1)
        lower = fine & (value <= now["loss"] + _ARMIJO * length * slope) & (value < now["loss"])
        flat = (gradient * direction).sum(1) >= _CURVATURE * slope
        better = lower & (value <= now["best"])
        high = torch.where(lower, now["high"], length)
        low = torch.where(lower & ~flat, length, now["low"])
        return {
            **now,
            "best": torch.where(better, value, now["best"]),
            "best theta": torch.where(better[:, None], at, now["best theta"]),
            "best gradient": torch.where(better[:, None], gradient, now["best gradient"]),
            "low": low,
            "high": high,
            "length": torch.where(high.isfinite(), (low + high) / 2, 2 * low),
            "tries": now["tries"] + 1,
        }, lower & flat

    def _turned_to(self, now: Memory, over: Tensor) -> Memory:
        """New directions for arms whose search is over, and what a search begins with."""
        gradient = now["gradient"]
        small = gradient.abs().amax(1) <= self.tolerance
        now["state"] = torch.where((now["state"] == GOING) & small, CONVERGED, now["state"])
        direction = -_turned(now, gradient)
        slope = (direction * gradient).sum(1)
        # Where rounding has spoilt the history, the gradient itself leads down.
        plain = (now["products"][:, -1, -1] == 0) | ~(slope < 0)
        direction = torch.where(plain[:, None], -gradient, direction)
        length = torch.where(plain, 1 / gradient.abs().sum(1).clamp(min=1.0), 1.0)
        unknown = torch.full_like(slope, torch.inf)
        begun = {
            "direction": direction, "slope": (direction * gradient).sum(1), "plain": plain, "length": length,
            "low": torch.zeros_like(slope), "high": unknown, "tries": torch.zeros_like(now["state"]),
            "best": unknown, "best theta": now["theta"], "best gradient": gradient,
        }  # fmt: skip
        for name, new in begun.items():
            old = now.get(name, new)
            now[name] = torch.where(over.view(-1, *[1] * (new.ndim - 1)), new, old)
        return now


def _moved(now: Memory, moved: Tensor, failed: Tensor) -> Memory:
    """Arms at the best place of their search; those without one have no history, and are stuck if they had none."""
    step, change = now["best theta"] - now["theta"], now["best gradient"] - now["gradient"]
    product = (step * change).sum(1)
    kept = moved & (product > _LEAST * change.square().sum(1))
    now.update(_pushed(now, step, change, kept, failed))
    theta = torch.where(moved[:, None], now["best theta"], now["theta"])
    return {
        **now,
        "state": torch.where(failed & now["plain"], STUCK, now["state"]),
        "theta": theta,
        "good": theta,
        "loss": torch.where(moved, now["best"], now["loss"]),
        "gradient": torch.where(moved[:, None], now["best gradient"], now["gradient"]),
    }


def _turned(memory: Mapping[str, Tensor], gradient: Tensor) -> Tensor:
    """B g of each arm; pairs that are not there are zeros, and weigh nothing.

    With S and Y the steps and changes, oldest first, R the upper triangle of S'Y, D its diagonal and c = s'y / y'y of
    the newest pair: a = R^-1 S'g and B g = c g + S R^-T (D a + c (Y'Y a - Y'g)) - c Y a.
    """
    steps, changes, products = memory["steps"], memory["changes"], memory["products"]
    diagonal = products.diagonal(dim1=1, dim2=2)
    upper = products + torch.diag_embed((diagonal == 0).to(products))
    newest, size = diagonal[:, -1], memory["squares"][:, -1, -1]
    scale = torch.where(size > 0, newest / torch.where(size > 0, size, 1.0), 1.0)[:, None, None]
    column = gradient.unsqueeze(-1)
    shares = torch.linalg.solve_triangular(upper, steps @ column, upper=True)
    inner = diagonal.unsqueeze(-1) * shares + scale * (memory["squares"] @ shares - changes @ column)
    back = torch.linalg.solve_triangular(upper.mT, inner, upper=False)
    turned = scale * (column - changes.mT @ shares) + steps.mT @ back
    return turned.squeeze(-1)


def _pushed(memory: Mapping[str, Tensor], step: Tensor, change: Tensor, kept: Tensor, failed: Tensor) -> Memory:
    """The pairs with the newest last, of arms that keep it; arms that failed have none any more."""
    keep, none = kept[:, None, None], failed[:, None, None]

    def chosen(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(keep, new, torch.where(none, 0.0, old))

    def followed(old: Tensor, new: Tensor) -> Tensor:
        return torch.cat((old[:, 1:], new.unsqueeze(1)), 1)

    steps, changes = followed(memory["steps"], step), followed(memory["changes"], change)
    column = change.unsqueeze(-1)
    products, squares = memory["products"].roll((-1, -1), (1, 2)), memory["squares"].roll((-1, -1), (1, 2))
    products[:, -1], products[:, :, -1] = 0.0, (steps @ column).squeeze(-1)
    squares[:, :, -1] = squares[:, -1] = (changes @ column).squeeze(-1)
    new = {"steps": steps, "changes": changes, "products": products, "squares": squares}
    return {name: chosen(value, memory[name]) for name, value in new.items()}
