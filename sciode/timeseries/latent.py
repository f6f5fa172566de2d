"""Latent variable models: the latent ODE and the latent SDE, each with a prior and its divergence in nats."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sciode.nn import Autonomous, OdeRnn, StepGaps, mlp, rowwise
from sciode.solvers import SDETerm
from sciode.solvers.brownian import unit_normals
from sciode.timeseries.free import ODE_SOLVER, TimedField
from sciode.timeseries.model import Batch, Paths, SequenceModel, seeds_for
from sciode.timeseries.schedule import asked, euler, schedule, solved
from sciode.timeseries.stable import Rows, row_at, rows_of

__all__ = ["LatentODE", "LatentSDE", "Posterior", "steered"]

_STREAM = 0x5851F42D4C957F2D
"""Tells the draws of z(0) from the noise of an SDE with the same seeds."""
Fields = Callable[..., Tensor]


class Posterior(NamedTuple):
    """A normal law of z(0): a draw [B, H] from it, and its divergence from the unit normal [B] in nats."""

    drawn: Tensor
    kl: Tensor


class _Encoder(nn.Module):
    """An ODE-RNN that reads a series from its end to time 0, and the law of z(0) it gives."""

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        field = Autonomous(mlp([hidden] * (layers + 1) + [hidden], nn.Tanh))
        self.rnn = OdeRnn(field, nn.GRUCell(2 * channels, hidden), hidden, evolve=StepGaps("midpoint"), backward=True)
        self.law = nn.Linear(hidden, 2 * hidden)

    def forward(self, batch: Batch, seed: int | Tensor) -> tuple[Posterior, Tensor]:
        """Return (z(0), the states [B, T, H], each after the readings from its row to the end)."""
        read = self.rnn(*batch.clocked(), until=0.0)
        mean, spread = self.law(read.last).chunk(2, -1)
        seeds = seeds_for(seed, batch).to(mean.device)
        noise = unit_normals(seeds, _STREAM, mean.shape[1], mean.dtype)
        kl = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1)
        return Posterior(mean + (0.5 * spread).exp() * noise, kl), read.states


class LatentODE(SequenceModel):
    """z(0) ~ N(m, s^2) of the whole series, read backward by an ODE-RNN; then dz/dt = f(t, z), f a `TimedField`.

    kl: KL(N(m, s^2) || N(0, 1)). Every state depends on the whole series: this interpolates, and forecasts beyond it.
    The encoder crosses a gap by one midpoint step; solver: options of `solve` for the latent equation, by default
    tsit5 at rtol 1e-3, atol 1e-4.
    Source: Rubanova, Chen, Duvenaud: Latent ordinary differential equations for irregularly sampled series (2019).
    """

    causal = False
    reads: Literal["control", "values"] = "values"

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
        self.encoder = _Encoder(channels + static, hidden, layers)
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
        start, _ = self.encoder(batch, seed)
        how = {"throw": throw, "regularize": regularize, "engine": engine, "seed": seed}
        paths = solved(self.drift, start.drawn, schedule(batch, queries), **how, **self.solver)
        return paths._replace(kl=start.kl)


def steered(prior: Fields, steer: Fields, diffusion: Fields) -> SDETerm:
    """Return a posterior and its path divergence from the prior as one Ito equation of the state [z, l] [B, H + 1]:

        dz = (h + g u) dt + g dW,   dl = |u|^2 / 2 dt      (prior: dz = h dt + g dW)

    By Girsanov's theorem E[l(T)] is the divergence in nats of the posterior's paths on [0, T] from the prior's; with
    Euler's method, that of the two Euler chains exactly. prior h, steer u, diffusion g: (t, z, *args) -> [B, H]; no
    division by g, whatever it does. Source: Li, Wong, Chen, Duvenaud: Scalable gradients for SDEs (2020), section 5,
    with u in the place of (posterior - prior) / g.
    """

    def drift(t: Tensor, state: Tensor, *args: Any) -> Tensor:
        z = state[..., :-1]
        push = steer(t, z, *args)
        moved = prior(t, z, *args) + diffusion(t, z, *args) * push
        return torch.cat((moved, 0.5 * push.square().sum(-1, keepdim=True)), -1)

    def noise(t: Tensor, state: Tensor, *args: Any) -> Tensor:
        z = state[..., :-1]
        return torch.cat((diffusion(t, z, *args), torch.zeros_like(state[..., -1:])), -1)

    return SDETerm(drift, noise)


class _Context(NamedTuple):
    """At every grid time n dt: what lies ahead (rows [B, H]) and whether anything does (rows [B, 1]); rate: 1/dt."""

    ahead: Rows
    any: Rows
    rate: Tensor


class LatentSDE(SequenceModel):
    """A prior dz = h(t, z) dt + g(z) dW from N(0, 1), and a posterior that is steered by what the series will say:

        dz = (h + g u(t, z, c(t))) dt + g(z) dW,   z(0) ~ N(m, s^2)

    c(t): the state of a backward ODE-RNN after all readings later than t, m and s of all; u = 0 after the last reading,
    where posterior and prior are one: forecasts are the prior's. g_i = sigmoid(w_i z_i + b_i) / 2. Euler steps of `dt`.
    kl: of z(0), plus that of the paths (`steered`), one draw's. Not causal. Source: Li et al., see `steered`.
    """

    causal = False
    reads: Literal["control", "values"] = "values"
    reads_rowwise = ("slope", "level")

    def __init__(self, channels: int, hidden: int = 32, layers: int = 2, *, static: int = 0) -> None:
        super().__init__()
        self.hidden = hidden
        self.encoder = _Encoder(channels + static, hidden, layers)
        self.prior = TimedField(hidden, layers)
        self.net = mlp([2 * hidden + 2, *[hidden] * layers, hidden], nn.SiLU)
        self.slope = nn.Parameter(torch.zeros(hidden))
        self.level = nn.Parameter(torch.zeros(hidden))

    def diffusion(self, t: Tensor, z: Tensor, *context: Any) -> Tensor:
        """g(z) [B, H]."""
        return 0.5 * (rowwise(self.slope, z, 1) * z + rowwise(self.level, z, 1)).sigmoid()

    def _prior(self, t: Tensor, z: Tensor, *context: Any) -> Tensor:
        return self.prior(t, z)

    def _steer(self, t: Tensor, z: Tensor, ahead: Rows, there: Rows, rate: Tensor) -> Tensor:
        now = t.expand(len(z), 1)
        inputs = torch.cat((now.sin(), now.cos(), z, row_at(ahead, t, rate)), -1)
        return row_at(there, t, rate) * self.net(inputs)

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
        start, states = self.encoder(batch, seed)
        loops = engine in ("compiled", "graph", "kernel")
        context = self._context(batch, states, float(asked(batch, queries).nan_to_num().amax()), loops)
        if engine == "auto" and not isinstance(context.ahead, Tensor):
            engine = "eager"  # see `rows_of`
        term = steered(self._prior, lambda t, z, c: self._steer(t, z, *c), self.diffusion)
        state = torch.cat((start.drawn, torch.zeros_like(start.kl).unsqueeze(1)), 1)
        how = {"throw": throw, "regularize": regularize, "engine": engine}
        paths, final = euler(term, state, batch, queries, args=context, seed=seed, **how)
        return paths._replace(states=paths.states[..., :-1], last=paths.last[..., :-1], kl=start.kl + final[:, -1])

    def _context(self, batch: Batch, states: Tensor, stop: float, loops: bool) -> _Context:
        """The encoder's state after the first reading later than each grid time up to stop."""
        times, _, seen = batch.clocked()
        count = math.ceil(stop / batch.dt) + 2
        grid = torch.arange(count, dtype=torch.float64, device=times.device) * batch.dt
        later = seen.any(-1).unsqueeze(1) & (times.unsqueeze(1) > grid.view(1, -1, 1) + 1e-9 * batch.dt)
        row = torch.arange(times.shape[1], device=times.device)
        first = torch.where(later, row, times.shape[1]).amin(2)  # [B, N]
        there = (first < times.shape[1]).unsqueeze(-1)
        ahead = states.gather(1, first.clamp(max=times.shape[1] - 1).unsqueeze(-1).expand(-1, -1, states.shape[-1]))
        tables = (torch.where(there, ahead, 0.0).transpose(0, 1), there.to(states.dtype).transpose(0, 1))
        ahead_rows, there_rows = (rows_of(x.contiguous(), True if loops else None) for x in tables)
        return _Context(ahead_rows, there_rows, torch.tensor(1 / batch.dt, dtype=states.dtype, device=states.device))
