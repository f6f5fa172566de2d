"""What a read-out sees of a latent path: its end, or pools over the whole of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sciode.timeseries.model import Batch

__all__ = ["READOUTS", "Path", "Pools", "grid_queries"]


class Path(NamedTuple):
    """States [B, Q, H] on the grid, ends included; inside [B, Q, 1] bool, false where a series has no state there."""

    states: Tensor
    inside: Tensor

    def mean(self) -> Tensor:
        """Mean over each series' own states [B, H]."""
        return torch.where(self.inside, self.states, 0.0).sum(1) / self.inside.sum(1)

    def max(self) -> Tensor:
        """Maximum over each series' own states [B, H]."""
        return torch.where(self.inside, self.states, -torch.inf).amax(1)


READOUTS: dict[str, tuple[str, ...]] = {
    "last": ("last",),
    "mean": ("mean",),
    "pooled": ("last", "mean", "max", "positive"),
}
"""Read-outs by name: the pools that are laid side by side, names in `Pools`."""

_POOLS: dict[str, Callable[[Path, Path], Tensor]] = {
    "last": lambda path, lens: path.states[:, -1],
    "mean": lambda path, lens: path.mean(),
    "max": lambda path, lens: path.max(),
    "positive": lambda path, lens: Path(lens.states.tanh(), lens.inside).mean(),
}


class Pools(nn.Module):
    r"""Pools of a path z(t_0), ..., z(t_N), t_N the series' own end, side by side [B, len(names) H]:

        last = z(t_N),   mean = 1/(N+1) Σ z(t_n),   max = max_n z(t_n),   positive = 1/(N+1) Σ tanh(A z(t_n) + b)

    "positive" is 2 p - 1, p the smoothed proportion of positive values of the learned features A z + b: the pool of
    MiniRocket (Dempster, Schmidt, Webb: MiniRocket, 2021), made differentiable.

    names: of pools, those of an entry of `READOUTS`. Raises ValueError for a read-out that is unknown.
    """

    def __init__(self, readout: str, hidden: int) -> None:
        super().__init__()
        if readout not in READOUTS:
            raise ValueError(f"readout must be one of {', '.join(READOUTS)}, got {readout!r}")
        self.names = READOUTS[readout]
        self.width = hidden * len(self.names)
        self.lens = nn.Linear(hidden, hidden) if "positive" in self.names else None

    @property
    def whole(self) -> bool:
        """Whether more than the end is read."""
        return self.names != ("last",)

    def forward(self, states: Tensor, last: Tensor, queries: Tensor) -> Tensor:
        """Return the pools of states [B, Q, H] at `grid_queries` [B, Q], NaN = none, and of last [B, H]."""
        inside = torch.cat((queries.isfinite(), torch.ones_like(queries[:, :1], dtype=torch.bool)), 1).unsqueeze(-1)
        path = Path(torch.cat((states, last.unsqueeze(1)), 1), inside)
        lens = path if self.lens is None else Path(self.lens(path.states), inside)
        return torch.cat([_POOLS[name](path, lens) for name in self.names], -1)


def grid_queries(batch: Batch) -> Tensor:
    """Return the grid times n dt before each series' own end [B, N + 1] float64, NaN from the end on."""
    ends = batch.ends.double().unsqueeze(1)
    grid = torch.arange(batch.path().shape[1], dtype=torch.float64, device=ends.device).mul(batch.dt).unsqueeze(0)
    return torch.where(grid < ends - 1e-6 * batch.dt, grid, torch.nan)
