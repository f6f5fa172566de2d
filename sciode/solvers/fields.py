"""A term bound to a state layout: what steppers call, in the one shape they know, y [B, D]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .terms import ODETerm, SDETerm
from .trees import Layout, leaves_of, map_tree

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

    @property
    def compares(self) -> bool:
        """Whether there is a prior."""
        return isinstance(self.term, SDETerm) and self.term.prior_drift is not None

    @property
    def arguments(self) -> list[Tensor]:
        """The tensors in `args` that can carry a gradient."""
        return [a for a in leaves_of(self.args) if _differentiable(a)]

    def bind(self, arguments: list[Tensor]) -> Field:
        """The same field with these tensors in the place of its `arguments`."""
        if not arguments:
            return self
        replacement = iter(arguments)
        return replace(self, args=map_tree(lambda a: next(replacement) if _differentiable(a) else a, self.args))

    def detached(self) -> Field:
        """The same field, its arguments without gradients."""
        if self.args is None:
            return self
        return replace(self, args=map_tree(lambda a: a.detach() if isinstance(a, Tensor) else a, self.args))

    def clocks(self, times: Sequence[Tensor], y: Tensor) -> tuple[Tensor, ...]:
        """Times [L] float64 as the user's functions receive them; several at once cost little more than one."""
        t = (torch.stack(list(times)) if len(times) > 1 else times[0].unsqueeze(0)).to(y.real.dtype)
        if isinstance(self.term, SDETerm) and self.term.one_clock:
            # Samples that failed are left behind in time; those that go on share the latest one.
            return (t.amax(1) if self.sign > 0 else t.amin(1)).unbind()
        return self.layout.times(t).unbind()

    def call(self, function: Any, t: Tensor, y: Tensor) -> Any:
        """function(t, y[, args]) as the user sees it: time in y's real dtype, the state in its own nesting."""
        return self._call(function, self.clocks((t,), y)[0], y)

    def drift(self, t: Tensor, y: Tensor) -> Tensor:
        """f(t, y) [B, D] for t [L] float64."""
        return self.drift_at(self.clocks((t,), y)[0], y)

    def drift_at(self, clock: Tensor, y: Tensor) -> Tensor:
        """f(t, y) [B, D] for a time from `clocks`."""
        function = self.term.field if isinstance(self.term, ODETerm) else self.term.drift
        return _as_state(self.layout.ravel(self._call(function, clock, y)), y)

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        """g(t, y): [B, D] for diagonal noise, else [B, D, m]; t [L] float64."""
        return self.diffusion_at(self.clocks((t,), y)[0], y)

    def first(self, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """The evaluation every solve begins with: (f,) or (f, g) at the start."""
        clock = self.clocks((t,), y)[0]
        f = self.drift_at(clock, y)
        return (f, self.diffusion_at(clock, y)) if self.stochastic else (f,)

    def prior_at(self, clock: Tensor, y: Tensor) -> Tensor:
        """h(t, y) [B, D], the prior's drift, for a time from `clocks`."""
        assert isinstance(self.term, SDETerm) and self.term.prior_drift is not None
        return _as_state(self.layout.ravel(self._call(self.term.prior_drift, clock, y)), y)

    def everything(self, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """`first`, and the prior's drift if there is one: all that a solve reads."""
        first = self.first(t, y)
        return (*first, self.prior_at(self.clocks((t,), y)[0], y)) if self.compares else first

    def diffusion_at(self, clock: Tensor, y: Tensor) -> Tensor:
        """g(t, y) for a time from `clocks`."""
        assert isinstance(self.term, SDETerm)
        out = self._call(self.term.diffusion, clock, y)
        return _as_state(self.layout.ravel(out, trailing=0 if self.term.noise == "diagonal" else 1), y)

    def _call(self, function: Any, clock: Tensor, y: Tensor) -> Any:
        state = self.layout.unravel(y)
        return function(clock, state) if self.args is None else function(clock, state, self.args)

    def product(self, g: Tensor, dw: Tensor) -> Tensor:
        """g dW [B, D]: component by component for diagonal noise, else a matrix product."""
        return g * dw if g.ndim == 2 else torch.matmul(g, dw.unsqueeze(-1)).squeeze(-1)


def _differentiable(a: Any) -> bool:
    return isinstance(a, Tensor) and (a.is_floating_point() or a.is_complex())


def _as_state(out: Tensor, y: Tensor) -> Tensor:
    """In the state's dtype: under autocast a field returns a smaller one."""
    return out if out.dtype == y.dtype else out.to(y.dtype)
