"""Neural LNSDE on its own, for `SDEClassifier`: the stable neural SDE with linear noise (arXiv 2402.14989)."""

from __future__ import annotations

import torch
from torch import Tensor

from sciode.solvers import Solution, solve
from sciode.timeseries.model import Form
from sciode.timeseries.stable import StableFields

__all__ = ["Form", "LinearNoiseSDE"]


class LinearNoiseSDE(StableFields):
    r"""Neural LNSDE: dz = γ(t, z̄) dt + σ(t) z dW, the "linear" equation of `StableFields`, whose parameters these are.

    Multiplicative noise stabilises z = 0, and leaves it where it is.
    """

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
        state = self.initial(control[:, 0])
        tables = self.tables(control, dt)
        return solve(
            self.term(), state, ts, args=tables, dt=dt, method="euler", seed=seed, adjoint="direct", throw=throw
        )


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
