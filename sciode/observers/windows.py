"""Flows at sensors as training reads them: windows of equal length, standardised, on one device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sciode.data.flow import Flow, FlowSet, Space

__all__ = ["Layout", "Scale", "Windows", "anchor_times", "cut", "scale_of", "usual_clock"]


class Scale(NamedTuple):
    """mean, deviation: [c] float64 of the readings. unit: of time, the distance of anchor times."""

    mean: Tensor
    deviation: Tensor
    unit: float

    def standardised(self, values: Tensor) -> Tensor:
        """Readings [..., c] as networks read them, float32."""
        return ((values.double() - self.mean.to(values.device)) / self.deviation.to(values.device)).float()

    def restored(self, values: Tensor) -> Tensor:
        """The way back, float64."""
        return values.double() * self.deviation.to(values.device) + self.mean.to(values.device)


class Layout(NamedTuple):
    """Where one flow's sensors are: points [N, d] on the CPU, walls [N] bool."""

    points: Tensor
    walls: Tensor


@dataclass(frozen=True)
class Windows:
    """W windows of L frames and N sensors at most.

    values: [W, L, N, c], standardised, NaN = missing or no such sensor. times: [W, L] float64, in units of `Scale.unit`
    from 0 on. layouts: of all flows; which: a window's number among them. space: where they lie.
    """

    values: Tensor
    times: Tensor
    layouts: tuple[Layout, ...]
    which: tuple[int, ...]
    space: Space

    @property
    def gaps(self) -> tuple[bool, ...]:
        """Of each window, whether some sensor's first reading is missing."""
        counts = torch.tensor([len(self.layouts[place].points) for place in self.which], device=self.values.device)
        theirs = torch.arange(self.values.shape[2], device=self.values.device) < counts.unsqueeze(1)  # [W, N]
        return tuple((theirs & ~self.values[:, 0].isfinite().all(-1)).any(1).tolist())

    def to(self, device: torch.device) -> Windows:
        """Values and times on a device; layouts stay, for their graphs are made on the CPU."""
        return Windows(self.values.to(device), self.times.to(device), self.layouts, self.which, self.space)


def anchor_times(times: Tensor, every: int) -> Tensor:
    """[B, K] of times [B, L]: every so many frames, and one more, that none reads, where the last frame is after
    them."""
    marks = times[:, ::every]
    if (times.shape[1] - 1) % every == 0:
        return marks
    return torch.cat((marks, torch.maximum(marks[:, -1:] + 1.0, times[:, -1:])), 1)


def usual_clock(times: Tensor, every: int) -> Tensor:
    """[K], the median over windows, anchor time by anchor time."""
    return anchor_times(times, every).median(0).values.cpu()


def scale_of(flows: FlowSet, every: int) -> Scale:
    """Mean and deviation of the readings that are there, and `every` times the median time between frames.

    A constant channel has deviation 1. Raises ValueError for a channel without any reading, or flows of one frame.
    """
    channels = len(flows.channels)
    seen = [flow.values.double().reshape(-1, channels) for flow in flows]
    values = torch.cat(seen)
    there = values.isfinite()
    counts = there.sum(0)
    if bool((counts == 0).any()):
        lacking = flows.channels[int((counts == 0).nonzero()[0])]
        raise ValueError(f"channel {lacking!r} has no reading at all: leave it out")
    clean = torch.where(there, values, 0.0)
    mean = clean.sum(0) / counts
    deviation = (torch.where(there, clean - mean, 0.0).square().sum(0) / counts).sqrt()
    gaps = torch.cat([flow.times.diff() for flow in flows])
    if not len(gaps):
        raise ValueError("every flow has one frame: there is no time to learn")
    deviation = torch.where(deviation > 1e-12 * mean.abs().clamp(min=1e-300), deviation, 1.0)
    return Scale(mean, deviation, every * float(gaps.median()))


def cut(flows: FlowSet, length: int, stride: int | None, scale: Scale) -> Windows:
    """Windows of `length` frames, or as long as the shortest flow has; each flow's sensors are a layout of its own,
    flows with equal points share one. Raises ValueError for sensors that move, or too few frames."""
    shortest = min(len(flow.times) for flow in flows)
    length = min(length, shortest)
    if length < 2:
        raise ValueError(f"a flow has {shortest} frames: two are the fewest that show dynamics")
    layouts: list[Layout] = []
    values, times, which = [], [], []
    most = max(flow.points.shape[-2] for flow in flows)
    for number, flow in enumerate(flows):
        if flow.moves:
            raise ValueError(f"flow {number}: the sensors move; fixed ones are what an observer reads")
        place = _place(layouts, flow)
        for begin in range(0, len(flow.times) - length + 1, stride or length):
            part = flow.between(begin, begin + length)
            found = scale.standardised(part.values)
            found = torch.where(found.isfinite(), found, torch.nan)
            gap = found.new_full((length, most - found.shape[1], found.shape[2]), torch.nan)
            values.append(torch.cat((found, gap), 1))
            times.append((part.times - part.times[0]) / scale.unit)
            which.append(place)
    return Windows(torch.stack(values), torch.stack(times), tuple(layouts), tuple(which), flows.space)


def _place(layouts: list[Layout], flow: Flow) -> int:
    walls = torch.zeros(len(flow.points), dtype=torch.bool) if flow.walls is None else flow.walls
    for number, known in enumerate(layouts):
        if known.points.shape == flow.points.shape and torch.equal(known.points, flow.points.float()):
            return number
    layouts.append(Layout(flow.points.float(), walls if walls.ndim == 1 else walls.any(0)))
    return len(layouts) - 1
