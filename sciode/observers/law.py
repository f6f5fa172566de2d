"""A law of motion that is found: quadratic in a flow's derivatives and their inverses, from sensors alone."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciode.data.flow import FlowSet, Space
from sciode.training import Epoch, History, choose_device, load_checkpoint, save_checkpoint

from .arrays import Reading, as_flows
from .plain import plain_fields
from .rivals import asked_of, fitted, windows_of
from .surface import chosen_order, surface_inverse, surface_rows
from .waves import waves_at
from .windows import Scale, Windows

__all__ = ["QuadraticLaw"]

_ORDERS = (1.0, 0.0, -1.0)
"""Of the derivatives i k |k|^(order - 1), along each axis: slopes, their directions, and what pressure is made of."""
_DECAYS = (0.0, 2.0, 4.0)
"""Powers of |k| by which waves may die out: drag, diffusion, hyperdiffusion."""
_GROWTH = 0.5
"""Of a wave by itself, a frame, at most: a law that is still wrong must not blow up."""
_COLUMNS = 8
"""Directions of the parameters in which steps are differentiated at a time."""


class Grid(NamedTuple):
    """What the equation is made of on n points an axis; * stands for the half spectrum.

    symbols [J, *]: 1 and the derivatives. decays [3, *]. kept [*]: waves below a third of n, so that products alias
    into none of them. forced [P, n, ..., n]: waves that may push. sides: of the half spectrum's transform.
    """

    symbols: Tensor
    decays: Tensor
    kept: Tensor
    forced: Tensor
    side: int

    @property
    def axes(self) -> tuple[int, ...]:
        """The last ones."""
        return tuple(range(-(self.forced.ndim - 1), 0))

    def forward(self, fields: Tensor) -> Tensor:
        """Values [..., n, ..., n] as waves that are kept."""
        return torch.fft.rfftn(fields, dim=self.axes) * self.kept

    def back(self, waves: Tensor) -> Tensor:
        """The way back."""
        return torch.fft.irfftn(waves, s=[self.side] * len(self.axes), dim=self.axes)

    def points(self, space: Space) -> Tensor:
        """[n^d, d]."""
        share = torch.arange(self.side, dtype=torch.float64) / self.side
        every = torch.stack(torch.meshgrid(*[share] * space.dimension, indexing="ij"), -1).flatten(0, -2)
        lower, upper = (torch.tensor(x, dtype=torch.float64) for x in (space.lower, space.upper))
        return lower + every * (upper - lower)

    def reading(self, places: Tensor, space: Space) -> Tensor:
        """[Q, n^d]: values on the grid -> those of their waves at places [Q, d]."""
        lower, upper = (torch.tensor(x, dtype=torch.float64) for x in (space.lower, space.upper))
        share = (places.double().cpu() - lower) / (upper - lower)
        found = torch.ones(len(places), 1, dtype=torch.float64)
        whole = torch.arange(1, self.side // 2, dtype=torch.float64)
        for axis in share.unbind(-1):
            way = axis.unsqueeze(1) - torch.arange(self.side, dtype=torch.float64) / self.side
            kernel = (1.0 + 2.0 * (2.0 * torch.pi * way.unsqueeze(-1) * whole).cos().sum(-1)) / self.side
            found = (found.unsqueeze(-1) * kernel.unsqueeze(1)).flatten(1)
        return found


def grid_of(space: Space, side: int, forced: int, device: torch.device) -> Grid:
    """The grid of a periodic box, in the unit of its longest side; forced: see `QuadraticLaw`."""
    d = space.dimension
    sides = torch.tensor(space.upper, dtype=torch.float64) - torch.tensor(space.lower, dtype=torch.float64)
    whole = [torch.fft.fftfreq(side, 1.0 / side, dtype=torch.float64)] * (d - 1)
    whole.append(torch.fft.rfftfreq(side, 1.0 / side, dtype=torch.float64))
    numbers = torch.stack(torch.meshgrid(*whole, indexing="ij"))
    kept = (numbers.abs() < side / 3).all(0)
    top = (side - 1) // 3
    k = numbers * (sides.max() / sides).reshape(-1, *[1] * d) / top
    size = k.square().sum(0).sqrt()
    least = torch.where(size > 0.0, size, 1.0)
    symbols = [torch.ones_like(size).unsqueeze(0)]
    # In units in which the longest waves have the size that the shortest have before.
    symbols += [1j * k * least ** (order - 1.0) * top ** min(order, 0.0) for order in _ORDERS]
    grid = Grid(
        (torch.cat([x.to(torch.complex128) for x in symbols]) * kept).to(device, torch.complex64),
        torch.stack([size**power for power in _DECAYS]).to(device, torch.float32),
        kept.to(device, torch.float32),
        torch.empty(0, *[side] * d),
        side,
    )
    basis = waves_at(grid.points(space), space, forced).flatten(1)
    basis = basis[:, basis.abs().amax(0) > 0.0].T.unflatten(1, (side,) * d)
    return grid._replace(forced=basis.to(device, torch.float32))


class Law(nn.Module):
    """du_o/dt = L_o u_o + F_o(x) + sum_j a_j (V_oj + sum_(l >= j) W_ojl a_l), a the derivatives of all channels.

    A vector of all coefficients is the parameter; classical Runge-Kutta steps in which L is solved exactly (Lawson).
    """

    def __init__(self, channels: int, grid: Grid) -> None:
        super().__init__()
        self.grid, self.channels = grid, channels
        terms = channels * len(grid.symbols)
        self.upper = torch.triu_indices(terms, terms)
        self.sizes = (self.upper.shape[1], terms, len(_DECAYS), len(grid.forced))
        device = grid.kept.device
        self.coefficients = nn.Parameter(torch.zeros(channels * sum(self.sizes), dtype=torch.float32, device=device))

    def parts(self, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """W [c, J, J], V [c, J], L [c, *] and F [c, n, ..., n]."""
        square, linear, decay, push = coefficients.unflatten(0, (self.channels, -1)).split(self.sizes, 1)
        terms = linear.shape[1]
        place = self.upper[0] * terms + self.upper[1]
        onto = torch.zeros(len(place), terms * terms, dtype=square.dtype)
        onto[torch.arange(len(place)), place] = 1.0
        whole = (square @ onto.to(square)).unflatten(1, (terms, terms))
        rate = torch.einsum("ci,i...->c...", decay, self.grid.decays).clamp(max=_GROWTH)
        return whole, linear, rate, torch.einsum("cp,p...->c...", push, self.grid.forced)

    def run(self, coefficients: Tensor, start: Tensor, gaps: Tensor, steps: int) -> Tensor:
        """Fields [B, T + 1, c, n, ..., n] after gaps [B, T] of time from start [B, c, n, ..., n] on, so many steps
        each."""
        whole, linear, rate, push = self.parts(coefficients)
        grid, d = self.grid, len(self.grid.axes)
        ones = (1,) * d

        def change(u: Tensor) -> Tensor:
            a = grid.back((grid.symbols * u.unsqueeze(2)).flatten(1, 2))  # [B, J, n, ..., n]
            factor = torch.einsum("ojl,bl...->boj...", whole, a) + linear.reshape(1, *linear.shape, *ones)
            return grid.forward((a.unsqueeze(1) * factor).sum(2) + push)

        u, found = grid.forward(start), [start]
        for gap in gaps.unbind(1):
            h = (gap / steps).reshape(-1, 1, *ones)
            half = (0.5 * h * rate).exp()
            for _ in range(steps):
                first = change(u)
                second = change(half * (u + 0.5 * h * first))
                third = change(half * u + 0.5 * h * second)
                fourth = change(half * (half * u + h * third))
                u = half * (half * (u + h / 6.0 * first) + h / 3.0 * (second + third)) + h / 6.0 * fourth
            found.append(grid.back(u))
        return torch.stack(found, 1)


class _Batch(NamedTuple):
    """start [B, c, n, ..., n], gaps [B, T], truth [B, T, N, c] (NaN = missing), reads [B, N, n^d]."""

    start: Tensor
    gaps: Tensor
    truth: Tensor
    reads: Tensor


@dataclass(kw_only=True, eq=False)
class QuadraticLaw:
    """Foresee a flow in a periodic box by an equation that is found from the sensors' readings.

        du/dt = L u + F(x) + linear terms + products of two of {u, d_i |k| ^(order - 1) u: order 1, 0, -1}

    for all channels: what Navier-Stokes, Burgers' and many other equations of flows are made of, their coefficients
    not. Readings become fields by a smooth surface (`chosen_order`), the coefficients are found by Gauss-Newton with
    damping on what sensors read `ahead` frames later, and answers are trigonometric, exact between grid points.

    Sensors' frames may be unevenly apart, and readings missing in some of them.

    space: the periodic box in which the sensors stand. side: points an axis, of which waves below a third are kept.
    forced: highest wave that may push. steps: a frame (the fastest flow must not pass more than a third of the shortest
    wave in one). ahead, rounds: frames foreseen and steps of Gauss-Newton, stage by stage. starts: frames from which
    each step foresees. length: frames of the windows by which coefficients are judged. Fitted: `network_`, `history_`,
    `order_`, `stretch_`, `scale_`.
    """

    space: Space | None = None
    side: int = 32
    forced: int = 3
    steps: int = 6
    ahead: tuple[int, ...] = (1, 3)
    rounds: tuple[int, ...] = (6, 3)
    starts: int = 8
    length: int = 20
    random_state: int = 0
    device: str = "auto"

    def fit(self, positions: Any, times: Any, values: Any, *, validation: tuple[Any, Any, Any] | None = None) -> Self:
        """Find the coefficients from sensors at positions [N, d] that read values [T, N, c] at times [T]; as
        `Observer.fit`, with `space` said."""
        train = as_flows(positions, times, values, None, self.space)
        return self.fit_flows(train, None if validation is None else as_flows(*validation, None, train.space))

    def fit_flows(
        self, train: FlowSet, validation: FlowSet | None = None, *, folder: Path | None = None, progress: bool = False
    ) -> Self:
        """Find the coefficients from flow sets of which the points are the sensors.

        folder, progress: as those of other opponents; so short a fit keeps no checkpoints. `history_` has an epoch a
        round, the damping as its learning rate. Raises ValueError for parameters out of range, a space that is not
        periodic, or where no frame is read by all sensors.
        """
        del folder, progress
        self._check()
        if train.space.kind != "periodic":
            raise ValueError(
                f"a quadratic law here needs a periodic box, not a {train.space.kind}: "
                'give Space("periodic", lower, upper), or take an Observer'
            )
        device, self.space_, self.channels_ = choose_device(self.device), train.space, train.channels
        self.scale_, windows = windows_of(train, validation, self.length)
        self.order_, self.stretch_ = chosen_order(*windows["train"].of_first(device), self.space_)
        grid = grid_of(self.space_, self.side, self.forced, device)
        self.network_ = Law(len(self.channels_), grid)
        parts = {name: self._fields(part, device) for name, part in windows.items()}
        draw = torch.Generator().manual_seed(self.random_state)
        found, damping, epochs, best = self.network_.coefficients.detach(), 1e-3, [], math.inf
        with torch.no_grad():
            for ahead, rounds in zip(self.ahead, self.rounds, strict=True):
                for _ in range(rounds):
                    began = time.perf_counter()
                    batch = _drawn(parts["train"], windows["train"], ahead, self.starts, draw)
                    found, damping, error = _improved(self.network_, found, batch, damping, self.steps)
                    missed = self._judged(found, parts["validation"], windows["validation"])
                    epochs.append(Epoch(len(epochs), error, missed, damping, time.perf_counter() - began))
                    if missed < best:
                        best = missed
                        self.network_.coefficients.copy_(found)
        losses = [epoch.validation_loss for epoch in epochs]
        self.history_ = History(
            tuple(epochs), losses.index(min(losses)) if math.isfinite(best) else -1, "all epochs done"
        )
        return self

    def predict(self, positions: Any, times: Any, given: Reading) -> NDArray[np.float64]:
        """Values [T, Q, c] at positions [Q, d] and times [T] from the sensors' readings at one time.

        Raises ValueError for shapes that do not fit, times before the reading, or where no sensor read all channels.
        """
        places, steps = asked_of(self, positions, times, given)
        device = self.network_.coefficients.device
        readings = self.scale_.standardised(torch.as_tensor(np.array(given.values)))
        whole = readings.isfinite().all(1)
        if not bool(whole.any()):
            raise ValueError("no sensor read all channels: give a reading in which some did")
        sensors = torch.as_tensor(np.array(given.positions))[whole].to(device)
        start = self._onto(sensors) @ readings[whole].to(device).double()
        clock = np.union1d(np.arange(math.ceil(steps.max() - 1e-9) + 1.0), steps)
        gaps = torch.from_numpy(np.diff(clock)).to(device, torch.float32).unsqueeze(0)
        with torch.no_grad():
            shaped = _shaped(start.float(), self.network_.grid).unsqueeze(0)
            fields = self.network_.run(self.network_.coefficients, shaped, gaps, self.steps)[0]
        found = fields[np.searchsorted(clock, steps)].flatten(2).double().cpu()  # [T, c, n^d]
        parts = torch.from_numpy(places).split(4096)
        values = torch.cat([found @ self.network_.grid.reading(part, self.space_).T for part in parts], -1)
        return self.scale_.restored(values.transpose(1, 2)).numpy()

    def save(self, path: Path | str) -> None:
        """Write the fitted law to one safetensors file with a JSON header. Raises RuntimeError before `fit`."""
        fitted(self)
        record = {
            "estimator": type(self).__name__,
            "parameters": asdict(self),
            "space": asdict(self.space_),
            "channels": self.channels_,
            "unit": self.scale_.unit,
            "order": self.order_,
        }
        tensors = {
            "coefficients": self.network_.coefficients.detach(),
            "scale.mean": self.scale_.mean,
            "scale.deviation": self.scale_.deviation,
            "stretch": self.stretch_,
        }
        save_checkpoint(Path(path), tensors, record)

    @classmethod
    def load(cls, path: Path | str, device: str = "auto") -> Self:
        """The law that `save` wrote; of the fit itself (`history_`) the file tells nothing. Raises ValueError for
        another file."""
        tensors, record = load_checkpoint(Path(path))
        if record.get("estimator") != cls.__name__:
            other = record.get("estimator", "no estimator")
            raise ValueError(f"{path} holds {other}, not {cls.__name__}")
        told = dict(record["parameters"])
        told["space"] = None if told["space"] is None else Space(**told["space"])
        self = cls(**{**told, "ahead": tuple(told["ahead"]), "rounds": tuple(told["rounds"]), "device": device})
        place = choose_device(device)
        self.space_, self.channels_ = Space(**record["space"]), tuple(record["channels"])
        self.scale_ = Scale(tensors["scale.mean"], tensors["scale.deviation"], record["unit"])
        self.order_, self.stretch_ = record["order"], tensors["stretch"].to(place)
        self.network_ = Law(len(self.channels_), grid_of(self.space_, self.side, self.forced, place))
        with torch.no_grad():
            self.network_.coefficients.copy_(tensors["coefficients"])
        return self

    def _check(self) -> None:
        plain_fields(self)
        whole = (self.side, self.forced, self.steps, self.starts, self.length, *self.ahead, *self.rounds)
        if not all(isinstance(value, Integral) for value in whole):
            raise ValueError("side, forced, steps, starts, length, ahead and rounds count: give whole numbers")
        if len(self.ahead) != len(self.rounds) or not self.ahead:
            raise ValueError(f"ahead and rounds are of the same stages, one at least: {self.ahead}, {self.rounds}")
        if min(self.side - 3, self.steps, self.starts, self.length - 1, *self.ahead, *self.rounds) < 1:
            raise ValueError("side must be >= 4, length >= 2; steps, starts, ahead and rounds >= 1")
        if not 0 <= self.forced < self.side / 2:
            raise ValueError(f"forced must lie in [0, side / 2): got {self.forced} on {self.side} points")

    def _onto(self, sensors: Tensor) -> Tensor:
        """[n^d, N]: readings -> the grid, by the smooth surface through them."""
        points = self.network_.grid.points(self.space_).to(sensors.device)
        there = torch.ones(len(sensors), dtype=torch.bool, device=sensors.device)
        inverse = surface_inverse(sensors, self.space_, self.stretch_, self.order_)
        return surface_rows(points, sensors, there, self.space_, self.stretch_, self.order_) @ inverse

    def _fields(self, windows: Windows, device: torch.device) -> _Part:
        """Windows on the grid, NaN where a sensor was silent."""
        grid, most = self.network_.grid, windows.values.shape[2]
        onto, reads = [], []
        for layout in windows.layouts:
            onto.append(self._onto(layout.points.to(device)))
            read = grid.reading(layout.points, self.space_)
            reads.append(torch.cat((read, read.new_zeros(most - len(read), read.shape[1]))).to(device, torch.float32))
        values = windows.values.to(device)
        fields = torch.stack([
            _shaped((onto[which] @ part[:, : onto[which].shape[1]].double()).float(), grid)
            for part, which in zip(values, windows.which, strict=True)
        ])  # fmt: skip
        return _Part(fields, values, windows.times.to(device, torch.float32), torch.stack(reads))

    def _judged(self, coefficients: Tensor, part: _Part, windows: Windows) -> float:
        """Mean squared error at the sensors in whole windows from their first frames on."""
        rows = [n for n in range(len(part.fields)) if bool(part.fields[n, 0].isfinite().all())][: self.starts]
        if not rows:
            raise ValueError("no validation window has a first frame that all sensors read: give others")
        batch = _batch(part, windows, rows, [0] * len(rows), part.values.shape[1] - 1)
        error = _missed(self.network_, coefficients, batch, self.steps).square().sum() / batch.truth.isfinite().sum()
        return float(error) if math.isfinite(error) else math.inf


class _Part(NamedTuple):
    """fields [W, L, c, n, ..., n], values [W, L, N, c], times [W, L], reads [layouts, N, n^d]."""

    fields: Tensor
    values: Tensor
    times: Tensor
    reads: Tensor


def _shaped(fields: Tensor, grid: Grid) -> Tensor:
    """[..., n^d, c] -> [..., c, n, ..., n]."""
    return fields.transpose(-1, -2).unflatten(-1, (grid.side,) * len(grid.axes))


def _batch(part: _Part, windows: Windows, rows: list[int], frames: list[int], ahead: int) -> _Batch:
    span = [slice(frame, frame + ahead + 1) for frame in frames]
    pairs = list(zip(rows, span, strict=True))
    return _Batch(
        torch.stack([part.fields[row, frame] for row, frame in zip(rows, frames, strict=True)]),
        torch.stack([part.times[row, frame].diff() for row, frame in pairs]),
        torch.stack([part.values[row, frame][1:] for row, frame in pairs]),
        part.reads[[windows.which[row] for row in rows]],
    )


def _drawn(part: _Part, windows: Windows, ahead: int, count: int, draw: torch.Generator) -> _Batch:
    """As many starts as there are, `count` at most, at random."""
    ahead = min(ahead, part.values.shape[1] - 1)
    whole = part.fields.flatten(2).isfinite().all(2)[:, : part.values.shape[1] - ahead].cpu().nonzero()
    if not len(whole):
        raise ValueError("no frame is read by all sensors: leave silent ones out, or the frames in which they are")
    chosen = whole[torch.randperm(len(whole), generator=draw)[:count]]
    return _batch(part, windows, chosen[:, 0].tolist(), chosen[:, 1].tolist(), ahead)


def _missed(law: Law, coefficients: Tensor, batch: _Batch, steps: int) -> Tensor:
    """What is foreseen at the sensors less what they read, 0 where they did not: [B, T, N, c]."""
    fields = law.run(coefficients, batch.start, batch.gaps, steps)[:, 1:].flatten(3)  # [B, T, c, n^d]
    told = torch.einsum("bnx,btcx->btnc", batch.reads, fields)
    there = batch.truth.isfinite()
    return torch.where(there, told - torch.where(there, batch.truth, 0.0), 0.0)


def _improved(law: Law, coefficients: Tensor, batch: _Batch, damping: float, steps: int) -> tuple[Tensor, float, float]:
    """Coefficients, damping and mean squared error after one step of Levenberg and Marquardt."""

    def missed(found: Tensor) -> Tensor:
        return _missed(law, found, batch, steps).flatten()

    def slope(direction: Tensor) -> Tensor:
        return torch.func.jvp(missed, (coefficients,), (direction,))[1]

    error = missed(coefficients)
    directions = torch.eye(len(coefficients), dtype=coefficients.dtype, device=error.device)
    slopes = torch.cat([torch.func.vmap(slope)(part) for part in directions.split(_COLUMNS)]).double()
    normal, right = slopes @ slopes.T, slopes @ error.double()
    size = normal.diag() + 1e-9 * normal.diag().max()
    before = float(error.square().mean())
    for _ in range(10):
        tried = coefficients - torch.linalg.solve(normal + damping * torch.diag(size), right).to(coefficients)
        after = float(missed(tried).square().mean())
        if after < before:
            return tried, max(0.1 * damping, 1e-9), after
        damping *= 10.0
    return coefficients, min(damping, 1.0), before
