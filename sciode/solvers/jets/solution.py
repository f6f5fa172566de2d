"""The Taylor coefficients of the solution of an ODE, from its field alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .jet import Jet, Joining, Tape
from .series import Series, Step

__all__ = ["taylor"]


def taylor(f: Callable[[Any, Any], Any], t: Tensor, y: Any, order: int) -> tuple[Any, ...]:
    """(y_0, ..., y_order) of the solution y(t + s) = sum_k y_k s^k of y' = f(t, y), y_k = (1/k!) d^k y/dt^k.

    From y_0 = y follows y_{k+1} = [f(t + s, y(t + s))]_k / (k + 1). t is any tensor that broadcasts against y [...]; y
    is a tensor or nested tuples and dicts of tensors, and so is each y_k, with the same shapes. All of it can be
    differentiated, as often as wanted, with respect to t, y and what `f` closes over.

    `f` is called once, on jets; then its operations are carried from order to order. A linear layer with constant
    weights runs `order` times. A product or an elementary function multiplies k + 1 pairs of tensors for its k-th
    coefficient, so order (order + 1) / 2 in all (elementary functions up to three times that). Memory: every result
    of `f` is kept, in `order` coefficients. `f` sees values of order 0 when it branches.

    Source: Kelly, Bettencourt, Johnson, Duvenaud: Learning differential equations that are easy to solve (2020).
    """
    _check(t, order)
    leaves, spec = pytree.tree_flatten(y)
    if order == 0:
        return (y,)
    tape: Tape = [_clock(t)]
    jets = [Jet([leaf], tape) for leaf in leaves]
    with Joining() if torch.compiler.is_compiling() else nullcontext():
        slopes, found = pytree.tree_flatten(f(Jet(tape[0][0], tape), pytree.tree_unflatten(jets, spec)))
    if found != spec:
        raise ValueError(f"taylor: f must return a slope of the structure of y, {spec}; got {found}")
    for k in range(order):
        for known, step in tape if k else ():
            known.append(step(k))
        for jet, slope in zip(jets, slopes, strict=True):
            jet.known.append(_slope_at(slope, k, jet.value) / (k + 1))
    return tuple(pytree.tree_unflatten([jet.known[k] for jet in jets], spec) for k in range(order + 1))


def _check(t: Tensor, order: int) -> None:
    if not isinstance(order, int) or order < 0:
        raise ValueError(f"taylor: order is a whole number, 0 or more; got {order!r}")
    if not isinstance(t, Tensor) or not (t.is_floating_point() or t.is_complex()):
        raise ValueError(f"taylor: t is a tensor of real numbers, for example torch.tensor(0.0); got {t!r}")


def _clock(t: Tensor) -> tuple[Series, Step]:
    """Time as a series: (t, 1, 0, 0, ...)."""
    return [t], lambda k: torch.ones_like(t) if k == 1 else torch.zeros_like(t)


def _slope_at(slope: Any, k: int, like: Tensor) -> Tensor:
    """[f]_k, spread to the shape of y; a field that doesn't look at t or y returns plain tensors."""
    if not isinstance(slope, Jet):
        slope = slope if k == 0 else torch.zeros_like(slope)
    part = slope.known[k] if isinstance(slope, Jet) else slope
    if part.shape == like.shape:
        return part
    if torch.broadcast_shapes(part.shape, like.shape) != like.shape:
        raise ValueError(f"taylor: f must return the shape of y, {tuple(like.shape)}; got {tuple(part.shape)}")
    return part.expand(like.shape)
