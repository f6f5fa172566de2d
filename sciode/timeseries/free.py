"""Neural equations that no control drives: the naive neural SDE and the neural ODE, from the first value on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sciode.nn import mlp, rowwise
from sciode.solvers import SDETerm
from sciode.timeseries.model import Batch, Form, Paths, SequenceModel
from sciode.timeseries.schedule import euler, schedule, solved

__all__ = ["ODE_SOLVER", "NaiveSDE", "NeuralODE", "TimedField"]

ODE_SOLVER: Mapping[str, Any] = MappingProxyType({"rtol": 1e-3, "atol": 1e-4})
"""How latent ODEs are solved unless said otherwise: tsit5, to three digits."""


class TimedField(nn.Module):
    """f(t, z) = MLP([sin t, cos t, z]) with `layers` hidden layers, or tanh of it if `bounded`; [B, H] -> [B, H]."""

    def __init__(self, hidden: int, layers: int, bounded: bool = True) -> None:
        super().__init__()
        if hidden < 1 or layers < 1:
            raise ValueError(f"hidden and layers must be >= 1, got {hidden}, {layers}")
        self.net = mlp([hidden + 2, *[hidden] * layers, hidden], nn.SiLU)
        self.bounded = bounded

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """The field at t [B, 1]."""
        t = t.expand(*z.shape[:-1], 1)
        out = self.net(torch.cat((t.sin(), t.cos(), z), -1))
        return out.tanh() if self.bounded else out


class NaiveSDE(SequenceModel):
    """dz = f(t, z) dt + g(t, z) dW (Ito, diagonal) from z(0) = h(X(0), static): what stable neural SDEs improve on.

    form: "paper": f and g are plain networks, nothing keeps them from growing; "clipped": tanh of f, and of g times a
    learned gate in (0, 1), as the code of the stable SDEs' authors compares with. Euler steps of `Batch.dt`.
    Source: Tzen, Raginsky: Neural stochastic differential equations (2019).
    """

    causal = True
    reads: Literal["control", "values"] = "control"
    reads_rowwise = ("gate",)

    def __init__(
        self, channels: int, hidden: int = 32, layers: int = 2, form: Form = "clipped", *, static: int = 0
    ) -> None:
        super().__init__()
        if form not in ("clipped", "paper"):
            raise ValueError(f'form must be "clipped" or "paper", got {form!r}')
        self.hidden, self.form = hidden, form
        self.initial = nn.Linear(channels + static, hidden)
        self.drift = TimedField(hidden, layers, form == "clipped")
        self.noise = TimedField(hidden, 1, bounded=False)
        if form == "clipped":
            self.gate = nn.Parameter(torch.ones(()))

    def diffusion(self, t: Tensor, z: Tensor) -> Tensor:
        """g(t, z) [B, H]."""
        g = self.noise(t, z)
        return (rowwise(self.gate, g, 0).sigmoid() * g).tanh() if self.form == "clipped" else g

    def forward(
        self,
        batch: Batch,
        queries: Tensor | None,
        seed: int | Tensor,
        *,
        throw: bool = False,
        regularize: Any = (),
        engine: str = "auto",
    ) -> Paths:
        term, start = SDETerm(self.drift, self.diffusion), self.initial(batch.first())
        how = {"throw": throw, "regularize": regularize, "engine": engine}
        return euler(term, start, batch, queries, seed=seed, **how)[0]


class NeuralODE(SequenceModel):
    """dz/dt = f(t, z) from z(0) = h(X(0), static), f a `TimedField`.

    solver: options of `solve`, by default adaptive tsit5 at rtol 1e-3, atol 1e-4.
    Source: Chen, Rubanova, Bettencourt, Duvenaud: Neural ordinary differential equations (2018).
    """

    causal = True
    reads: Literal["control", "values"] = "control"
    noisy = False

    def __init__(
        self,
        channels: int,
        hidden: int = 32,
        layers: int = 2,
        *,
        static: int = 0,
        solver: Mapping[str, Any] = ODE_SOLVER,
    ) -> None:
        super().__init__()
        self.hidden, self.solver = hidden, dict(solver)
        self.initial = nn.Linear(channels + static, hidden)
        self.drift = TimedField(hidden, layers)

    def forward(
        self,
        batch: Batch,
        queries: Tensor | None,
        seed: int | Tensor,
        *,
        throw: bool = False,
        regularize: Any = (),
        engine: str = "auto",
    ) -> Paths:
        how = {"throw": throw, "regularize": regularize, "engine": engine, "seed": seed}
        return solved(self.drift, self.initial(batch.first()), schedule(batch, queries), **how, **self.solver)
