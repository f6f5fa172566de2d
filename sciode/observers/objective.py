"""What training minimises: errors at queries among what was observed, drawn by importance, and at the sensors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .gaps import filled
from .model import ObserverModel
from .scene import Scene
from .windows import Windows, anchor_times
from .wiring import Joined, Joints, Wiring, gathered, joints_of

__all__ = ["Importance", "Objective", "Told"]

_FEWEST = 3
"""Sensors that dropout leaves at least."""
_KEPT = 2**30
"""Bytes of first readings that were told, at most."""


class Importance(nn.Module):
    """Weights of what may be asked, [W, P]: after a batch, W_j := loss where j was drawn, W_j += loss where not.

    So what has long not been asked rises, and what is known falls. What was not observed has weight 0 for ever. The
    weights are a buffer: checkpoints hold them. Source: Janny et al. (ICLR 2024).
    """

    weights: Tensor

    def __init__(self, observed: Tensor) -> None:
        super().__init__()
        if bool((~observed.any(1)).any()):
            raise ValueError("a window has no reading at all: leave it out")
        self.register_buffer("weights", observed.float())

    def draw(self, rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Numbers [B, count] drawn for these rows, with replacement."""
        return torch.multinomial(self.weights[rows], count, replacement=True, generator=generator)

    def update(self, rows: Tensor, drawn: Tensor, loss: Tensor) -> None:
        """Take account of a batch's loss, 0-d."""
        with torch.no_grad():
            old = self.weights[rows]
            new = (old + loss).scatter(1, drawn, loss.expand(drawn.shape).to(old))
            # A loss of 0 must not forbid a query for ever.
            self.weights[rows] = torch.where(old > 0, new.clamp(min=1e-12), 0.0)


class Told(NamedTuple):
    """A step's inputs. rows: [B], its windows; drawn: [B, Q], what is asked of them, at places x [B, Q, d] and times t
    [B, Q], where truth [B, Q, c] was read. readings: [B, N, K, c], of the sensors of the scene at the anchor times; NaN
    where there is none."""

    rows: Tensor
    drawn: Tensor
    scene: Scene
    readings: Tensor
    x: Tensor
    t: Tensor
    truth: Tensor


