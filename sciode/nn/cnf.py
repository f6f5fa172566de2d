"""Continuous normalising flows: densities that are carried along the solutions of a learned ODE."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from sciode.solvers import solve

__all__ = ["CNF"]

Field = Callable[[Tensor, Tensor], Tensor]
Trace = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@final
class CNF(nn.Module):
    """A density by a flow to the unit normal: y' = f(t, y), l' = tr(df/dy), from y(0) = x and l(0) = 0 to t = time.

    log p(x) = log N(y(time); 0, 1) + l(time), in nats, for x [*batch, size]. As a field it is that of the state
    [y, l] [*batch, size + 1], so that a training loop may solve it by itself:

        found = solve(flow, flow.start(x), [0.0, flow.time], regularize=(Kinetic(part=2), Jacobian(part=2)))
        loss = -flow.log_density(found.ys[-1]).mean()

    Parameters
    ----------
    field: f(t, y) -> [*batch, size]; t as `solve` gives it.
    size: the dimension of y.
    trace: "exact", size forward derivatives an evaluation, for low dimensions; "hutchinson", one: v . (df/dy) v for a
        fixed probe v of signs, whose mean is the trace (the state's `args`; `log_prob` draws it); or a function
        (t, y) -> (f, tr(df/dy) [*batch]) of a field that knows its own.
    time: where the normal is; the unit of t.

    Raises ValueError for size < 1, time <= 0, an unknown trace, a state of another width, a missing probe or seed.
    Compiles under engine="compiled" if `field` does.
    Sources: Chen et al.: Neural ordinary differential equations (2018); Grathwohl et al.: FFJORD (2019).
    """

    def __init__(
        self, field: Field, size: int, *, trace: Literal["exact", "hutchinson"] | Trace = "exact", time: float = 1.0
    ) -> None:
        super().__init__()
        if size < 1 or not time > 0:
            raise ValueError(f"size must be >= 1 and time > 0, got {size} and {time}")
        if not callable(trace) and trace not in ("exact", "hutchinson"):
            raise ValueError(f"trace: give 'exact', 'hutchinson' or a function (t, y) -> (slope, trace), got {trace!r}")
        self.field, self.size, self.trace, self.time = field, size, trace, time

    def start(self, x: Tensor) -> Tensor:
        """The state that a point starts from: [x, 0]."""
        if x.ndim < 1 or x.shape[-1] != self.size:
            raise ValueError(f"x must be [*batch, {self.size}], got {tuple(x.shape)}")
        return torch.cat((x, torch.zeros_like(x[..., :1])), -1)

    def log_density(self, state: Tensor) -> Tensor:
        """log p(x) [*batch] from the state [y, l] at t = time."""
        y, account = state[..., : self.size], state[..., self.size]
        return account - 0.5 * y.square().sum(-1) - 0.5 * self.size * math.log(2 * math.pi)

    def forward(self, t: Tensor, state: Tensor, probe: Tensor | None = None) -> Tensor:
        """The slope (f, tr df/dy) [*batch, size + 1]; probe [*batch, size] for trace="hutchinson"."""
        if state.shape[-1] != self.size + 1:
            raise ValueError(f"the state must be [*batch, {self.size} + 1], got {tuple(state.shape)}: use flow.start")
        y = state[..., : self.size]
        if callable(self.trace):
            slope, trace = self.trace(t, y)
        elif self.trace == "exact":
            units = torch.eye(self.size, dtype=y.dtype, device=y.device)
            pairs = [self._push(t, y, unit.expand_as(y)) for unit in units]
            slope = pairs[0][0]
            trace = torch.stack([change[..., i] for i, (_, change) in enumerate(pairs)]).sum(0)
        else:
            if probe is None:
                raise ValueError("trace='hutchinson' needs its probe: solve(flow, ..., args=flow.probe(x, seed))")
            slope, change = self._push(t, y, probe)
            trace = (probe * change).sum(-1)
        return torch.cat((slope, trace.unsqueeze(-1)), -1)

    def _push(self, t: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """f and (df/dy) v."""
        slope, change = torch.func.jvp(lambda y: self.field(t, y), (y,), (v,))[:2]
        return slope, change

    def probe(self, x: Tensor, seed: int) -> Tensor:
        """Signs +1 and -1 in the shape of x, for one solve."""
        draw = torch.Generator().manual_seed(seed)
        return (2.0 * torch.randint(2, x.shape, generator=draw) - 1.0).to(x)

    def log_prob(self, x: Tensor, *, seed: int | None = None, **options: Any) -> Tensor:
        """log p(x) [*batch] in nats for x [*batch, size]; seed: of the probe; options: those of `solve`."""
        args = None
        if self.trace == "hutchinson":
            if seed is None:
                raise ValueError("log_prob: trace='hutchinson' draws a probe; pass seed=")
            args = self.probe(x, seed)
        ts = [0.0, self.time]
        found = solve(self, self.start(x), ts, args=args, **{"batch_dims": x.ndim - 1, **options})
        return self.log_density(found.ys[-1])

    def sample(self, n: int, *, seed: int, **options: Any) -> Tensor:
        """n points [n, size] of the density: unit normals, drawn from the seed, carried back; options: see `solve`."""
        if n < 1:
            raise ValueError(f"sample: n must be at least 1, got {n}")
        like = next(self.parameters(), torch.empty(0))
        z = torch.randn(n, self.size, generator=torch.Generator().manual_seed(seed), dtype=like.dtype)
        return solve(self.field, z.to(like.device), [self.time, 0.0], **{"batch_dims": 1, **options}).ys[-1]
