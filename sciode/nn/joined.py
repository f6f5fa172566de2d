"""Networks of several arguments: what a field hands over part by part, side by side for a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

__all__ = ["Autonomous", "Joined"]


@final
class Joined(nn.Module):
    """A function of several arguments from a network of one: (a, b, ...) -> net([a, b, ...]).

    `Joined(mlp([1 + D, 64, D], nn.Tanh))` is a plain neural ODE f(t, y); `Joined(mlp([2 * D, 64, 1], nn.Tanh))` a
    scalar of two arguments, such as H(q, p) or L(q, v).

    Parameters
    ----------
    net: maps [*batch, sum of the parts' widths] to [*batch, out].

    forward(*parts): the last part is [*batch, D]; the others have its leading axes or broadcast to them (a time that
    is 0-d or [*batch, 1]). Widths that do not add up raise torch's own error of the first layer.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *parts: Tensor) -> Tensor:
        """Return net([parts])."""
        lead = parts[-1].shape[:-1]
        wide = [part.reshape(1) if part.ndim == 0 else part for part in parts]
        # What has its shape already is left alone: the compiler cannot expand what a forward derivative runs along.
        spread = [part if part.shape[:-1] == lead else part.expand(*lead, part.shape[-1]) for part in wide]
        return self.net(torch.cat(spread, -1))


@final
class Autonomous(nn.Module):
    """A field that does not look at the clock: (t, a, b, ...) -> f(a, b, ...).

    `Autonomous(mlp([D, 64, D], nn.Tanh))` is the plain neural ODE dy/dt = f(y).

    Parameters
    ----------
    function: a callable of all arguments but the time, one `nn.Module` or a plain function.

    Raises ValueError if it is not callable.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        if not callable(function):
            raise ValueError(f"function: expected a callable f(y), got {type(function).__name__}")
        self.function = function

    def forward(self, t: Tensor, *parts: Tensor) -> Tensor:
        """Return f(parts)."""
        return self.function(*parts)
