"""A random time of every solve among its output times, and the outputs without it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .books import sent
from .brownian import sample_seeds, unit_normals
from .checks import Times

__all__ = ["Moment", "fractions", "with_moment"]

_STREAM = 0x1E3779B97F4A7C15
"""Tells these draws from the noise of an SDE with the same seeds."""


class Moment(NamedTuple):
    """Where among output times [R, T + 1] the random ones are: place [R] on the host."""

    place: np.ndarray

    def of(self, x: Tensor) -> Tensor:
        """What x [T + 1, R or 1, ...] holds there: [R or 1, ...]."""
        if len(self.place) == 1 or x.shape[1] == 1:
            return x[int(self.place[0])]
        at = torch.from_numpy(self.place).to(x.device)
        return x[at, torch.arange(len(at), device=x.device)]

    def without(self, x: Tensor) -> Tensor:
        """x [T + 1, R or 1, ...] without them: [T, R or 1, ...]."""
        if len(self.place) == 1 or x.shape[1] == 1:
            place = int(self.place[0])
            return torch.cat((x[:place], x[place + 1 :]))
        rows = np.arange(x.shape[0] - 1)[:, None]
        keep = torch.from_numpy(rows + (rows >= self.place)).to(x.device)
        return x[keep, torch.arange(keep.shape[1], device=x.device)]


def fractions(seeds: int | Tensor, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Uniform draws from (0, 1), float64 [count], a pure function of an int or of a seed a sample [>= count]."""
    streams = sample_seeds(seeds, count, device) if isinstance(seeds, int) else seeds.flatten()[:count].to(device)
    return torch.special.ndtr(unit_normals(streams, _STREAM, 1, torch.float64)[:, 0])


def with_moment(times: Times, seeds: int | Tensor) -> tuple[Times, Moment]:
    """The times with one more in each row, uniform between its first and its last."""
    first = times.host[:, 0]
    last = np.where(np.isinf(times.host), -np.inf, times.host).max(1)
    drawn = first + fractions(seeds, len(first)).numpy() * (last - first)
    place = (times.host < drawn[:, None]).sum(1)
    host = np.stack([np.insert(row, at, t) for row, at, t in zip(times.host, place, drawn, strict=True)])
    there = sent(np.concatenate((host, last[:, None]), 1), times.rows.device)
    return Times(there[:, :-1], there[:, 0], there[:, -1], times.sign, host), Moment(place)
