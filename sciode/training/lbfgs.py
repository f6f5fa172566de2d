"""L-BFGS for many functions at once: an inverse Hessian from the last steps, in compact form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciode.training.quasi_newton import QuasiNewton
from sciode.training.side_by_side import Memory

__all__ = ["LBFGS"]


@final
@dataclass(frozen=True)
class LBFGS(QuasiNewton):
    """`QuasiNewton` with H from the last `history` steps. Good values: the defaults; after Adam.

    H is kept in compact form: products of steps and changes with one another, so that H g is four products of matrices
    and two triangular solves, whatever the history. Raises ValueError for bad numbers.
    Source: Nocedal & Wright (2006), section 7.2; Byrd, Nocedal & Schnabel, Math. Program. 63 (1994), theorem 2.2.
    """

    iterations: int = 1000
    history: int = 50
    tolerance: float = 1e-10
    searches: int = 20
    still: bool = True

    def __post_init__(self) -> None:
        if min(self.iterations, self.history, self.searches) < 1 or not self.tolerance >= 0:
            raise ValueError(f"iterations, history and searches must be >= 1 and tolerance >= 0, got {self}")

    def begin(self, theta: Tensor) -> Memory:
        """See `Minimiser.begin`."""
        empty = theta.new_zeros(len(theta), self.history, theta.shape[1])
        square = theta.new_zeros(len(theta), self.history, self.history)
        pairs = {"steps": empty, "changes": empty.clone(), "products": square, "squares": square.clone()}
        return {**super().begin(theta), **pairs, "gradient": torch.full_like(theta, torch.nan)}

    def turned(self, memory: Mapping[str, Tensor], gradient: Tensor) -> Tensor:
        """See `QuasiNewton.turned`."""
        return _turned(memory, gradient)

    def fresh(self, memory: Mapping[str, Tensor]) -> Tensor:
        """See `QuasiNewton.fresh`."""
        return memory["products"][:, -1, -1] == 0

    def learnt(self, memory: Memory, step: Tensor, change: Tensor, kept: Tensor, failed: Tensor) -> Memory:
        """See `QuasiNewton.learnt`."""
        return _pushed(memory, step, change, kept, failed)


def _turned(memory: Mapping[str, Tensor], gradient: Tensor) -> Tensor:
    """H g of each arm; pairs that are not there are zeros, and weigh nothing.

    With S and Y the steps and changes, oldest first, R the upper triangle of S'Y, D its diagonal and c = s'y / y'y of
    the newest pair: a = R^-1 S'g and H g = c g + S R^-T (D a + c (Y'Y a - Y'g)) - c Y a.
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
