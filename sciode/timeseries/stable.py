"""Stable neural SDEs: Langevin, linear noise and geometric, one construction whose equations are data.

Source: Oh, Lim, Kim: Stable neural stochastic differential equations in analyzing irregular time series data (ICLR
2024, arXiv 2402.14989), and the authors' code.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sciode.nn import mlp, rowwise
from sciode.solvers import SDETerm
from sciode.timeseries.model import Batch, Form, Paths, SequenceModel
from sciode.timeseries.schedule import euler

__all__ = ["EQUATIONS", "Equation", "Rows", "StableFields", "StableSDE", "Tables", "row_at", "rows_of"]

Rows = Tensor | tuple[Tensor, ...]


class Equation(NamedTuple):
    """What tells one stable SDE from another; γ = γ(t, z̄) if `clock`, else γ(z̄).

    clock: whether z̄ is told the time. scaled_drift: the drift is γ times z (the paper) or times tanh z before the
    outer tanh (the authors' code), else γ. scaled_noise: the diffusion is σ(t) z, else σ(t).
    """

    clock: bool
    scaled_drift: bool
    scaled_noise: bool


EQUATIONS: dict[str, Equation] = {
    "langevin": Equation(clock=False, scaled_drift=False, scaled_noise=False),
    "linear": Equation(clock=True, scaled_drift=False, scaled_noise=True),
    "geometric": Equation(clock=True, scaled_drift=True, scaled_noise=True),
}


class Tables(NamedTuple):
    """What the fields need of the control and of time, at every grid time n dt, n = 0..N.

    `mix` [H, H] maps the state into z̄; `drive` (N + 1 rows [B, H]) is the part of z̄ from X(t) and t; `sigma` (N + 1
    rows [H]) is σ(t); `rate` is 1/dt, 0-d. Of M stacked networks: mix [M, H, H], rows [M B, H].
    """

    mix: Tensor
    drive: Rows
    sigma: Rows
    rate: Tensor


class StableFields(nn.Module):
    r"""Drift and diffusion of a latent Ito equation with diagonal noise, driven by a control path X:

        "langevin"    dz = γ(z̄) dt + σ(t) dW
        "linear"      dz = γ(t, z̄) dt + σ(t) z dW
        "geometric"   dz = z γ(t, z̄) dt + σ(t) z dW

    with z̄ = ζ(t, z, X(t)) and z(0) = h(X(0), static). ζ, h are affine, time enters as (sin t, cos t) only, γ is
    MLP(relu(z̄)) with `layers` affine maps, and σ(t) = relu(A relu(B (sin t, cos t))).

    Parameters
    ----------
    channels: C of the control [B, N + 1, C].
    hidden: H, the state's width. Good values 16..64.
    layers: affine maps in γ, >= 1. Good values 1..3.
    form: "paper" is the equation above. "clipped" (default) is what the authors' code runs: with one learned gate s in
        (0, 1) the diffusion is tanh(s σ), or tanh(s σ z), and the drift tanh(γ), for "geometric" tanh(γ tanh z) and no
        longer geometric, though 0 still ends both, so that small steps keep signs. Both are bounded by 1 in every
        channel: explicit Euler cannot blow up.
    equation: one of the three. static: S, how many covariates join X(0).

    The grid is fixed, so X(t), t and σ(t) are embedded once for all grid times (`tables`), and one step of the solver
    costs `layers + 1` matrix products. Only methods that evaluate at grid times are exact: "euler".
    Raises ValueError for sizes < 1, an unknown form or equation.
    """

    reads_rowwise = ("gate",)

    def __init__(
        self,
        channels: int,
        hidden: int = 32,
        layers: int = 2,
        form: Form = "clipped",
        *,
        equation: str = "linear",
        static: int = 0,
    ) -> None:
        super().__init__()
        if channels < 1 or hidden < 1 or layers < 1:
            raise ValueError(f"channels, hidden and layers must be >= 1, got {channels}, {hidden}, {layers}")
        if form not in ("clipped", "paper"):
            raise ValueError(f'form must be "clipped" or "paper", got {form!r}')
        if equation not in EQUATIONS:
            raise ValueError(f"equation must be one of {', '.join(EQUATIONS)}, got {equation!r}")
        self.form: Form = form
        self.equation = EQUATIONS[equation]
        self.initial = nn.Linear(channels + static, hidden)
        self.embed_state = nn.Linear(hidden + 2 * self.equation.clock, hidden)
        self.embed_control = nn.Linear(channels, hidden)
        self.embed_both = nn.Linear(2 * hidden, hidden)
        self.gamma = mlp([hidden] * (layers + 1))
        self.sigma = nn.Sequential(mlp([2, hidden, hidden]), nn.ReLU())
        if form == "clipped":
            self.gate = nn.Parameter(torch.ones(()))

    def tables(self, control: Tensor, dt: float, *, stacked: bool | None = None) -> Tables:
        """Embed the control [B, N + 1, C], given at the times n dt, and σ(t) for all grid times at once.

        stacked: rows in one tensor, which compiled engines need; None: on a GPU only (see `rows_of`).
        """
        count, hidden = control.shape[1], self.embed_control.out_features
        time = torch.arange(count, dtype=torch.float64, device=control.device).mul(dt).to(control.dtype)
        phase = torch.stack([time.sin(), time.cos()], -1)  # [N + 1, 2]
        from_phase, from_state = self.embed_state.weight.split([2 * self.equation.clock, hidden], -1)
        state_half, control_half = self.embed_both.weight.split([hidden, hidden], -1)
        # Affine maps with no nonlinearity between them: their products are taken once, not for every row or step.
        if self.equation.clock:
            embedded = phase @ from_phase.mT + self.embed_state.bias.unsqueeze(-2)
        else:
            embedded = self.embed_state.bias.unsqueeze(-2).expand(*from_state.shape[:-2], count, hidden)
        shift = self.embed_both.bias.unsqueeze(-2) + self.embed_control.bias.unsqueeze(-2) @ control_half.mT
        in_time = embedded @ state_half.mT + shift  # [N + 1, H]
        in_control = control_half @ self.embed_control.weight  # [H, C]
        rate = torch.tensor(1 / dt, dtype=control.dtype, device=control.device)
        mix = (state_half @ from_state).mT
        if in_time.ndim == 2:
            sigma = rows_of(self._noise(phase), stacked)
            drive = torch.matmul(control.transpose(0, 1), in_control.mT) + in_time.unsqueeze(1)
            return Tables(mix, rows_of(drive, stacked), sigma, rate)
        each = control.unflatten(0, (len(in_time), -1)).flatten(1, 2) @ in_control.mT
        each = each.unflatten(1, (-1, count)) + in_time.unsqueeze(1)  # [M, B, N + 1, H]
        drive = each.permute(2, 0, 1, 3).flatten(1, 2)
        sigma = self._noise(phase.repeat(len(in_time), 1)).unflatten(0, (len(in_time), count))
        sigma = sigma.transpose(0, 1).repeat_interleave(each.shape[1], 1)
        return Tables(mix, rows_of(drive, stacked), rows_of(sigma, stacked), rate)

    def _noise(self, phase: Tensor) -> Tensor:
        """s σ(t) [..., H] of (sin t, cos t) [..., 2]; s = 1 in the paper's form."""
        sigma = self.sigma(phase)
        return rowwise(self.gate, sigma, 0).sigmoid() * sigma if self.form == "clipped" else sigma

    def drift(self, t: Tensor, z: Tensor, tables: Tables) -> Tensor:
        """Return the drift [B, H]; t [B, 1] must be a grid time."""
        row = row_at(tables.drive, t, tables.rate)
        if tables.mix.ndim == 2:
            mixed = torch.addmm(row, z, tables.mix)
        else:
            members = (len(tables.mix), -1, z.shape[-1])
            mixed = torch.baddbmm(row.reshape(members), z.reshape(members), tables.mix).reshape(z.shape)
        gamma = self.gamma(mixed.relu())
        if self.form == "paper":
            return gamma * z if self.equation.scaled_drift else gamma
        return (gamma * z.tanh() if self.equation.scaled_drift else gamma).tanh()

    def diffusion(self, t: Tensor, z: Tensor, tables: Tables) -> Tensor:
        """Return the diffusion [B, H]; t [B, 1] must be a grid time."""
        sigma = row_at(tables.sigma, t, tables.rate)
        scaled = sigma * z if self.equation.scaled_noise else sigma.expand_as(z)
        return scaled.tanh() if self.form == "clipped" else scaled

    def term(self) -> SDETerm:
        """Return the equation; `solve` takes the tables as args."""
        return SDETerm(self.drift, self.diffusion, noise="diagonal", calculus="ito")


class StableSDE(SequenceModel):
    """A stable neural SDE (see `StableFields`, whose parameters these are) as a sequence model: Euler steps of `dt`.

    Between grid times the state is the straight line that Euler's step draws.
    """

    causal = True
    reads: Literal["control", "values"] = "control"

    def __init__(
        self,
        channels: int,
        hidden: int = 32,
        layers: int = 2,
        form: Form = "clipped",
        *,
        equation: str = "linear",
        static: int = 0,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.fields = StableFields(channels, hidden, layers, form, equation=equation, static=static)

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
        loops = engine in ("compiled", "graph", "kernel")
        tables = self.fields.tables(control, batch.dt, stacked=True if loops else None)
        if engine == "auto" and not isinstance(tables.drive, Tensor):
            engine = "eager"  # separate rows are read by the number of the step, which no compiled loop can do
        term, start = self.fields.term(), self.fields.initial(batch.first())
        how = {"throw": throw, "regularize": regularize, "engine": engine}
        return euler(term, start, batch, queries, reach=batch.reach, args=tables, seed=seed, **how)[0]


def rows_of(table: Tensor, stacked: bool | None) -> Rows:
    """Return the table ready for `row_at`.

    On a CPU the rows are separate tensors: reading the step's number from t is free there, while the gradient of
    indexing one big tensor would write the whole table in every step. On a GPU the opposite holds.
    """
    apart = table.device.type == "cpu" if stacked is None else not stacked
    return table.unbind(0) if apart else table


def row_at(rows: Rows, t: Tensor, rate: Tensor) -> Tensor:
    """Return the row of the grid time t [B, 1]; stopped series lag behind the others, so the latest time counts."""
    if isinstance(rows, Tensor):
        last = rows.shape[0] - 1
        return rows.index_select(0, (t.max() * rate).round().long().clamp(max=last).view(1))[0]
    return rows[min(round(float(t.max()) * float(rate)), len(rows) - 1)]
