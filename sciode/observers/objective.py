"""What training minimises: errors at queries among what was observed, drawn by importance, and at the sensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .model import ObserverModel
from .windows import Windows
from .wiring import Joints, Wiring, wired

__all__ = ["Importance", "Objective"]

_FEWEST = 3
"""Sensors that dropout leaves at least."""


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


class Objective(nn.Module):
    """mean (s(x, t) - reading)^2 over queries + weight * mean (head(z(x_i, t_k)) - reading)^2 + penalties.

    queries: drawn a window, from all frames and all sensors, those that dropout hides too: so the continuum between
    sensors is learnt. dropout: of each sensor in each step; sensors on walls stay. every: frames from anchor time to
    anchor time. penalty: of the solver's regularizers. masks: in how many ways sensors are hidden, each joined once; 0:
    a new one every step, whose graph is made anew.

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
    ) -> None:
        super().__init__()
        self.model, self.windows, self.wiring = model, dict(windows), wiring
        self.every, self.queries, self.dropout, self.chunk = every, queries, dropout, chunk
        self.dynamics_weight, self.penalty = dynamics_weight, penalty
        self.masks = masks
        self._kept_before: dict[tuple[bool, int, int], Tensor] = {}
        self._joints: Joints = {}
        self.importance = Importance(_observed(self.windows["train"]))

    def loss(self, rows: Tensor, seed: int) -> Tensor:
        """Of these windows, numbers on the CPU: of the training part, or in evaluation mode of the validation part."""
        if self.training:
            return self._batch(rows, seed)
        parts = [self._batch(part, seed) * len(part) for part in rows.split(self.chunk)]
        return torch.stack(parts).sum() / len(rows)

    def _batch(self, rows: Tensor, seed: int) -> Tensor:
        windows = self.windows["train" if self.training else "validation"]
        device, most = windows.values.device, windows.values.shape[2]
        values = windows.values[rows.to(device)]
        times = windows.times[rows.to(device)]
        keep = self._kept(windows, rows, seed)
        given = [value[:, chosen.to(device)] for value, chosen in zip(values, keep, strict=True)]
        layouts = [windows.layouts[windows.which[int(row)]] for row in rows]
        first = [x[0] for x in given]
        seen = wired(layouts, keep, first, _marks(times, self.every), self.wiring, windows.space, self._joints)
        generator = torch.Generator(device).manual_seed(seed)
        drawn = self._drawn(values, rows.to(device), keep, generator)
        frame, sensor = drawn // most, drawn % most
        places = _padded([layout.points for layout in layouts], most).to(device)
        x = places.gather(1, sensor.unsqueeze(-1).expand(-1, -1, places.shape[-1]))
        truth = values.flatten(1, 2).gather(1, drawn.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
        found = self.model(seen, x, times.gather(1, frame))
        asked = _error(found.values, truth)
        if self.training:
            self.importance.update(rows.to(device), drawn, asked.detach())
        told = _padded([part[:: self.every].transpose(0, 1) for part in given], seen.points.shape[1], torch.nan)
        total = asked
        if self.dynamics_weight:
            said = found.told[:, : told.shape[2]].transpose(1, 2)  # [B, N, K, c]
            total = total + self.dynamics_weight * _error(said, told)
        for penalty in found.latents.penalties.values():
            total = total + self.penalty * penalty.mean()
        return total

    def _kept(self, windows: Windows, rows: Tensor, seed: int) -> list[Tensor]:
        """Sensors that a step may read; windows of one layout share them, and so its graph."""
        made = {}
        for number in sorted({windows.which[int(row)] for row in rows}):
            mask = seed % self.masks if self.masks and self.training else seed
            key = (self.training, number, mask)
            made[number] = self._kept_before.get(key)
            if made[number] is None:
                made[number] = self._masked(windows.layouts[number].walls, mask)
                if self.masks:
                    self._kept_before[key] = made[number]
        return [made[windows.which[int(row)]] for row in rows]

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
            hidden[row, :, chosen.to(hidden.device)] = False
        even = torch.where(hidden.any((1, 2), keepdim=True), hidden, there).flatten(1).float()
        return torch.multinomial(even, self.queries, replacement=True, generator=generator)


def _marks(times: Tensor, every: int) -> Tensor:
    """Anchor times [B, K]: every so many frames, and one more, that none reads, where the last frame is after them."""
    marks = times[:, ::every]
    if (times.shape[1] - 1) % every == 0:
        return marks
    return torch.cat((marks, torch.maximum(marks[:, -1:] + 1.0, times[:, -1:])), 1)


def _observed(windows: Windows) -> Tensor:
    return windows.values.isfinite().any(-1).flatten(1)


def _error(found: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error over the readings that are there."""
    there = truth.isfinite()
    error = torch.where(there, found - torch.where(there, truth, 0.0), 0.0)
    return error.square().sum() / there.sum().clamp(min=1)


def _padded(parts: list[Tensor], most: int, fill: float = 0.0) -> Tensor:
    return torch.stack([torch.cat((x, x.new_full((most - len(x), *x.shape[1:]), fill))) for x in parts])
