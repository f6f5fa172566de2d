"""An opponent: a MeshGraphNet that simulates the sensors frame by frame, and interpolation between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciode.data.flow import FlowSet
from sciode.nn import mlp
from sciode.training import choose_device, isolated_rng

from .arrays import Reading
from .interpolation import between_frames, interpolated
from .message_passing import Interaction
from .model import PUBLISHED, Design, network
from .rivals import asked_of, even, trained_rival, windows_of
from .scene import Scene
from .windows import Windows, layout_of
from .wiring import Joints, Wiring, gathered, joints_of, wired

__all__ = ["MeshGraphNet", "StateDynamics"]


class StateDynamics(nn.Module):
    """s_{k+1} = s_k + decoder(layers(encoder(s_k))): encoded and decoded in every step, of frames that are even.

    The encoder, edges and layers are those of `LatentDynamics`, and the clock is counted, not read.
    Source: Pfaff et al.: Learning mesh-based simulation with graph networks (ICLR 2021).
    """

    def __init__(self, channels: int, windows: Windows, width: int, layers: int) -> None:
        super().__init__()
        self.dynamics = network(channels, windows.space, Design(width=width, layers=layers, **PUBLISHED)).dynamics
        self.dynamics.head = mlp([width, width, channels])
        assert all(isinstance(layer, Interaction) for layer in self.dynamics.layers)

    def step(self, seen: Scene, edges: Tensor) -> Tensor:
        """The next state [B, N, c] of `seen.start`, given the states of its edges."""
        z = self.dynamics.encoded(seen)
        return seen.start + self.dynamics.head(z + self.dynamics.rate(z, edges, seen))

    def forward(self, seen: Scene, steps: int) -> Tensor:
        """States [B, steps + 1, N, c] from the first readings on."""
        edges, states = self.dynamics.edge_states(seen), [seen.start]
        for _ in range(steps):
            states.append(self.step(seen, edges))
            seen = seen._replace(start=states[-1], read=torch.ones_like(seen.read))
        return torch.stack(states, 1)


class _OneStep(nn.Module):
    """Training of single steps from true readings with noise, and validation by whole rollouts."""

    def __init__(
        self, net: StateDynamics, parts: dict[str, Windows], wiring: Wiring, noise: float, frames: int, fixed: bool
    ) -> None:
        super().__init__()
        self.fixed = fixed
        self.net, self.parts, self.wiring, self.noise, self.frames = net, parts, wiring, noise, frames
        self._joints: Joints = {}
        self._whole = {name: [torch.arange(len(x.points)) for x in part.layouts] for name, part in parts.items()}

    def loss(self, rows: Tensor, seed: int) -> Tensor:
        """Mean squared error of next frames, or in evaluation mode of all frames of a rollout."""
        return self.value(self.inputs(rows, seed))

    def inputs(self, rows: Tensor, seed: int) -> tuple[Scene, Tensor]:
        """States to begin from, and those that follow [B, steps, N, c]."""
        name = "train" if self.training else "validation"
        windows = self.parts[name]
        values = windows.values[rows.to(windows.values.device, non_blocking=True)]  # [B, L, N, c]
        which = [windows.which[int(row)] for row in rows]
        if self.training:
            each = min(self.frames, values.shape[1] - 1)
            begin = torch.randperm(values.shape[1] - 1, generator=torch.Generator().manual_seed(seed))[:each]
            begin = begin.to(values.device, non_blocking=True)
            pairs = torch.stack((values[:, begin], values[:, begin + 1]), 2)
            values, which = pairs.flatten(0, 1), [one for one in which for _ in range(each)]
        layouts, device = [windows.layouts[number] for number in which], values.device
        starts = values[:, 0]
        if self.training:
            noise = torch.Generator(device).manual_seed(seed)
            starts = starts + self.noise * torch.randn(starts.shape, generator=noise, device=device, dtype=starts.dtype)
        clock = torch.arange(2, dtype=torch.float64, device=device).unsqueeze(0)
        keep = [self._whole[name][number] for number in which]
        room = values.shape[2] + 1 if self.fixed and self.training else 0
        parts = joints_of(layouts, keep, self.wiring, windows.space, device, self._joints, room)
        if room:
            starts = torch.cat((starts, torch.full_like(starts[:, :1], torch.nan)), 1)
        own = [start[: len(part.points)] for start, part in zip(starts, parts, strict=True)]
        return gathered(parts, own, clock, windows.space), values[:, 1:]

    def value(self, inputs: tuple[Scene, Tensor]) -> Tensor:
        """The loss of `inputs`."""
        seen, truth = inputs
        found = self.net(seen, truth.shape[1])[:, 1:, : truth.shape[2]]
        truth = truth[:, :, : found.shape[2]]
        there = truth.isfinite()
        error = torch.where(there, found - torch.where(there, truth, 0.0), 0.0)
        return error.square().sum() / there.sum().clamp(min=1)


@dataclass(kw_only=True, eq=False)
class MeshGraphNet:
    """Simulate the sensors by a graph network in the space of states, then interpolate (cubic) in space and time.

    every: frames a step. frames: steps that a window trains in an epoch, of those it has. noise: of the states in
    training, in deviations of the data, so that rollouts stay near what training had. Other parameters as `Observer`'s.
    Needs frames that are evenly apart.
    """

    width: int = 64
    layers: int = 3
    length: int = 20
    every: int = 1
    noise: float = 0.02
    frames: int = 8
    neighbours: int = 6
    epochs: int = 100
    batch_size: int = 8
    lr: float = 1e-3
    random_state: int = 0
    device: str = "auto"
    engine: str = "auto"

    def fit_flows(
        self, train: FlowSet, validation: FlowSet | None = None, *, folder: Path | None = None, progress: bool = False
    ) -> Self:
        """Learn from flow sets of which the points are the sensors. Raises ValueError for uneven frames."""
        device = choose_device(self.device)
        self.space_, self.channels_ = train.space, train.channels
        self.scale_, windows = windows_of(train, validation, self.length, self.every)
        even(windows["train"], "MeshGraphNet")
        parts = {name: part.to(device) for name, part in windows.items()}
        with isolated_rng(self.random_state, 1):
            self.network_ = StateDynamics(len(self.channels_), parts["train"], self.width, self.layers)
        self.network_.to(device, torch.float32)
        fixed = device.type == "cuda" and self.engine != "eager"
        training = _OneStep(self.network_, parts, Wiring(k=self.neighbours), self.noise, self.frames, fixed)
        self.history_ = trained_rival(self, training, windows, folder, progress, self.engine)
        return self

    def predict(self, positions: Any, times: Any, given: Reading) -> NDArray[np.float64]:
        """Values [T, Q, c] at positions [Q, d] and times [T] from the sensors' readings at one time.

        Raises ValueError for what `Observer.predict` refuses.
        """
        places, steps = asked_of(self, positions, times, given)
        count = max(int(np.ceil(steps.max() - 1e-9)), 1)
        device = next(self.network_.parameters()).device
        sensors = torch.as_tensor(np.array(given.positions), dtype=torch.float32)
        readings = self.scale_.standardised(torch.as_tensor(np.array(given.values))).to(device)
        clock = torch.arange(2, dtype=torch.float64, device=device).unsqueeze(0)
        wiring = Wiring(k=self.neighbours)
        seen = wired([layout_of(sensors)], [torch.arange(len(sensors))], [readings], clock, wiring, self.space_)
        with torch.no_grad():
            states = self.scale_.restored(self.network_(seen, count)[0]).cpu().numpy()
        frames = between_frames(np.arange(count + 1.0), states, steps)
        return interpolated(sensors.numpy(), frames, places, self.space_)
