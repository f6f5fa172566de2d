"""Hybrid fields: what is known by a formula, what is not by a network that starts at zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor, nn

__all__ = ["Hybrid", "starts_at_zero"]

Field = Callable[[Tensor, Tensor], Tensor]


def starts_at_zero(net: nn.Module) -> nn.Module:
    """Set the weights and bias of the network's last `nn.Linear` to 0, in place, and return the network: net(x) = 0.

    Its gradient is not zero: the last layer moves in the first step, the layers below from the second on.

    Raises ValueError if no module in it is an `nn.Linear`, or if it ends in another module with parameters.
    """
    leaves = [part for part in net.modules() if not list(part.children()) and list(part.parameters())]
    if not leaves or not isinstance(leaves[-1], nn.Linear):
        raise ValueError("a network that starts at zero must end in nn.Linear: end it so, or pass zero_start=False")
    nn.init.zeros_(leaves[-1].weight)
    if leaves[-1].bias is not None:
        nn.init.zeros_(leaves[-1].bias)
    return net


@final
class Hybrid(nn.Module):
    """A known field and a learned correction of it: dy/dt = known(t, y) + residual(t, y).

        known = Mechanistic(swing, fixed={"gravity": 9.81, "length": 1.0})
        friction = Autonomous(mlp([1, 32, 1], nn.Tanh))
        field = Hybrid(known, friction, names=("angle", "rate"), reads=("rate",), corrects=("rate",))

    Before training it is the known field exactly, so training starts from the physics, not from noise. Penalise the
    residual's size, or give it little to read, where known part and residual could explain the same thing: a learned
    constant and a free network compete.

    Parameters
    ----------
    known: f(t, y) -> [*batch, D]; a `Mechanistic` says which of its constants are learned, which fixed.
    residual: r(t, z) -> [*batch, number of corrected components], z the components it reads.
    names: of y's D components; needed for the next two.
    reads: the components the residual sees, in this order; None = all. corrects: those it is added to; None = all.
    zero_start: zero the residual's last layer (`starts_at_zero`), in place; False leaves it as it is.

    Raises ValueError for unknown or repeated names, a residual of the wrong width, or no last `nn.Linear` to zero.
    Compiles under engine="compiled" if both parts do.
    Source: Rackauckas et al.: Universal Differential Equations for Scientific Machine Learning (2020).
    """

    def __init__(
        self,
        known: Field,
        residual: Field,
        *,
        names: Sequence[str] | None = None,
        reads: Sequence[str] | None = None,
        corrects: Sequence[str] | None = None,
        zero_start: bool = True,
    ) -> None:
        super().__init__()
        if (reads is not None or corrects is not None) and names is None:
            raise ValueError("reads and corrects are names: pass names=(...) of all components, in the state's order")
        self.known, self.residual = known, residual
        self.size = None if names is None else len(names)
        self.reads = _places("reads", reads, names)
        self.corrects = _places("corrects", corrects, names)
        if zero_start:
            if not isinstance(residual, nn.Module):
                raise ValueError("residual: only an nn.Module can be made to start at zero; pass zero_start=False")
            starts_at_zero(residual)

    def correction(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the residual alone, [*batch, D]; 0 in components it does not correct."""
        if self.size is not None and y.shape[-1] != self.size:
            raise ValueError(f"y must have the {self.size} named components in its last axis, got {tuple(y.shape)}")
        seen = y if self.reads is None else torch.stack([y[..., k] for k in self.reads], -1)
        added = self.residual(t, seen)
        width = y.shape[-1] if self.corrects is None else len(self.corrects)
        if added.shape != (*y.shape[:-1], width):
            raise ValueError(f"the residual must return {(*y.shape[:-1], width)}, got {tuple(added.shape)}")
        if self.corrects is None:
            return added
        still = torch.zeros_like(y[..., 0])
        place = {component: k for k, component in enumerate(self.corrects)}
        return torch.stack([added[..., place[k]] if k in place else still for k in range(y.shape[-1])], -1)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Return known(t, y) + residual(t, y), [*batch, D]."""
        return self.known(t, y) + self.correction(t, y)


def _places(argument: str, wanted: Sequence[str] | None, names: Sequence[str] | None) -> tuple[int, ...] | None:
    if names is not None and len(set(names)) != len(names):
        raise ValueError(f"names must differ from one another, got {tuple(names)}")
    if wanted is None or names is None:
        return None
    if isinstance(wanted, str) or not wanted or len(set(wanted)) != len(wanted) or not set(wanted) <= set(names):
        raise ValueError(f"{argument} must be different names among {tuple(names)}, got {wanted!r}")
    return tuple(list(names).index(name) for name in wanted)
