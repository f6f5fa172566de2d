"""A user's arrays as flows, and which of them choose the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sciode.data.flow import Flow, FlowSet, Space

__all__ = ["FARTHEST", "Reading", "as_flows", "asked", "held_out", "numbers", "parted"]

FARTHEST = 100_000
"""Steps after a reading that are foreseen at once, at most: all of them are kept."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What sensors at positions [N, d] read at one time: values [N, c], NaN or masked = missing; walls [N] bool.

    Arrays of any library, kept as NumPy's. Raises ValueError for what are no numbers.
    """

    positions: Any
    values: Any
    time: float = 0.0
    walls: Any | None = None

    def __post_init__(self) -> None:
        for name in ("positions", "values"):
            object.__setattr__(self, name, numbers(getattr(self, name), name))
        object.__setattr__(self, "time", numbers(self.time, "a reading's time").item())
        if self.walls is not None:
            object.__setattr__(self, "walls", numbers(self.walls, "walls") != 0)

    def check(self, space: Space, channels: int) -> None:
        """Raise ValueError for shapes that do not fit, places that are no numbers or off a sphere, or sensors that all
        are silent."""
        _check_sphere(self.positions, space, "a reading's positions")
        dimension = space.dimension
        places, values = np.shape(self.positions), np.shape(self.values)
        if len(places) != 2 or places[0] < 1 or places[1] != dimension or values != (places[0], channels):
            raise ValueError(
                f"a reading has positions [N, {dimension}] and values [N, {channels}], got {places} and {values}"
            )
        if not np.isfinite(self.positions).all():
            raise ValueError("a reading's positions must be finite numbers")
        if not math.isfinite(self.time):
            raise ValueError(f"a reading's time must be a finite number, got {self.time}")
        if not np.isfinite(self.values).any():
            raise ValueError("a reading without any number says nothing: give one in which some sensor has read")
        if self.walls is not None and np.shape(self.walls) != places[:1]:
            raise ValueError(f"a reading's walls are [{places[0]}], one a sensor, got {np.shape(self.walls)}")


def numbers(given: Any, name: str) -> NDArray[Any]:
    """An array of numbers, float32 if it was, else float64: of tensors without their gradients, NaN where a masked
    array is masked. Raises ValueError for dates, complex numbers, and what are no numbers."""
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        given = (given.float() if given.dtype == torch.bfloat16 else given).numpy()
    try:
        if isinstance(given, list | tuple) and any(isinstance(x, torch.Tensor | np.ma.MaskedArray) for x in given):
            given = np.stack([numbers(part, name) for part in given])
        array = given if isinstance(given, np.ma.MaskedArray) else np.asarray(given)
        if array.dtype.kind in "mMc":
            raise TypeError("of dates, subtract the first and divide by a unit" if array.dtype.kind != "c" else
                            "of complex ones, give real and imaginary parts as channels")  # fmt: skip
        kept = array.astype(np.float32 if array.dtype == np.float32 else np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers: {error}") from error
    return np.ma.filled(kept, np.nan)


def asked(
    positions: Any, times: Any, given: Reading, space: Space, channels: int, unit: float, farthest: float = FARTHEST
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places [Q, d], and times [T] in steps from the reading on, `farthest` at most. Raises ValueError for what cannot
    be asked."""
    if not isinstance(given, Reading):
        raise ValueError(f"given: a {type(given).__name__} is no Reading: give Reading(positions, values, time)")
    given.check(space, channels)
    places, dimension = np.array(numbers(positions, "positions"), dtype=np.float64), space.dimension
    _check_sphere(places, space, "positions")
    if places.ndim != 2 or places.shape[1] != dimension:
        raise ValueError(f"positions are [Q, {dimension}], got {places.shape}")
    if not len(places) or not np.isfinite(places).all():
        raise ValueError("positions must be finite numbers, of one place at least")
    clock = np.atleast_1d(numbers(times, "times").astype(np.float64))
    steps = (clock - given.time) / unit
    if clock.ndim != 1 or not clock.size or not np.isfinite(clock).all() or (steps < -1e-9).any():
        raise ValueError(f"times are [T], one at least, finite and not before the readings at {given.time:g}")
    if steps.max() > farthest:
        raise ValueError(
            f"times reach {steps.max():.3g} steps of {unit:g} beyond the reading, and {farthest:g} are the most that "
            "are foreseen: ask for earlier ones, or an Observer's rollout, which goes further than predict"
        )
    return places, np.maximum(steps, 0.0)


def as_flows(positions: Any, times: Any, values: Any, walls: Any | None, space: Space | None) -> FlowSet:
    """Arrays of one flow or of several as a set; see `Observer.fit`. Values that are no float32 are kept in float64,
    for an offset may be large beside what changes. Raises ValueError for what does not fit."""
    if not (space is None or isinstance(space, Space)):
        raise ValueError(f"space: {space!r} is none: give Space(kind, lower, upper), or None for a plane")
    series = _series(values)
    count = len(series)
    places = _each(positions, count, 2, "positions", "; sensors [N, d] do not move in time")
    clocks = _each(times, count, 1, "times")
    sides = [None] * count if walls is None else _each(walls, count, 1, "walls")
    for number, place in enumerate(places):
        if not np.isfinite(place).all():
            raise ValueError(f"flow {number}: positions of sensors must be finite numbers")
        _check_sphere(place, space, f"flow {number}: positions")
    flows = tuple(
        Flow.from_arrays(np.array(p), np.array(t, dtype=np.float64), np.array(v), None if w is None else w != 0)
        for p, t, v, w in zip(places, clocks, series, sides, strict=True)
    )
    channels = flows[0].values.shape[2]
    found = _around([flow.points.double() for flow in flows]) if space is None else space
    names = tuple(f"channel {number}" for number in range(channels))
    return FlowSet("sensors", flows, names, ("",) * channels, found)


