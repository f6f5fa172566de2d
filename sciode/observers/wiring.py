"""How a batch's sensors are joined: edges, and what reaches beyond them, once a layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .climate import Climate
from .graphs import Graph, edges_between, spacing
from .scene import Scene, Span, scene
from .surface import surface_inverse
from .waves import projection_of, wave_numbers, waves_at
from .windows import Layout

__all__ = ["Joined", "Joints", "Wiring", "gathered", "joints_of", "wired"]

_KEPT = 4 * 2**30
"""Bytes of joints that are kept on a CPU, at most: those of layouts with sensors hidden in one way or another. On a
card it is a quarter of its memory."""


class Joined(NamedTuple):
    """Sensors that are kept of one layout, on the device: their numbers, points [N, d] and walls [N], edges [2, E],
    their spacing, and the parts of a `Span`. there: [N], False for what fills the room up."""

    numbers: Tensor
    points: Tensor
    there: Tensor
    walls: Tensor
    edges: Tensor
    near: float
    span: Span

    @property
    def bytes(self) -> int:
        """What its tensors take."""
        return sum(x.nbytes for x in (*self, *self.span) if isinstance(x, Tensor))


@dataclass(frozen=True)
class Wiring:
    """How sensors are joined: see `edges_between`; waves: of `Design`; surface: whether one is laid through them;
    stretch, order: see `chosen_order`, () for none; climate: the one by which readings are continued instead, and the
    nugget that it then reckons with."""

    graph: Graph = "delaunay"
    k: int = 6
    radius: float | None = None
    waves: int = 0
    surface: bool = False
    stretch: tuple[float, ...] = ()
    order: int = 3
    climate: Climate | None = None
    nugget: float = 0.0

    def joined(self, layout: Layout, chosen: Tensor, space: Any, device: torch.device, room: int = 0) -> Joined:
        """The sensors of a layout that are chosen (numbers on the CPU), joined; in a room for more of them, and edges
        that lead nowhere, shapes do not hang on which sensors they are."""
        points = layout.points[chosen]
        edges = edges_between(points, space, self.graph, self.k, self.radius).to(device)
        near, points = spacing(points, space), points.to(device)
        stretch = torch.tensor(self.stretch, dtype=torch.float64, device=device) if self.stretch else None
        waves = waves_at(points, space, self.waves) if self.waves else None
        span = Span(
            None if waves is None else waves.flatten(1).float(),
            None if waves is None else projection_of(waves, space, self.waves).float(),
            surface_inverse(points, space, stretch, self.order) if self.surface else None,
            stretch=stretch,
            order=self.order,
        )
        if self.climate is not None:
            here = self.climate.to(device)
            climate, usual = here._replace(noise=here.noise + self.nugget).weights(points)
            numbers = None if space.kind == "sphere" else wave_numbers(space, here.degree).to(device)
            span = span._replace(climate=climate.float(), usual=usual.float(), numbers=numbers, degree=here.degree)
        walls, there = layout.walls[chosen].to(device), torch.ones(len(points), dtype=torch.bool, device=device)
        found = Joined(chosen.to(device), points, there, walls, edges, near, span)
        return _roomy(found, room) if room else found


def _roomy(found: Joined, room: int) -> Joined:
    """The same with `room` sensors, the last of which is not there, and a whole number of edges for each."""
    count, edges = len(found.points), found.edges
    if count >= room:
        raise ValueError(f"{count} sensors need a room of one more at least, got {room}")
    most = room * max(math.ceil(edges.shape[1] / count), 1)
    nowhere = edges.new_full((2, most - edges.shape[1]), room - 1)
    numbers, points, there, walls = (_grown(x, room, 0) for x in found[:4])
    own = {name: grow(x, room) for name, grow in _GROWS.items() if (x := getattr(found.span, name)) is not None}
    span = found.span._replace(**own)
    return Joined(numbers, points, there, walls, torch.cat((edges, nowhere), 1), found.near, span)


Joints = dict[tuple[int, int], tuple[Layout, Tensor, Joined]]
"""What was joined, by the identities of layout and chosen numbers, which it keeps alive."""


def wired(
    layouts: list[Layout], keep: list[Tensor], readings: list[Tensor], clock: Tensor, wiring: Wiring, space: Any,
    known: Joints | None = None,
) -> Scene:  # fmt: skip
    """A scene on the readings' device, of the sensors that are kept (index [n] on the CPU, one a flow).

    known: joints to look up and to add to; layouts and numbers that are the same objects are joined once.
    """
    parts = joints_of(layouts, keep, wiring, space, readings[0].device, {} if known is None else known)
    return gathered(parts, readings, clock, space)


def joints_of(
    layouts: list[Layout], keep: list[Tensor], wiring: Wiring, space: Any, device: torch.device, known: Joints,
    room: int = 0,
) -> list[Joined]:  # fmt: skip
    """Joints of flows, one each, the same object for the same layout and numbers; see `wired`, `Wiring.joined`."""
    parts = []
    for layout, chosen in zip(layouts, keep, strict=True):
        key = (id(layout), id(chosen))
        found = known.pop(key, None)
        if found is None:
            found = layout, chosen, wiring.joined(layout, chosen, space, device, room)
            room_left = _most_bytes(device) - found[2].bytes - sum(part.bytes for _, _, part in known.values())
            while known and room_left < 0:
                room_left += known.pop(next(iter(known)))[2].bytes
        known[key] = found  # at the end: what was asked for longest ago stands first
        parts.append(found[2])
    return parts


def _most_bytes(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory // 4 if device.type == "cuda" else _KEPT


def gathered(parts: list[Joined], readings: Sequence[Tensor], clock: Tensor, space: Any) -> Scene:
    """A scene of joints and first readings [n, c], one a flow."""
    return scene(
        [part.points for part in parts],
        readings,
        clock,
        [part.edges for part in parts],
        space,
        [part.near for part in parts],
        [part.walls for part in parts],
        _spanned([part.span for part in parts], all(part is parts[0] for part in parts)),
        [part.there for part in parts],
    )


def _spanned(parts: list[Span], shared: bool) -> Span:
    """Spans as one batch; one of it where all flows share a layout."""
    counts = [x.shape[-1] for part in parts for x in (part.projection, part.surface, part.climate) if x is not None]
    most = max(counts, default=0)
    found = {}
    for name, grow in _GROWS.items():
        own = [x for part in parts if (x := getattr(part, name)) is not None]
        if own:
            found[name] = own[0].unsqueeze(0) if shared else torch.stack([grow(x, most) for x in own])
    return parts[0]._replace(**found)


def _bordered(x: Tensor, most: int) -> Tensor:
    """[N + p, N] with rows and columns of 0 for sensors that are not there."""
    count = x.shape[1]
    return _grown(torch.cat((_grown(x[:count], most, 0), x[count:])), most, 1)


def _grown(x: Tensor, most: int, axis: int) -> Tensor:
    shape = list(x.shape)
    shape[axis] = most - x.shape[axis]
    return torch.cat((x, x.new_zeros(shape)), axis)


_GROWS: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "waves": lambda x, most: _grown(x, most, 0),
    "projection": lambda x, most: _grown(x, most, 1),
    "surface": _bordered,
    "climate": lambda x, most: _grown(x, most, 2),
    "usual": lambda x, _: x,
}
"""What of a `Span` each layout has of its own, and how it grows by sensors that are not there."""
