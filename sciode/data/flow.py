"""Flows on points: what was measured or simulated where and when, in a box, on a sphere or on a mesh."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final, overload

import torch
from torch import Tensor

__all__ = ["Flow", "FlowSet", "Space"]

KINDS = ("periodic", "sphere", "plane")


@final
@dataclass(frozen=True)
class Space:
    """Where the points of flows lie, and so what "near" means there.

    - "periodic": a box from `lower` to `upper` [d] whose opposite sides are one.
    - "sphere": points [N, 3] of length `radius`; a difference is the chord, which has no seam and no poles.
    - "plane": straight lines, within walls; `lower` and `upper` [d] are the corners of a box around all points.

    Raises ValueError for another kind, or corners that don't fit it.
    """

    kind: Literal["periodic", "sphere", "plane"]
    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()
    radius: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lower", tuple(float(value) for value in self.lower))
        object.__setattr__(self, "upper", tuple(float(value) for value in self.upper))
        object.__setattr__(self, "radius", float(self.radius))
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}: give one of {', '.join(KINDS)}")
        if self.kind == "sphere":
            if self.lower or self.upper or not self.radius > 0.0:
                raise ValueError("a sphere has a radius > 0 and no corners")
        elif not self.lower or not all(a < b for a, b in zip(self.lower, self.upper, strict=True)):
            raise ValueError(f"lower must be below upper on every axis, got {self.lower} and {self.upper}")

    @property
    def dimension(self) -> int:
        """d, the number of coordinates of a point: 3 on a sphere."""
        return 3 if self.kind == "sphere" else len(self.lower)

    def difference(self, start: Tensor, end: Tensor) -> Tensor:
        """The way from start [..., d] to end [..., d], the shortest where the box is periodic; it broadcasts."""
        way = end - start
        if self.kind != "periodic":
            return way
        # Axis by axis: sides as a tensor would have to be sent to the device, which no graph of it can record.
        sides = [high - low for low, high in zip(self.lower, self.upper, strict=True)]
        parts = zip(way.unbind(-1), sides, strict=True)
        return torch.stack([x - side * (x / side).round() for x, side in parts], -1)


@final
@dataclass(frozen=True, eq=False)
class Flow:
    """One flow: values [T, N, c] at times [T] in points [N, d], or [T, N, d] where they move.

    - `walls` [N] or [T, N], bool: points on walls, which an observer always knows. None: there are none.
    - `cells` [M, 3] or [T, M, 3], int64: triangles of a mesh. None: the points alone.

    Times are float64, points and values float32 or float64; `from_arrays` takes arrays of any library.
    Raises ValueError for shapes and types that don't fit, times that don't increase, or cells of points that are not
    there.
    """

    points: Tensor
    times: Tensor
    values: Tensor
    walls: Tensor | None = None
    cells: Tensor | None = None

    def __post_init__(self) -> None:
        _check_types(self)
        _check_shapes(self)

    @staticmethod
    def from_arrays(points: Any, times: Any, values: Any, walls: Any | None = None, cells: Any | None = None) -> Flow:
        """A flow of arrays or nested lists; points and values that are no floating-point numbers become float32."""

        def floating(array: Any) -> Tensor:
            found = torch.as_tensor(array)
            return found if found.is_floating_point() else found.to(torch.float32)

        return Flow(
            floating(points),
            torch.as_tensor(times, dtype=torch.float64),
            floating(values),
            None if walls is None else torch.as_tensor(walls).to(torch.bool),
            None if cells is None else torch.as_tensor(cells).to(torch.int64),
        )

    @property
    def moves(self) -> bool:
        """Whether the points move."""
        return self.points.ndim == 3

    def between(self, begin: int, end: int, step: int = 1) -> Flow:
        """Frames begin, begin + step, ... before end, as a flow (a view)."""
        frames = slice(begin, end, step)
        if not 0 <= begin < end <= len(self.times) or step < 1:
            raise ValueError(f"frames {begin} to {end} by {step} are not among {len(self.times)}")

        def cut(array: Tensor | None, moving: int) -> Tensor | None:
            return array[frames] if array is not None and array.ndim == moving else array

        return replace(
            self,
            points=self.points[frames] if self.moves else self.points,
            times=self.times[frames],
            values=self.values[frames],
            walls=cut(self.walls, 2),
            cells=cut(self.cells, 3),
        )


@final
@dataclass(frozen=True, eq=False)
class FlowSet(Sequence[Flow]):
    """Flows of one kind, in one space, with the same channels; their points, times and numbers of both may differ.

    - `channels`, `units`: a name and a unit a channel, `("vorticity",)` and `("1/s",)`. `time_unit`: of times.
    - `grid`: where all flows have the points of one grid, row after row, its shape; None otherwise.

    `FlowSet("mine", (Flow.from_arrays(points, times, values),), ("T",), ("K",), Space("plane", lower, upper))`
    is all that own data need. Indexing by a number gives a flow, by a slice or a list of numbers a set.
    Raises ValueError for flows that don't fit.
    """

    name: str
    flows: tuple[Flow, ...]
    channels: tuple[str, ...]
    units: tuple[str, ...]
    space: Space
    time_unit: str = ""
    grid: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("flows", "channels", "units"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.channels) != len(self.units):
            raise ValueError(f"a unit a channel: got {self.channels} and {self.units}")
        for number, flow in enumerate(self.flows):
            if flow.values.shape[2] != len(self.channels):
                raise ValueError(f"flow {number} has {flow.values.shape[2]} channels, expected {self.channels}")
            if flow.points.shape[-1] != self.space.dimension:
                raise ValueError(f"flow {number}: points have {flow.points.shape[-1]} coordinates, {self.space}")
            if self.grid is not None and flow.points.shape[-2] != torch.Size(self.grid).numel():
                raise ValueError(f"flow {number} has {flow.points.shape[-2]} points, not a grid of {self.grid}")

    def __len__(self) -> int:
        return len(self.flows)

    @overload
    def __getitem__(self, index: int) -> Flow: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int]) -> FlowSet: ...
    def __getitem__(self, index: int | slice | Sequence[int]) -> Flow | FlowSet:
        if isinstance(index, int):
            return self.flows[index]
        chosen = self.flows[index] if isinstance(index, slice) else tuple(self.flows[k] for k in index)
        return replace(self, flows=chosen)

    def __iter__(self) -> Iterator[Flow]:
        return iter(self.flows)

    def windows(self, length: int, stride: int | None = None) -> FlowSet:
        """Cut every flow into flows of `length` frames, `stride` frames apart (None: end to end); views, in order.

        Times stay those of the whole flow. What is left at an end is dropped; raises ValueError if nothing is kept.
        """
        stride = length if stride is None else stride
        if length < 1 or stride < 1:
            raise ValueError(f"length and stride must be >= 1, got {length} and {stride}")
        cut = [
            flow.between(begin, begin + length)
            for flow in self.flows
            for begin in range(0, len(flow.times) - length + 1, stride)
        ]
        if not cut:
            raise ValueError(f"no flow has {length} frames: the longest has {max(len(f.times) for f in self.flows)}")
        return replace(self, flows=tuple(cut))

    def stacked(self) -> Tensor:
        """Values of all flows, [flows, T, N, c]; ValueError where numbers of times or points differ."""
        shapes = {tuple(flow.values.shape) for flow in self.flows}
        if len(shapes) != 1:
            raise ValueError(f"flows of {len(shapes)} shapes do not stack: take them one by one")
        return torch.stack([flow.values for flow in self.flows])

    def images(self) -> Tensor:
        """`stacked` with the grid's axes, [flows, T, *grid, c]; ValueError for a set without a grid."""
        if self.grid is None:
            raise ValueError(f"{self.name} lies on no grid")
        values = self.stacked()
        return values.reshape(*values.shape[:2], *self.grid, -1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel over all flows, times and points, [c] float64 both.

        Of the training part, they are what to standardise all parts by; a channel that is constant has deviation 1.
        """
        counts = sum(flow.values.shape[0] * flow.values.shape[1] for flow in self.flows)
        mean = torch.stack([flow.values.double().sum((0, 1)) for flow in self.flows]).sum(0) / counts
        square = torch.stack([(flow.values.double() - mean).square().sum((0, 1)) for flow in self.flows]).sum(0)
        deviation = (square / counts).sqrt()
        return mean, torch.where(deviation > 1e-12 * mean.abs(), deviation, 1.0)


def _check_types(flow: Flow) -> None:
    for name, kinds in {
        "points": (torch.float32, torch.float64), "times": (torch.float64,), "values": (torch.float32, torch.float64),
        "walls": (torch.bool,), "cells": (torch.int64,),
    }.items():  # fmt: skip
        array = getattr(flow, name)
        optional = array is None and name in ("walls", "cells")
        if not optional and (not isinstance(array, Tensor) or array.dtype not in kinds):
            found = array.dtype if isinstance(array, Tensor) else type(array).__name__
            wanted = " or ".join(str(kind) for kind in kinds)
            raise ValueError(f"{name} is a tensor of {wanted}, got {found}: Flow.from_arrays converts")


def _check_shapes(flow: Flow) -> None:
    points, times, values = flow.points, flow.times, flow.values
    if points.ndim not in (2, 3) or times.ndim != 1 or values.ndim != 3:
        raise ValueError(
            f"a flow has points [N, d] or [T, N, d], times [T] and values [T, N, c], got {tuple(points.shape)}, "
            f"{tuple(times.shape)} and {tuple(values.shape)}"
        )
    frames, count = len(times), points.shape[-2]
    if values.shape[:2] != (frames, count) or (flow.moves and len(points) != frames):
        raise ValueError(f"values are {tuple(values.shape)} for {frames} times and points {tuple(points.shape)}")
    if not bool((times.diff() > 0.0).all()):
        raise ValueError("times must increase")
    if flow.walls is not None and flow.walls.shape not in ((count,), (frames, count)):
        raise ValueError(f"walls are [N] or [T, N] with N = {count}, got {tuple(flow.walls.shape)}")
    if flow.cells is not None:
        cells = flow.cells
        if cells.shape[-1] != 3 or cells.ndim not in (2, 3) or (cells.ndim == 3 and len(cells) != frames):
            raise ValueError(f"cells are [M, 3] or [T, M, 3], got {tuple(cells.shape)}")
        if cells.numel() and (int(cells.min()) < 0 or int(cells.max()) >= count):
            raise ValueError(f"cells name points outside 0..{count - 1}")