class Objective(nn.Module):
    """mean (s(x, t) - reading)^2 over queries + weight * mean (head(z(x_i, t_k)) - reading)^2 + penalties.

    queries: drawn a window, from all frames and all sensors, those that dropout hides too: so the continuum between
    sensors is learnt. dropout: of each sensor in each step; sensors on walls stay. every: frames from anchor time to
    anchor time. penalty: of the solver's regularizers. masks: in how many ways sensors are hidden, each joined once; 0:
    a new one every step, whose graph is made anew. fixed: room for as many sensors whichever are hidden, so that the
    shapes of all steps are the same, as a recorded step needs it; the numbers are.

    In evaluation mode the queries are drawn evenly, by a seed that stays, from the sensors that dropout hides: what
    chooses the weights is how well places are told that were not read.
    """

    def __init__(
        self,
        model: ObserverModel,
        windows: Mapping[str, Windows],
        *,
        wiring: Wiring,
        every: int,
        queries: int,
        dropout: float,
        dynamics_weight: float,
        penalty: float = 0.0,
        masks: int = 32,
        chunk: int = 8,
        fixed: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.windows, self.wiring = model, dict(windows), wiring
        self.every, self.queries, self.dropout, self.chunk = every, queries, dropout, chunk
        self.dynamics_weight, self.penalty = dynamics_weight, penalty
        self.masks, self.fixed = masks, fixed
        self._points: dict[bool, Tensor] = {}
        self._kept_before: dict[tuple[bool, int, int], Tensor] = {}
        self._told_before: dict[tuple[bool, int, int], Tensor] = {}
        self._gappy: dict[bool, tuple[bool, ...]] = {}
        self._joints: Joints = {}
        self.importance = Importance(_observed(self.windows["train"]))

    def loss(self, rows: Tensor, seed: int) -> Tensor:
        """Of these windows, numbers on the CPU: of the training part, or in evaluation mode of the validation part."""
        if self.training:
            return self.value(self.inputs(rows, seed))
        parts = [self.value(self.inputs(part, seed)) * len(part) for part in rows.split(self.chunk)]
        return torch.stack(parts).sum() / len(rows)

    def inputs(self, rows: Tensor, seed: int) -> Told:
        """What a step on these windows reads, on their device, and is asked."""
        windows = self.windows["train" if self.training else "validation"]
        device, most = windows.values.device, windows.values.shape[2]
        there = rows.to(device, non_blocking=True)
        values, times = windows.values[there], windows.times[there]
        keep = self._kept(windows, rows, seed)
        layouts = [windows.layouts[windows.which[int(row)]] for row in rows]
        room = self._room if self.fixed and self.training else 0
        known = self._joints if self._again else {}
        parts = joints_of(layouts, keep, self.wiring, windows.space, device, known, room)
        told = _told(values[:, :: self.every], parts)
        starts = [x[: len(part.points), 0] for x, part in zip(told, parts, strict=True)]
        self._fill(starts, parts, rows, seed)
        seen = gathered(parts, starts, anchor_times(times, self.every), windows.space)
        drawn = self._drawn(values, there, [part.numbers for part in parts], torch.Generator(device).manual_seed(seed))
        frame, sensor = drawn // most, drawn % most
        places = self._places(windows, rows)
        x = places.gather(1, sensor.unsqueeze(-1).expand(-1, -1, places.shape[-1]))
        truth = values.flatten(1, 2).gather(1, drawn.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
        return Told(there, drawn, seen, told, x, times.gather(1, frame), truth)

    def value(self, told: Told) -> Tensor:
        """The loss of `inputs`; in training it moves the weights of what may be asked."""
        found = self.model(told.scene, told.x, told.t)
        total = asked = _error(found.values, told.truth)
        if self.training:
            self.importance.update(told.rows, told.drawn, asked.detach())
        if self.dynamics_weight:
            said = found.told[:, : told.readings.shape[2]].transpose(1, 2)  # [B, N, K, c]
            total = total + self.dynamics_weight * _error(said, told.readings)
        for penalty in found.latents.penalties.values():
            total = total + self.penalty * penalty.mean()
        return total

    @cached_property
    def _room(self) -> int:
        """For the most sensors that any way of hiding leaves, and one more."""
        windows = self.windows["train"]
        if self.masks:
            every = [self._kept_of(windows, n, m) for n in range(len(windows.layouts)) for m in range(self.masks)]
            return max(map(len, every)) + 1
        return windows.values.shape[2] + 1

    def _fill(self, starts: list[Tensor], parts: list[Joined], rows: Tensor, seed: int) -> None:
        """Where first readings are missing, tell them: once a window and way of hiding, at once for what is joined
        alike."""
        keys = [(self.training, int(row), self._mask(seed)) for row in rows]
        alike: dict[int, list[int]] = {}
        for number, key in enumerate(keys):
            if self._gaps[key[1]] and key not in self._told_before:
                alike.setdefault(id(parts[number]), []).append(number)
        for numbers in alike.values():
            given = torch.stack([starts[number] for number in numbers])
            told = filled(given, parts[numbers[0]], self.wiring, self.windows["train"].space)
            for number, start in zip(numbers, told, strict=True):
                starts[number] = start
                if self._again and len(self._told_before) * start.nbytes < _KEPT:
                    self._told_before[keys[number]] = start
        for number, key in enumerate(keys):
            starts[number] = self._told_before.get(key, starts[number])

    @property
    def _again(self) -> bool:
        """Whether a way of hiding sensors comes again."""
        return bool(self.masks) or not self.training

    def _mask(self, seed: int) -> int:
        return seed % self.masks if self.masks and self.training else seed

    @property
    def _gaps(self) -> tuple[bool, ...]:
        if self.training not in self._gappy:
            self._gappy[self.training] = self.windows["train" if self.training else "validation"].gaps
        return self._gappy[self.training]

    def _places(self, windows: Windows, rows: Tensor) -> Tensor:
        """Sensors of these windows [B, N, d], 0 where there is none."""
        key = self.training
        if key not in self._points:
            points = _padded([layout.points for layout in windows.layouts], windows.values.shape[2])
            self._points[key] = points.to(windows.values.device)
        which = torch.tensor([windows.which[int(row)] for row in rows])
        return self._points[key][which.to(windows.values.device, non_blocking=True)]

    def _kept(self, windows: Windows, rows: Tensor, seed: int) -> list[Tensor]:
        """Sensors that a step may read; windows of one layout share them, and so its graph."""
        mask = self._mask(seed)
        numbers = [windows.which[int(row)] for row in rows]
        made = {number: self._kept_of(windows, number, mask) for number in sorted(set(numbers))}
        return [made[number] for number in numbers]

    def _kept_of(self, windows: Windows, number: int, mask: int) -> Tensor:
        key = (self.training, number, mask)
        made = self._kept_before.get(key)
        if made is None:
            made = self._masked(windows.layouts[number].walls, mask)
            if self._again:
                self._kept_before[key] = made
        return made

    def _masked(self, walls: Tensor, mask: int) -> Tensor:
        draws = torch.rand(len(walls), generator=torch.Generator().manual_seed(mask))
        keep = (draws >= self.dropout) | walls
        if int(keep.sum()) < _FEWEST:
            keep[draws.topk(min(_FEWEST, len(walls))).indices] = True
        return keep.nonzero().squeeze(1)

    def _drawn(self, values: Tensor, rows: Tensor, keep: list[Tensor], generator: torch.Generator) -> Tensor:
        if self.training:
            return self.importance.draw(rows, self.queries, generator)
        there = values.isfinite().any(-1)  # [B, L, N]
        hidden = there.clone()
        for row, chosen in enumerate(keep):
            hidden[row, :, chosen] = False
        even = torch.where(hidden.any((1, 2), keepdim=True), hidden, there).flatten(1).float()
        return torch.multinomial(even, self.queries, replacement=True, generator=generator)


def _told(values: Tensor, parts: list[Joined]) -> Tensor:
    """Readings [B, L, n, c] of the sensors of joints, [B, N, L, c]; NaN where there is none."""
    most = max(len(part.points) for part in parts)
    which = _padded([part.numbers for part in parts], most)
    there = _padded([part.there for part in parts], most)
    found = values.transpose(1, 2).gather(1, which[:, :, None, None].expand(-1, -1, values.shape[1], values.shape[3]))
    return found.masked_fill(~there[:, :, None, None], torch.nan)


def _observed(windows: Windows) -> Tensor:
    return windows.values.isfinite().any(-1).flatten(1)


def _error(found: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error over the readings that are there."""
    there = truth.isfinite()
    error = torch.where(there, found - torch.where(there, truth, 0.0), 0.0)
    return error.square().sum() / there.sum().clamp(min=1)


def _padded(parts: list[Tensor], most: int, fill: float = 0.0) -> Tensor:
    return torch.stack([torch.cat((x, x.new_full((most - len(x), *x.shape[1:]), fill))) for x in parts])
