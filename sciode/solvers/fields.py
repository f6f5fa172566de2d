"""A term bound to a state layout: what steppers call, in the one shape they know, y [B, D]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .terms import ODETerm, SDETerm
from .trees import Layout

__all__ = ["Field"]


@dataclass(frozen=True, eq=False)
class Field:
    """Evaluates a user's drift and diffusion on matrices [B, D], translating time and nesting on the way.

    sign: the direction of time, +1 or -1.
    """

    term: ODETerm | SDETerm
    layout: Layout
    args: Any = None
    sign: int = 1

    @property
    def stochastic(self) -> bool:
        """Whether there is a diffusion."""
        return isinstance(self.term, SDETerm)

    def call(self, function: Any, t: Tensor, y: Tensor) -> Any:
        """function(t, y[, args]) as the user sees it: time in y's real dtype, the state in its own nesting."""
        t = t.to(y.real.dtype if y.is_complex() else y.dtype)
        if isinstance(self.term, SDETerm) and self.term.one_clock:
            # Samples that failed are left behind in time; those that go on share the latest one.
            time = t.amax() if self.sign > 0 else t.amin()
        else:
            time = self.layout.time(t)
        state = self.layout.unravel(y)
        return function(time, state) if self.args is None else function(time, state, self.args)

    def drift(self, t: Tensor, y: Tensor) -> Tensor:
        """f(t, y) [B, D] for t [L] float64."""
        function = self.term.field if isinstance(self.term, ODETerm) else self.term.drift
        out = self.layout.ravel(self.call(function, t, y))
        return out if out.dtype == y.dtype else out.to(y.dtype)

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        """g(t, y): [B, D] for diagonal noise, else [B, D, m]."""
        assert isinstance(self.term, SDETerm)
        out = self.call(self.term.diffusion, t, y)
        flat = self.layout.ravel(out, trailing=0 if self.term.noise == "diagonal" else 1)
        return flat if flat.dtype == y.dtype else flat.to(y.dtype)

    def product(self, g: Tensor, dw: Tensor) -> Tensor:
        """g dW [B, D]: component by component for diagonal noise, else a matrix product."""
        return g * dw if g.ndim == 2 else torch.matmul(g, dw.unsqueeze(-1)).squeeze(-1)

    def first(self, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """The evaluation every solve begins with: (f,) or (f, g) at the start."""
        f = self.drift(t, y)
        return (f, self.diffusion(t, y)) if self.stochastic else (f,)
