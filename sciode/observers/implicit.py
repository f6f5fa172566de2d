"""An opponent: an implicit field whose code moves by a neural ODE, its codes found by descent (auto-decoding)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciode.data.flow import FlowSet, Space
from sciode.nn import mlp
from sciode.solvers import solve
from sciode.training import choose_device, isolated_rng

from .arrays import Reading
from .rivals import asked_of, trained_rival, windows_of
from .scene import embedded
from .windows import Windows

__all__ = ["CodedField", "ImplicitField"]

_SOLVER = {"method": "rk4", "dt": 1.0, "engine": "eager", "batch_dims": 1}
"""Of the codes' ODE: a step a frame."""


class CodedField(nn.Module):
    """s(x; a): products of sines, z_{l+1} = (W_l z_l + b_l + U_l a) sin(F_l u + f_l), then an affine map; da/dt = g(a).

    u is `embedded` x; a [..., code] a code. Source: Yin et al.: Continuous PDE dynamics forecasting with implicit
    neural representations (ICLR 2023), from the formulas; Fathony et al.: Multiplicative filter networks (ICLR 2021).
    """

    def __init__(self, channels: int, coordinates: int, code: int, width: int, layers: int, scale: float = 1.0) -> None:
        super().__init__()
        self.filters = nn.ModuleList([nn.Linear(coordinates, width) for _ in range(layers + 1)])
        self.mixers = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])
        self.shifts = nn.ModuleList([nn.Linear(code, width, bias=False) for _ in range(layers)])
        self.out = nn.Linear(width, channels)
        self.motion = mlp([code, 4 * code, 4 * code, code], nn.SiLU)
        with torch.no_grad():
            for each in self.filters:
                assert isinstance(each, nn.Linear)
                each.weight.normal_(0.0, scale / (layers + 1) ** 0.5)
                each.bias.uniform_(-torch.pi, torch.pi)

    def decoded(self, codes: Tensor, x: Tensor, space: Space) -> Tensor:
        """Codes [B, T, code] at places x [B, Q, d] -> [B, T, Q, c]."""
        u = embedded(x, space).unsqueeze(1)
        z = self.filters[0](u).sin()
        for mixer, shift, filter_ in zip(self.mixers, self.shifts, self.filters[1:], strict=True):
            z = (mixer(z) + shift(codes).unsqueeze(2)) * filter_(u).sin()
        return self.out(z)

    def moved(self, start: Tensor, times: Tensor) -> Tensor:
        """Codes [B, T, code] at times [T] in frames, from start [B, code] at times[0] on."""
        if len(times) == 1:
            return start.unsqueeze(1)
        found = solve(lambda t, a: self.motion(a), start, times, throw=False, **_SOLVER)  # type: ignore[arg-type]
        return found.ys.transpose(0, 1)


def auto_decoded(
    field: CodedField, start: Tensor, x: Tensor, readings: Tensor, space: Space, steps: int, lr: float
) -> Tensor:
    """Codes [B, code] for readings [B, N, c] (NaN = missing) at x [B, N, d], by `steps` of Adam from start on."""
    with torch.enable_grad():
        code = start.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([code], lr=lr)
        for _ in range(steps):
            (gradient,) = torch.autograd.grad(
                _error(field.decoded(code.unsqueeze(1), x, space), readings.unsqueeze(1), each=True).sum(), code
            )
            code.grad = gradient
            optimizer.step()
    return code.detach()


class _Decoding(nn.Module):
    """Training of field and codes by reconstruction, of the motion by the codes it should meet."""

    start: Tensor

    def __init__(self, field: CodedField, parts: dict[str, Windows], code: int, points: int) -> None:
        super().__init__()
        self.field, self.parts, self.points = field, parts, points
        windows, length = parts["train"].values.shape[:2]
        self.codes = nn.Parameter(torch.zeros(windows, length, code))
        # The first codes of validation windows, kept on from epoch to epoch, and so in checkpoints.
        self.register_buffer("start", torch.zeros(len(parts["validation"].values), code))

    def loss(self, rows: Tensor, seed: int) -> Tensor:
        """Reconstruction and motion; in evaluation mode the error of what is foreseen from the first readings."""
        windows = self.parts["train" if self.training else "validation"]
        rows = rows.to(windows.values.device)
        values, x = windows.values[rows], _places(windows)[rows]
        clock = torch.arange(values.shape[1], dtype=torch.float64, device=values.device)
        if not self.training:
            first = values[:, 0]
            self.start[rows] = auto_decoded(self.field, self.start[rows], x, first, windows.space, 20, 1e-2)
            return _error(self.field.decoded(self.field.moved(self.start[rows], clock), x, windows.space), values)
        generator = torch.Generator().manual_seed(seed)
        some = torch.randperm(values.shape[2], generator=generator)[: self.points].to(values.device)
        codes = self.codes[rows]
        rebuilt = _error(self.field.decoded(codes, x[:, some], windows.space), values[:, :, some])
        moved = self.field.moved(codes[:, 0].detach(), clock)
        return rebuilt + (moved - codes.detach()).square().mean()


