"""Operators without symbols, for comparison: a DeepONet, and a Fourier operator along the time axis.

Both see what the transformer sees of the data: each component less its mean and divided by its size over the frames
that are read, beside those means and sizes, and answer at times that are asked for.

Sources: Lu, Jin, Pang, Zhang, Karniadakis: DeepONet (Nature Machine Intelligence 3, 2021); Li et al.: Fourier neural
operator for parametric partial differential equations (ICLR 2021).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

__all__ = ["DeepONet", "FourierOperator", "Operator", "standardised"]


class Standard(NamedTuple):
    """scaled [B, T, D], mean and size [B, D] of what was read, and both in numbers that a network bears, [B, 2 D]."""

    scaled: Tensor
    mean: Tensor
    size: Tensor
    told: Tensor


def standardised(values: Tensor) -> Standard:
    """Of trajectories [B, T, D]; components that never move have size 1e-6 and scaled values of nearly 0."""
    mean = values.mean(1)
    size = (values - mean[:, None]).square().mean(1).sqrt().clamp(min=1e-6)
    told = torch.cat((size.log(), torch.asinh(mean)), -1)
    return Standard((values - mean[:, None]) / size[:, None], mean, size, told)


class Operator(nn.Module, ABC):
    """times [B, R], values [B, R, D], ask [B, Q] -> values [B, Q, D]."""

    @abstractmethod
    def forward(self, times: Tensor, values: Tensor, ask: Tensor) -> Tensor:
        """Answer at the times that are asked for."""


def _perceptron(inputs: int, width: int, outputs: int, depth: int = 3) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(inputs, width), nn.GELU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


@final
class DeepONet(Operator):
    """u_d(t) = sum_k b_dk(frames) c_k(t): b reads all frames at once, c the time. frames: how many are read."""

    def __init__(self, dimension: int, frames: int, width: int = 512, modes: int = 128) -> None:
        super().__init__()
        self.dimension = dimension
        self.branch = _perceptron((frames + 2) * dimension, width, modes * dimension)
        self.trunk = _perceptron(1, width, modes)
        self.bias = nn.Parameter(torch.zeros(dimension))

    def forward(self, times: Tensor, values: Tensor, ask: Tensor) -> Tensor:
        """See `Operator`; the frames' times are those of training."""
        seen = standardised(values)
        branch = self.branch(torch.cat((seen.scaled.flatten(1), seen.told), -1)).unflatten(-1, (self.dimension, -1))
        trunk = self.trunk(ask[..., None])
        found = torch.einsum("bdk,bqk->bqd", branch, trunk) / branch.shape[-1] ** 0.5 + self.bias
        return seen.mean[:, None] + seen.size[:, None] * found


@final
class FourierOperator(Operator):
    """Layers x + W x + (low frequencies of x, each times a matrix) on a time grid, whose first frames are what is read.

    frames: of the whole grid, from 0 to `end`; answers are read off it, linear between its points.
    """

    def __init__(
        self, dimension: int, frames: int, end: float, width: int = 96, modes: int = 24, layers: int = 4
    ) -> None:
        super().__init__()
        self.frames, self.end, self.modes = frames, end, modes
        self.lift = nn.Linear(3 * dimension + 2, width)
        self.local = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.spectral = nn.ParameterList(
            nn.Parameter(torch.randn(modes, width, width, 2) / width) for _ in range(layers)
        )
        self.out = _perceptron(width, 2 * width, dimension, 1)

    def forward(self, times: Tensor, values: Tensor, ask: Tensor) -> Tensor:
        """See `Operator`; the frames that are read are the grid's first ones."""
        seen, read = standardised(values), values.shape[1]
        grid = torch.linspace(0, 1, self.frames, device=values.device).expand(len(values), -1)
        known = (torch.arange(self.frames, device=values.device) < read).to(values).expand_as(grid)
        padded = nn.functional.pad(seen.scaled, (0, 0, 0, self.frames - read))
        told = seen.told[:, None].expand(-1, self.frames, -1)
        x = self.lift(torch.cat((padded, told, grid[..., None], known[..., None]), -1))
        for local, spectral in zip(self.local, self.spectral, strict=True):
            x = x + nn.functional.gelu(local(x) + self._filtered(x, spectral))
        found = self.out(x)
        place = (ask / self.end * (self.frames - 1)).clamp(0, self.frames - 1)
        low = place.floor().long().clamp(max=self.frames - 2)
        share = (place - low)[..., None]

        def at(index: Tensor) -> Tensor:
            return found.gather(1, index[..., None].expand(-1, -1, found.shape[-1]))

        return seen.mean[:, None] + seen.size[:, None] * ((1 - share) * at(low) + share * at(low + 1))

    def _filtered(self, x: Tensor, spectral: Tensor) -> Tensor:
        """Frequencies of the grid twice as long, zeros behind it: time has an end, it is no circle."""
        length = 2 * self.frames
        with torch.autocast(x.device.type, enabled=False):
            waves = torch.fft.rfft(x.float(), n=length, dim=1)[:, : self.modes]
            turned = torch.einsum("bmi,mio->bmo", waves, torch.view_as_complex(spectral.float()))
            return torch.fft.irfft(turned, n=length, dim=1)[:, : self.frames].to(x)
