"""Flows at sensors as training reads them: windows of equal length, standardised, on one device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciode.data.flow import Flow, FlowSet, Space

from .origin import check_told_apart

__all__ = [
    "Layout", "Scale", "Windows", "anchor_times", "cut", "fingerprint", "layout_of", "scale_of",
    "usual_clock", "walls_of",
]  # fmt: skip


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


def layout_of(points: Tensor, walls: Any | None = None) -> Layout:
    """Sensors at points [N, d] in single precision, as networks read them; walls [N] bool, None: on none."""
    none = torch.zeros(len(points), dtype=torch.bool)
    return Layout(points.float(), none if walls is None else torch.as_tensor(walls))


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

    def of_first(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Of the first layout the points [N, d], and all its readings [F, N, c], on a device."""
        points = self.layouts[0].points.to(device)
        own = self.values[[number for number, which in enumerate(self.which) if which == 0]]
        return points, own[:, :, : len(points)].flatten(0, 1).to(device)

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


def cut(flows: FlowSet, length: int, stride: int | None, scale: Scale, part: str = "training") -> Windows:
    """Windows of `length` frames, or as long as the shortest flow has, but those without any reading; each flow's
    sensors are a layout of its own, flows with equal points and walls share one.

    part: what they are for, as errors say it. Raises ValueError for sensors that move or that float32 cannot tell
    apart, too few frames, or where no window is left.
    """
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
        pieces = list(_pieces(flow, length, stride or length, scale))
        if not pieces:
            continue
        check_told_apart(flow.points, number)
        place = _place(layouts, flow)
        for found, clock in pieces:
            gap = found.new_full((length, most - found.shape[1], found.shape[2]), torch.nan)
            values.append(torch.cat((found, gap), 1))
            times.append(clock)
            which.append(place)
    if not which:
        raise ValueError(f"{part}: none of its windows of {length} frames has a reading: give others")
    return Windows(torch.stack(values), torch.stack(times), tuple(layouts), tuple(which), flows.space)


def fingerprint(parts: Mapping[str, Windows]) -> str:
    """64 hexadecimal digits that tell windows by parts from others: SHA-256 of all that they hold."""
    found = hashlib.sha256()
    for name, part in parts.items():
        tensors = [part.values, part.times, *(x for layout in part.layouts for x in layout)]
        shapes = [tuple(x.shape) for x in tensors]
        found.update(f"{name} {part.space} {part.which} {shapes}".encode())
        for x in tensors:
            found.update(x.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _pieces(flow: Flow, length: int, stride: int, scale: Scale) -> Iterator[tuple[Tensor, Tensor]]:
    """Standardised readings [length, N, c] and times [length] of the windows in which anything was read."""
    for begin in range(0, len(flow.times) - length + 1, stride):
        part = flow.between(begin, begin + length)
        found = scale.standardised(part.values)
        there = found.isfinite()
        if bool(there.any()):
            yield torch.where(there, found, torch.nan), (part.times - part.times[0]) / scale.unit


def walls_of(flow: Flow) -> Tensor | None:
    """Which sensors [N] are on a wall, at any time; None where that is not said."""
    return flow.walls if flow.walls is None or flow.walls.ndim == 1 else flow.walls.any(0)


def _place(layouts: list[Layout], flow: Flow) -> int:
    own = layout_of(flow.points, walls_of(flow))
    for number, known in enumerate(layouts):
        if torch.equal(known.points, own.points) and torch.equal(known.walls, own.walls):
            return number
    layouts.append(own)
    return len(layouts) - 1
