"""Neural LNSDE: the stable neural SDE with linear noise (Oh, Lim, Kim, ICLR 2024, arXiv 2402.14989)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciode.nn import mlp
from sciode.solvers import SDETerm, Solution, solve

Form = Literal["clipped", "paper"]
Rows = Tensor | tuple[Tensor, ...]


class Tables(NamedTuple):
    """What the fields need of the control and of time, at every grid time n dt, n = 0..N.

    `mix` [H, H] maps the state into z̄; `drive` (N + 1 rows [B, H]) is the part of z̄ from X(t) and t; `sigma` (N + 1
    rows [H]) is σ(t); `rate` is 1/dt, 0-d.
    """

    mix: Tensor
    drive: Rows
    sigma: Rows
    rate: Tensor


class LinearNoiseSDE(nn.Module):
    r"""Latent Ito equation with diagonal linear noise, driven by a control path X:

        dz = γ(t, z̄) dt + σ(t) z dW,   z̄ = ζ(t, z, X(t)),   z(0) = h(X(0)).

    ζ, h are affine, time enters as (sin t, cos t) only, γ(t, z̄) = MLP(relu(z̄)) with `layers` affine maps, and
    σ(t) = relu(A relu(B (sin t, cos t))). Multiplicative noise stabilises z = 0, and leaves it where it is.

    Parameters
    ----------
    channels: C of the control [B, N + 1, C].
    hidden: H, the state's width. Good values 16..64.
    layers: affine maps in γ, >= 1. Good values 1..3.
    form: "paper" is the equation above. "clipped" (default) is what the authors' code runs: the drift is tanh(γ) and
        the diffusion tanh(s σ(t) z) with one learned gate s in (0, 1), so both are bounded by 1 in every channel and
        explicit Euler cannot blow up.

    The grid is fixed, so X(t), t and σ(t) are embedded once for all grid times (`tables`), and one step of the solver
    costs `layers + 1` matrix products. Only methods that evaluate at grid times are exact: "euler".
    """

    def __init__(self, channels: int, hidden: int = 32, layers: int = 2, form: Form = "clipped") -> None:
        super().__init__()
        if channels < 1 or hidden < 1 or layers < 1:
            raise ValueError(f"channels, hidden and layers must be >= 1, got {channels}, {hidden}, {layers}")
        if form not in ("clipped", "paper"):
            raise ValueError(f'form must be "clipped" or "paper", got {form!r}')
        self.form: Form = form
        self.initial = nn.Linear(channels, hidden)
        self.embed_state = nn.Linear(hidden + 2, hidden)
        self.embed_control = nn.Linear(channels, hidden)
        self.embed_both = nn.Linear(2 * hidden, hidden)
        self.gamma = mlp([hidden] * (layers + 1))
        self.sigma = nn.Sequential(mlp([2, hidden, hidden]), nn.ReLU())
        if form == "clipped":
            self.gate = nn.Parameter(torch.ones(()))

    def tables(self, control: Tensor, dt: float) -> Tables:
        """Embed the control [B, N + 1, C], given at the times n dt, and σ(t) for all grid times at once."""
        count, hidden = control.shape[1], self.initial.out_features
        time = torch.arange(count, dtype=torch.float64, device=control.device).mul(dt).to(control.dtype)
        phase = torch.stack([time.sin(), time.cos()], -1)  # [N + 1, 2]
        from_phase, from_state = self.embed_state.weight.split([2, hidden], 1)
        state_half, control_half = self.embed_both.weight.split([hidden, hidden], 1)
        # The affine maps from z to z̄ have no nonlinearity between them: their product is taken once, not every step.
        embedded = F.linear(phase, from_phase, self.embed_state.bias)
        in_time = F.linear(embedded, state_half, self.embed_both.bias)
        in_control = F.linear(self.embed_control(control.transpose(0, 1)), control_half)
        sigma = self.sigma(phase)
        if self.form == "clipped":
            sigma = self.gate.sigmoid() * sigma
        rate = torch.tensor(1 / dt, dtype=control.dtype)
        return Tables((state_half @ from_state).t(), _rows(in_control + in_time.unsqueeze(1)), _rows(sigma), rate)

    def drift(self, t: Tensor, z: Tensor, tables: Tables) -> Tensor:
        """Return γ(t, z̄), [B, H]; t [B, 1] must be a grid time."""
        mixed = torch.addmm(_row(tables.drive, t, tables.rate), z, tables.mix)
        gamma = self.gamma(mixed.relu())
        return gamma.tanh() if self.form == "clipped" else gamma

    def diffusion(self, t: Tensor, z: Tensor, tables: Tables) -> Tensor:
        """Return σ(t) z, [B, H]; t [B, 1] must be a grid time."""
        scaled = _row(tables.sigma, t, tables.rate) * z
        return scaled.tanh() if self.form == "clipped" else scaled

    def forward(
        self,
        control: Tensor,
        dt: float,
        ends: Tensor,
        seed: int | Tensor,
        *,
        every: int = 0,
        throw: bool = True,
    ) -> Solution:
        """Solve to each series' own end time.

        Parameters
        ----------
        control: [B, N + 1, C], X at the times n dt.
        dt: the Euler step, in the unit of the model's time.
        ends: [B], float64, the time at which each series stops, in [dt, N dt].
        seed: int, or int64 [B] (one noise stream a series).
        every: 0 returns the initial and the final state, ys [2, B, H]; k > 0 returns every k-th grid state as well.
        throw: raise SolveError if a state is not finite; False: read `Solution.status` (such a state stays as it was).
        """
        ts = _times(ends, dt, control.shape[1], every)
        term = SDETerm(self.drift, self.diffusion, noise="diagonal", calculus="ito")
        state = self.initial(control[:, 0])
        tables = self.tables(control, dt)
        return solve(term, state, ts, args=tables, dt=dt, method="euler", seed=seed, adjoint="direct", throw=throw)


def _times(ends: Tensor, dt: float, count: int, every: int) -> Tensor:
    """Return the output times: [T] if all series end together (no books a sample are needed then), else [T, B]."""
    together = bool((ends == ends[0]).all())
    last = ends[:1] if together else ends
    starts = torch.zeros_like(last).unsqueeze(0)
    if every:
        grid = torch.arange(every, count, every, dtype=ends.dtype, device=ends.device).mul(dt).unsqueeze(-1)
        # n dt may miss an end by rounding; the slack is far below a step.
        inside = grid <= last + 1e-6 * dt
        inner = torch.where(inside, torch.minimum(grid, last), torch.nan)
        ts = torch.cat([starts, inner[inside.any(1)]])
    else:
        ts = torch.stack([starts[0], last])
    return ts[:, 0] if together else ts


def _rows(table: Tensor) -> Rows:
    """Return the table ready for `_row`.

    On a CPU the rows are separate tensors: reading the step's number from t is free there, while the gradient of
    indexing one big tensor would write the whole table in every step. On a GPU the opposite holds.
    """
    return table.unbind(0) if table.device.type == "cpu" else table


def _row(rows: Rows, t: Tensor, rate: Tensor) -> Tensor:
    """Return the row of the grid time t [B, 1]; stopped series lag behind the others, so the latest time counts."""
    if isinstance(rows, Tensor):
        last = rows.shape[0] - 1
        return rows.index_select(0, (t.max() * rate.to(t.device)).round().long().clamp(max=last).view(1))[0]
    return rows[min(round(float(t.max()) * float(rate)), len(rows) - 1)]
