"""Neural CDE: a state that moves as its control moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sciode.nn import mlp
from sciode.solvers import CDETerm, HermitePath
from sciode.timeseries.model import Batch, Paths, SequenceModel
from sciode.timeseries.schedule import schedule, solved

__all__ = ["NeuralCDE"]


class NeuralCDE(SequenceModel):
    """dz = f(z) d(t, X(t)) from z(0) = h(X(0), static); f = tanh(MLP) [B, H, 1 + C], X the Hermite path of the control.

    The path goes through the control's rows, which are `Batch.dt` apart, as are the solver's steps: none steps over a
    row, and inside a step the path is smooth. Between two rows it looks ahead to the second one.
    solver: options of `solve` beside dt, by default Bogacki and Shampine's pair of order 3.
    Source: Kidger, Morrill, Foster, Lyons: Neural controlled differential equations for irregular time series (2020).
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
        solver: Mapping[str, Any] = {"method": "bosh3"},
    ) -> None:
        super().__init__()
        if channels < 1 or hidden < 1 or layers < 1:
            raise ValueError(f"channels, hidden and layers must be >= 1, got {channels}, {hidden}, {layers}")
        self.hidden, self.solver = hidden, dict(solver)
        self.initial = nn.Linear(channels + static, hidden)
        self.net = mlp([*[hidden] * (layers + 1), hidden * (1 + channels)], nn.SiLU)

    def columns(self, t: Tensor, z: Tensor) -> Tensor:
        """f(z) [B, H, 1 + C]."""
        return self.net(z).tanh().unflatten(-1, (self.hidden, -1))

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
        control = batch.path()
        grid = torch.arange(control.shape[1], dtype=torch.float64, device=control.device) * batch.dt
        # Rounded as the times are that the solver asks for, so that no last time falls behind the last row.
        clock = grid.to(control.dtype)
        rows = torch.cat((clock.view(1, -1, 1).expand(len(control), -1, 1), control), -1)
        term = CDETerm(self.columns, HermitePath(rows, clock.double()))
        plan = schedule(batch, queries, step=batch.dt, reach=batch.reach)
        how = {"throw": throw, "regularize": regularize, "engine": engine, "seed": seed, "dt": batch.dt}
        return solved(term, self.initial(batch.first()), plan, **how, **self.solver)
