"""An opponent: a Fourier neural operator on a grid, which sees the sensors through a smooth surface."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from torch import Tensor, nn

from sciode.data.flow import FlowSet, Space
from sciode.nn import mlp
from sciode.training import choose_device, isolated_rng

from .arrays import Reading
from .graphs import flattened
from .interpolation import between_frames
from .rivals import asked_of, even, trained_rival, windows_of
from .scene import embedded
from .surface import chosen_order, surface_inverse, surface_rows
from .windows import Windows

__all__ = ["FourierOperator", "GridSteps", "Lattice"]


class SpectralConvolution(nn.Module):
    """Products of the lowest `modes` waves of an image [B, c, n, m] with complex weights, c x c a wave."""

    def __init__(self, width: int, modes: tuple[int, int]) -> None:
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.randn(width, width, 2 * modes[0], modes[1], 2) / width)

    def forward(self, image: Tensor) -> Tensor:
        """The convolution, of the same shape."""
        low, high = self.modes
        spectrum = torch.fft.rfft2(image, norm="forward")
        kept = torch.cat((spectrum[:, :, :low, :high], spectrum[:, :, -low:, :high]), 2)
        mixed = torch.einsum("bixy,ioxy->boxy", kept, torch.view_as_complex(self.weight))
        whole = spectrum.new_zeros(mixed.shape[:2] + spectrum.shape[2:])
        whole[:, :, :low, :high], whole[:, :, -low:, :high] = mixed[:, :, :low], mixed[:, :, low:]
        return torch.fft.irfft2(whole, s=image.shape[-2:], norm="forward")


class GridSteps(nn.Module):
    """s_{k+1} = s_k + FNO(s_k, places) on a grid [B, c, n, m], of frames that are even: `layers` of a spectral
    convolution and an affine map, GELU between them.

    Source: Li et al.: Fourier neural operator for parametric partial differential equations (ICLR 2021), the recurrent
    form in two dimensions; the increment is ours.
    """

    where: Tensor

    def __init__(self, channels: int, where: Tensor, width: int, layers: int, modes: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("where", where)
        self.lift = nn.Conv2d(channels + len(where), width, 1)
        self.far = nn.ModuleList([SpectralConvolution(width, modes) for _ in range(layers)])
        self.near = nn.ModuleList([nn.Conv2d(width, width, 1) for _ in range(layers)])
        self.lower = mlp([width, 2 * width, channels], nn.GELU)

    def forward(self, start: Tensor, steps: int) -> Tensor:
        """States [B, steps + 1, c, n, m] from the first on."""
        states = [start]
        for _ in range(steps):
            h = self.lift(torch.cat((states[-1], self.where.expand(len(start), -1, -1, -1)), 1))
            for far, near in zip(self.far, self.near, strict=True):
                h = h + F.gelu(far(h) + near(h))
            states.append(states[-1] + self.lower(h.movedim(1, -1)).movedim(-1, 1))
        return torch.stack(states, 1)


@dataclass(frozen=True)
class Lattice:
    """A grid [n, m] over a space: of a periodic box and a plane; of longitude and latitude on a sphere."""

    space: Space
    shape: tuple[int, int]

    @property
    def flat(self) -> Space:
        """The box that the grid covers."""
        return flattened(torch.ones(1, 3), self.space)[1] if self.space.kind == "sphere" else self.space

    def points(self) -> Tensor:
        """Its points in the space [n m, d]."""
        ends = [self.space.kind != "periodic" and not (self.space.kind == "sphere" and axis == 0) for axis in (0, 1)]
        sides = []
        for axis, (count, closed) in enumerate(zip(self.shape, ends, strict=True)):
            share = torch.arange(count, dtype=torch.float64) / (count - 1 if closed else count)
            sides.append(self.flat.lower[axis] + share * (self.flat.upper[axis] - self.flat.lower[axis]))
        first, second = (x.flatten() for x in torch.meshgrid(*sides, indexing="ij"))
        if self.space.kind != "sphere":
            return torch.stack((first, second), -1)
        ring = second.cos()
        return self.space.radius * torch.stack((ring * first.cos(), ring * first.sin(), second.sin()), -1)

    def gridded(self, sensors: Tensor, values: Tensor, stretch: Tensor | None = None, order: int = 3) -> Tensor:
        """Readings [..., N, c] of sensors [N, d] as images [..., c, n, m], by the smooth surface through them."""
        there = torch.ones(len(sensors), dtype=torch.bool)
        inverse = surface_inverse(sensors, self.space, stretch, order)
        weights = surface_rows(self.points(), sensors, there, self.space, stretch, order) @ inverse
        return (weights @ values.double()).float().movedim(-1, -2).unflatten(-1, self.shape)

    def read(self, images: NDArray[Any], places: NDArray[Any]) -> NDArray[np.float64]:
        """Images [T, c, n, m] at places [Q, d] by cubic splines: [T, Q, c]."""
        asked = torch.as_tensor(places).double()
        flat = flattened(asked, self.space)[0] if self.space.kind == "sphere" else asked
        lower, upper = np.array(self.flat.lower), np.array(self.flat.upper)
        share = (flat.numpy() - lower) / (upper - lower)
        wraps = [self.space.kind == "periodic" or (self.space.kind == "sphere" and axis == 0) for axis in (0, 1)]
        index = [np.mod(share[:, a], 1.0) * self.shape[a] if wraps[a] else share[:, a] * (self.shape[a] - 1)
                 for a in (0, 1)]  # fmt: skip
        room = [8 if wrap else 0 for wrap in wraps]
        wide = np.pad(images, ((0, 0), (0, 0), (room[0],) * 2, (0, 0)), mode="wrap")
        wide = np.pad(wide, ((0, 0), (0, 0), (0, 0), (room[1],) * 2), mode="wrap")
        at = np.stack([i + r for i, r in zip(index, room, strict=True)])
        found = [[map_coordinates(image, at, order=3, mode="nearest") for image in frame] for frame in wide]
        return np.moveaxis(np.array(found, dtype=np.float64), 1, 2)


class _Unrolled(nn.Module):
    """Training by whole windows, as the paper has it; of all windows as images."""

    def __init__(self, net: GridSteps, parts: dict[str, Tensor]) -> None:
        super().__init__()
        self.net, self.parts = net, parts

    def loss(self, rows: Tensor, seed: int) -> Tensor:
        """Mean squared error of all frames after the first."""
        return self.value(self.inputs(rows, seed))

    def inputs(self, rows: Tensor, seed: int) -> Tensor:
        """Windows [B, L, c, n, m]."""
        del seed
        images = self.parts["train" if self.training else "validation"]
        return images[rows.to(images.device, non_blocking=True)]

    def value(self, truth: Tensor) -> Tensor:
        """The loss of `inputs`."""
        return (self.net(truth[:, 0], truth.shape[1] - 1)[:, 1:] - truth[:, 1:]).square().mean()


@dataclass(kw_only=True, eq=False)
class FourierOperator:
    """Grid the readings (`chosen_order`), step the grid by a Fourier neural operator, interpolate the answer.

    It learns from gridded readings, in training too: no more is known. side: points an axis of the grid, twice as many
    around a sphere; 0: about twice as dense as the sensors, at most 64. modes: waves an axis, at most half of it. Other
    parameters as `Observer`'s. In two dimensions, of frames that are evenly apart.
    """

    width: int = 32
    layers: int = 4
    modes: int = 12
    side: int = 0
    length: int = 20
    epochs: int = 100
    batch_size: int = 8
    lr: float = 1e-3
    random_state: int = 0
    device: str = "auto"
    engine: str = "auto"

    def fit_flows(
        self, train: FlowSet, validation: FlowSet | None = None, *, folder: Path | None = None, progress: bool = False
    ) -> Self:
        """Learn from flow sets of which the points are the sensors, none of whose readings is missing.

        Raises ValueError for missing readings, uneven frames and other dimensions.
        """
        device = choose_device(self.device)
        self.space_, self.channels_ = train.space, train.channels
        sphere = self.space_.kind == "sphere"
        if not sphere and self.space_.dimension != 2:
            raise ValueError(f"a Fourier operator here has two dimensions, not {self.space_.dimension}")
        self.scale_, windows = windows_of(train, validation, self.length)
        even(windows["train"], "Fourier operator")
        first, readings = windows["train"].of_first()
        found = round(2 * math.sqrt(len(first) / (2 if sphere else 1)) / 2) * 2
        side = self.side or min(max(found, 8), 64)
        self.lattice_ = Lattice(self.space_, (2 * side, side) if sphere else (side, side))
        self.order_, self.stretch_ = chosen_order(first, readings, self.space_)
        parts = {name: self._images(part).to(device) for name, part in windows.items()}
        where = embedded(self.lattice_.points(), self.space_).float().T.unflatten(1, self.lattice_.shape)
        modes = (min(self.modes, self.lattice_.shape[0] // 2 - 1), min(self.modes, self.lattice_.shape[1] // 2))
        with isolated_rng(self.random_state, 1):
            self.network_ = GridSteps(len(self.channels_), where, self.width, self.layers, modes)
        self.network_.to(device, torch.float32)
        self.history_ = trained_rival(self, _Unrolled(self.network_, parts), windows, folder, progress, self.engine)
        return self

    def predict(self, positions: Any, times: Any, given: Reading) -> NDArray[np.float64]:
        """Values [T, Q, c] at positions [Q, d] and times [T] from the sensors' readings at one time.

        Raises ValueError for what `Observer.predict` refuses, and for missing readings.
        """
        places, steps = asked_of(self, positions, times, given)
        count = max(int(np.ceil(steps.max() - 1e-9)), 1)
        readings = self.scale_.standardised(torch.as_tensor(np.array(given.values)))
        if not bool(readings.isfinite().all()):
            raise ValueError("a Fourier operator grids all readings: leave silent sensors out of the reading")
        sensors = torch.as_tensor(np.array(given.positions))
        start = self.lattice_.gridded(sensors, readings, self.stretch_, self.order_).unsqueeze(0)
        with torch.no_grad():
            states = self.network_(start.to(next(self.network_.parameters()).device), count)[0].cpu().numpy()
        frames = self.lattice_.read(states, places)
        return self.scale_.restored(torch.from_numpy(between_frames(np.arange(count + 1.0), frames, steps))).numpy()

    def _images(self, windows: Windows) -> Tensor:
        """Windows as images [W, L, c, n, m]."""
        found = []
        for number, layout in enumerate(windows.layouts):
            own = windows.values[[at for at, which in enumerate(windows.which) if which == number]]
            if bool(own[:, :, : len(layout.points)].isnan().any()):
                raise ValueError("a Fourier operator grids all readings: none may be missing")
            seen = own[:, :, : len(layout.points)]
            found.append(self.lattice_.gridded(layout.points, seen, self.stretch_, self.order_))
        return torch.cat(found)
