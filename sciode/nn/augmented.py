"""Augmented neural ODEs: room beside the state, in which trajectories can pass one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from torch import Tensor, nn
from torch.nn.functional import pad

__all__ = ["Augmented", "augment", "project"]


def augment(y: Tensor, extra: int) -> Tensor:
    """Return [y, 0]: `extra` zeros appended to the last axis, [*batch, D] -> [*batch, D + extra].

    Raises ValueError for extra < 0 or a y without a last axis.
    """
    if extra < 0 or y.ndim < 1:
        raise ValueError(f"augment needs extra >= 0 and y [*batch, D], got extra={extra} and y {tuple(y.shape)}")
    return pad(y, (0, extra))


def project(y: Tensor, extra: int) -> Tensor:
    """Return y without its last `extra` components, [*batch, D + extra] -> [*batch, D]: undoes `augment`.

    Raises ValueError if nothing would be left.
    """
    if extra < 0 or y.ndim < 1 or y.shape[-1] <= extra:
        raise ValueError(f"project needs 0 <= extra < the last axis of y, got extra={extra} and y {tuple(y.shape)}")
    return y[..., : y.shape[-1] - extra]


@final
class Augmented(nn.Module):
    """An augmented neural ODE: d[y, a]/dt = f(t, [y, a]) with a(0) = 0; y(t) alone is looked at.

    Trajectories of y' = f(y) cannot cross, so its flow maps cannot do all a network can (x -> -x in one dimension). In
    D + extra dimensions they pass one another, and the learned field stays simple: cheap to integrate.

        field = Augmented(Autonomous(mlp([D + 5, 64, D + 5], nn.Tanh)), size=D, extra=5)
        ys = field.project(solve(field, field.augment(y0), ts).ys)

    Parameters
    ----------
    field: f(t, z) -> dz/dt for z [*batch, size + extra].
    size: D, the width of the state proper. extra: how many components are added; 1 to 10 are usual.

    Raises ValueError for size < 1 or extra < 0, and in `forward` for a state that was not augmented.
    Compiles under engine="compiled" if `field` does.
    Source: Dupont, Doucet, Teh: Augmented Neural ODEs (NeurIPS 2019).
    """

    def __init__(self, field: Callable[[Tensor, Tensor], Tensor], *, size: int, extra: int) -> None:
        super().__init__()
        if size < 1 or extra < 0:
            raise ValueError(f"size must be >= 1 and extra >= 0, got {size} and {extra}")
        self.field, self.size, self.extra = field, size, extra

    def augment(self, y: Tensor) -> Tensor:
        """Return [y, 0]: a state [*batch, D] made ready for `solve`. ValueError if its width is not `size`."""
        if y.ndim < 1 or y.shape[-1] != self.size:
            raise ValueError(
                f"y must be [*batch, {self.size}], the state without its added zeros, got {tuple(y.shape)}"
            )
        return augment(y, self.extra)

    def project(self, y: Tensor) -> Tensor:
        """Return the state proper, [*batch, D + extra] -> [*batch, D], e.g. of `solution.ys`."""
        self._check(y)
        return project(y, self.extra)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Return f(t, [y, a])."""
        self._check(y)
        return self.field(t, y)

    def _check(self, y: Tensor) -> None:
        if y.ndim < 1 or y.shape[-1] != self.size + self.extra:
            raise ValueError(
                f"y must be [*batch, {self.size} + {self.extra}], got {tuple(y.shape)}: start from field.augment(y0)"
            )
