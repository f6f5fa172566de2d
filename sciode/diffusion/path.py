"""The grid of a sampler as numbers of the host: time, log-SNR, alpha and sigma of every node, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from sciode.diffusion.schedules.base import Schedule

__all__ = ["Node", "Path"]


class Node(NamedTuple):
    """A place on the noise axis; each entry a number, or [B] where every sample is at its own."""

    t: Any
    lam: Any
    alpha: Any
    sigma: Any

    @property
    def rho(self) -> Any:
        """sigma / alpha = exp(-lambda), the noise of x / alpha."""
        return self.sigma / self.alpha


@dataclass(frozen=True, eq=False)
class Path:
    """Nodes from the start of a sampler to its end, and the schedule, for nodes in between."""

    schedule: Schedule
    nodes: tuple[Node, ...]

    @staticmethod
    def of(schedule: Schedule, times: Sequence[float] | np.ndarray) -> Path:
        """The path through given times."""
        at = torch.tensor([float(t) for t in times], dtype=torch.float64)
        values = (f(at).tolist() for f in (schedule.half_log_snr, schedule.alpha, schedule.sigma))
        return Path(schedule, tuple(map(Node, at.tolist(), *values)))

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.nodes) - 1

    def at(self, lam: Any) -> Node:
        """The node with this half log-SNR, a number or [B]."""
        return _node(self.schedule, self.time(lam))._replace(lam=lam)

    def at_time(self, t: Any) -> Node:
        """The node at this time, a number or [B]."""
        return _node(self.schedule, t)

    def at_rho(self, rho: Any) -> Node:
        """The node with this noise of x / alpha."""
        return self.at(-np.log(rho))

    def time(self, lam: Any) -> Any:
        """The times at which lambda has these values, of any shape."""
        return _host(self.schedule.t_of(torch.as_tensor(lam, dtype=torch.float64)))

    def reversed(self) -> Path:
        """The same nodes from the end to the start."""
        return Path(self.schedule, self.nodes[::-1])


def _node(schedule: Schedule, t: Any) -> Node:
    at = torch.as_tensor(t, dtype=torch.float64)
    return Node(t, *(_host(f(at)) for f in (schedule.half_log_snr, schedule.alpha, schedule.sigma)))


def _host(x: torch.Tensor) -> Any:
    return x.item() if x.ndim == 0 else x.numpy()