def parted(train: FlowSet, validation: FlowSet | None, share: float) -> tuple[FlowSet, FlowSet]:
    """(what trains, what validates): as they are given, or see `held_out`. Raises ValueError where they do not fit."""
    if validation is None:
        return held_out(train, share)
    own, other = ((len(flows.channels), flows.space.dimension) for flows in (train, validation))
    if own != other:
        raise ValueError(
            f"training has {own[0]} channels in {own[1]} dimensions and validation {other[0]} in {other[1]}: "
            "give the same of both"
        )
    return train, validation


def held_out(flows: FlowSet, share: float) -> tuple[FlowSet, FlowSet]:
    """(what trains, what validates): the last flows, or of less than three the last frames of each.

    Raises ValueError for a flow that is too short to be cut.
    """
    if len(flows) >= 3:
        kept = len(flows) - max(1, round(share * len(flows)))
        return flows[:kept], flows[kept:]
    early, late = [], []
    for number, flow in enumerate(flows):
        frames = len(flow.times)
        begin = min(frames - max(2, math.ceil(share * frames)), frames - 2)
        if begin < 2:
            raise ValueError(f"flow {number} has {frames} frames: four are the fewest that train and validate")
        early.append(flow.between(0, begin))
        late.append(flow.between(begin, frames))
    return _like(flows, early), _like(flows, late)


def _check_sphere(positions: Any, space: Space | None, name: str) -> None:
    """Raise ValueError for places [N, 3] farther than a thousandth off a sphere, or angles in their stead."""
    if space is None or space.kind != "sphere":
        return
    places = np.asarray(positions, dtype=np.float64)
    if places.ndim == 2 and places.shape[1] == 2:
        raise ValueError(
            f"{name} on a sphere have three coordinates, got two: of longitude and latitude in radians (np.radians) "
            "give cos(lat) cos(lon), cos(lat) sin(lon), sin(lat), times the radius"
        )
    if places.ndim != 2 or places.shape[1] != 3 or not np.isfinite(places).all():
        return  # another fault, of which the caller says more
    away = np.linalg.norm(places, axis=1)
    if len(away) and (np.abs(away - space.radius) > 1e-3 * space.radius).any():
        raise ValueError(
            f"{name} are {away.min():g} to {away.max():g} from the centre of a sphere of radius {space.radius:g}: "
            f"give x / |x| * {space.radius:g}, or the space that they lie on, Space('sphere', radius=...)"
        )


def _like(flows: FlowSet, parts: Sequence[Flow]) -> FlowSet:
    return FlowSet(flows.name, tuple(parts), flows.channels, flows.units, flows.space, flows.time_unit)


def _series(values: Any) -> list[Any]:
    """One array [T, N, c] a flow."""
    if isinstance(values, list | tuple):
        parts = list(values)
    else:
        whole = numbers(values, "values")
        if whole.ndim not in (3, 4):
            raise ValueError(
                f"values are [T, N, c], [F, T, N, c] or a list of [T, N, c], got {whole.shape}: of long tables, "
                "one array a flow, times by sensors by channels"
            )
        parts = [whole] if whole.ndim == 3 else list(whole)
    if not parts:
        raise ValueError("there is no flow: values are [T, N, c], [F, T, N, c] or a list of [T, N, c]")
    found = [numbers(part, "values") for part in parts]
    for number, part in enumerate(found):
        if part.ndim != 3:
            raise ValueError(
                f"every flow's values are [T, N, c], got {part.shape} of flow {number}; of one channel: "
                "values[..., None]; of one flow as nested lists: np.array(values)"
            )
        if not part.size:
            raise ValueError(f"flow {number}: values are {part.shape}: give one time, sensor and channel at least")
    return found


def _each(given: Any, count: int, axes: int, name: str, hint: str = "") -> list[Any]:
    """One array a flow: that of all, or one of each."""
    if isinstance(given, list | tuple) and given and np.ndim(given[0]) == axes:
        parts = [numbers(part, name) for part in given]
    else:
        whole = numbers(given, name)
        if whole.ndim not in (axes, axes + 1):
            raise ValueError(f"{name} have {axes} axes, or one more for the flows, got {whole.shape}{hint}")
        parts = [whole] * count if whole.ndim == axes else list(whole)
    if len(parts) != count:
        raise ValueError(f"{len(parts)} {name} for {count} flows: give one of all, or one of each{hint}")
    return parts


def _around(points: Sequence[torch.Tensor]) -> Space:
    """A box a twentieth wider than all points; a side without extent has length 1."""
    every = torch.cat(list(points))
    low, high = every.amin(0), every.amax(0)
    side = torch.where(high > low, high - low, 1.0)
    room = torch.where(high > low, 0.05 * side, 0.5)
    return Space("plane", tuple((low - room).tolist()), tuple((high + room).tolist()))
