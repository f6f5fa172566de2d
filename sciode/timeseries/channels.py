"""Control channels beyond the readings: what a drift can use that the value X(t) alone does not say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CHANNELS", "Given", "JoinedChannels"]


class Given(NamedTuple):
    """What channels are made of: control [n, N + 1, C] at the times k dt, ends [n], and the readings, NaN = missing,
    values [n, T, C] at times [n, T] in the model's time; steps: of the longest training series."""

    control: Tensor
    ends: Tensor
    values: Tensor
    times: Tensor
    dt: float
    steps: int

    @property
    def grid(self) -> Tensor:
        """The times of the control's rows [N + 1] float64."""
        return torch.arange(self.control.shape[1], dtype=torch.float64) * self.dt

    @property
    def inside(self) -> Tensor:
        """Which rows [n, N + 1] are not after a series' own end."""
        return self.grid <= self.ends.unsqueeze(1) + 1e-6 * self.dt


def lags(steps: int) -> list[int]:
    """Return 1, 2, 4, ... up to half of the steps (at least one)."""
    return [1 << k for k in range(max(steps // 2, 1).bit_length())]


def rises(given: Given) -> Tensor:
    """X(t) - X(t - k dt) for k = 1, 2, 4, ... [n, N + 1, C len(lags)]; before the start, X is X(0).

    The log-signature to depth 1 of the path over windows of dyadic length: what a dilated kernel of two taps sees.
    """
    control = given.control
    row = torch.arange(control.shape[1])
    return torch.cat([control - control[:, (row - lag).clamp(min=0)] for lag in lags(given.steps)], -1)


def age(given: Given) -> Tensor:
    """Time since the last reading of each channel, or since the start, [n, N + 1, C]: how far X(t) is guesswork."""
    clock = torch.where(given.times.isfinite(), given.times, torch.inf)
    seen = given.values.isfinite() & clock.isfinite().unsqueeze(-1)
    latest = torch.where(seen, clock.unsqueeze(-1), 0.0).cummax(1).values
    grid = given.grid.expand(len(clock), -1).contiguous()
    place = (torch.searchsorted(clock, grid + 1e-9 * given.dt, right=True) - 1).clamp(min=0)
    before = latest.gather(1, place.unsqueeze(-1).expand(-1, -1, latest.shape[-1]))
    return (grid.unsqueeze(-1) - before).clamp(min=0).to(given.control.dtype)


def mirror(given: Given) -> Tensor:
    """X(T - t), T each series' own end: the path read backwards, in step with itself, [n, N + 1, C]."""
    place = ((given.ends.unsqueeze(1) - given.grid) / given.dt).clamp(min=0, max=given.control.shape[1] - 1)
    place = torch.where((place - place.round()).abs() < 1e-6, place.round(), place)
    low, high = (
        given.control.gather(1, rows.long().unsqueeze(-1).expand(-1, -1, given.control.shape[-1]))
        for rows in (place.floor(), place.ceil())
    )
    return torch.lerp(low, high, (place - place.floor()).to(low.dtype).unsqueeze(-1))


CHANNELS: dict[str, Callable[[Given], Tensor]] = {"rises": rises, "age": age, "mirror": mirror}
"""Kinds of channels by name; "mirror" looks ahead, the others do not."""


@dataclass(frozen=True)
class JoinedChannels:
    """Channels by name, each centred and scaled as on the training series.

    names: of `CHANNELS`; mean, scale: one number a channel. Raises ValueError for an unknown name.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if unknown := [name for name in self.names if name not in CHANNELS]:
            raise ValueError(f"channels: {', '.join(unknown)} is unknown; there are {', '.join(CHANNELS)}")

    @classmethod
    def fit(cls, names: Sequence[str], given: Given) -> JoinedChannels:
        """Learn means and standard deviations from training series, each up to its own end."""
        if not names:
            return cls(())
        raw = cls(tuple(names))._raw(given)[given.inside].double()
        spread = raw.std(0, correction=0)
        scale = torch.where(spread > 1e-6, spread, 1.0)
        return cls(tuple(names), tuple(raw.mean(0).tolist()), tuple(scale.tolist()))

    @property
    def width(self) -> int:
        """How many channels join the control."""
        return len(self.mean)

    def join(self, given: Given) -> Tensor:
        """Return the control [n, N + 1, C + width] with the channels beside it."""
        if not self.names:
            return given.control
        mean, scale = (torch.tensor(x, dtype=given.control.dtype) for x in (self.mean, self.scale))
        return torch.cat((given.control, (self._raw(given) - mean) / scale), -1)

    def _raw(self, given: Given) -> Tensor:
        return torch.cat([CHANNELS[name](given) for name in self.names], -1)