def _places(windows: Windows) -> Tensor:
    """Sensors of all windows [W, N, d], 0 where there is none."""
    most = windows.values.shape[2]
    padded = [torch.cat((x.points, x.points.new_zeros(most - len(x.points), x.points.shape[1])))
              for x in windows.layouts]  # fmt: skip
    return torch.stack([padded[number] for number in windows.which]).to(windows.values.device)


def _error(found: Tensor, truth: Tensor, each: bool = False) -> Tensor:
    """Mean squared error over readings that are there; each: of every sample [B]."""
    there = truth.isfinite()
    square = torch.where(there, found - torch.where(there, truth, 0.0), 0.0).square()
    axes = tuple(range(1 if each else 0, square.ndim))
    return square.sum(axes) / there.sum(axes).clamp(min=1)


@dataclass(kw_only=True, eq=False)
class ImplicitField:
    """A field coded by a few numbers, which move by an ODE of their own: trained and started by auto-decoding.

    code: how many numbers. width, layers: of the field. points: sensors asked in a step. descent: steps of Adam by
    which the first readings of a flow are coded, codes_lr their rate. Other parameters as `Observer`'s.
    """

    code: int = 64
    width: int = 64
    layers: int = 4
    points: int = 256
    descent: int = 300
    codes_lr: float = 1e-2
    length: int = 20
    epochs: int = 100
    batch_size: int = 8
    lr: float = 3e-3
    random_state: int = 0
    device: str = "auto"

    def fit_flows(
        self, train: FlowSet, validation: FlowSet | None = None, *, folder: Path | None = None, progress: bool = False
    ) -> Self:
        """Learn from flow sets of which the points are the sensors; frames count as evenly apart."""
        device = choose_device(self.device)
        self.space_, self.channels_ = train.space, train.channels
        self.scale_, windows = windows_of(train, validation, self.length)
        parts = {name: part.to(device) for name, part in windows.items()}
        coordinates = 2 * self.space_.dimension if self.space_.kind == "periodic" else self.space_.dimension
        with isolated_rng(self.random_state, 1):
            self.network_ = CodedField(len(self.channels_), coordinates, self.code, self.width, self.layers)
        training = _Decoding(self.network_, parts, self.code, self.points).to(device, torch.float32)
        self.history_ = trained_rival(self, training, windows, folder, progress, "eager")
        return self

    def predict(self, positions: Any, times: Any, given: Reading) -> NDArray[np.float64]:
        """Values [T, Q, c] at positions [Q, d] and times [T] from the sensors' readings at one time.

        Raises ValueError for what `Observer.predict` refuses.
        """
        places, steps = asked_of(self, positions, times, given)
        device = next(self.network_.parameters()).device
        sensors, wanted = (torch.as_tensor(np.array(x), dtype=torch.float32, device=device).unsqueeze(0)
                          for x in (given.positions, places))  # fmt: skip
        readings = self.scale_.standardised(torch.as_tensor(np.array(given.values))).to(device).unsqueeze(0)
        zero = torch.zeros(1, self.code, device=device, dtype=torch.float32)
        start = auto_decoded(self.network_, zero, sensors, readings, self.space_, self.descent, self.codes_lr)
        # Solves take times in order and each once; what is asked may be neither.
        clock, own = np.unique(np.append(steps, 0.0), return_inverse=True)
        with torch.no_grad():
            codes = self.network_.moved(start, torch.as_tensor(clock, device=device))[:, own[:-1]]
            return self.scale_.restored(self.network_.decoded(codes, wanted, self.space_)[0]).cpu().numpy()
