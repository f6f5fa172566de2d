"""What the two systems read: sensors, their first readings, their graph and the clock, batched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sciode.data.flow import Space

__all__ = ["Scene", "Span", "embedded", "scene"]


class Span(NamedTuple):
    """What reaches beyond neighbours, of each layout of sensors: made where a design asks for it, None otherwise.

    waves: [B, N, 2 P] and projection: [B, 2 P, N], of `Exchange`. surface: [B, N + p, N] float64, of
    `surface_inverse`, stretch: [p] and order, its own. climate: [B, c 2 P, c, N] and usual: [B, c 2 P] of
    `Climate.weights`, of waves up to degree, numbers: [P, d] those of a box. Rows and columns of sensors that are not
    there are 0. B is 1 where all flows share a layout.
    """

    waves: Tensor | None = None
    projection: Tensor | None = None
    surface: Tensor | None = None
    climate: Tensor | None = None
    usual: Tensor | None = None
    stretch: Tensor | None = None
    numbers: Tensor | None = None
    order: int = 3
    degree: int = 0


class Scene(NamedTuple):
    """B flows as the systems see them, N sensors each at most.

    points: [B, N, d], 0 where there is no sensor. there: [B, N] bool. start: [B, N, c], standardised first readings, 0
    where there is none. read: [B, N, c] bool. walls: [B, N] bool. clock: [B, K] float64, the anchor times in units of
    the step, from 0 on, increasing. edges: [2, E] among the B N sensors in a row. near: [B], the sensors' mean spacing.
    span: see `Span`.
    """

    points: Tensor
    there: Tensor
    start: Tensor
    read: Tensor
    walls: Tensor
    clock: Tensor
    edges: Tensor
    near: Tensor
    space: Space
    span: Span = Span()

    def to(self, device: torch.device | str) -> Scene:
        """The same on a device."""
        moved = {name: x.to(device) for name, x in self._asdict().items() if isinstance(x, Tensor)}
        span = self.span._replace(
            **{name: x.to(device) for name, x in self.span._asdict().items() if isinstance(x, Tensor)}
        )
        return self._replace(**moved, span=span)


def scene(
    points: Sequence[Tensor],
    readings: Sequence[Tensor],
    clock: Tensor,
    edges: Sequence[Tensor],
    space: Space,
    near: Sequence[float],
    walls: Sequence[Tensor | None] | None = None,
    span: Span | None = None,
    there: Sequence[Tensor] | None = None,
) -> Scene:
    """Flows with points [N_b, d], first readings [N_b, c] (NaN = missing) and edges [2, E_b] as one batch.

    Shorter ones are padded by sensors that are not there: no edge leads to them and no query reads them. there: [N_b]
    bool, where some of a flow's own are not. Raises ValueError for a flow without any sensor.
    """
    if min(len(x) for x in points) < 1:
        raise ValueError("a flow without sensors cannot be observed: leave it out")
    most, count = max(len(x) for x in points), len(points)

    def padded(parts: Sequence[Tensor], fill: float = 0.0) -> Tensor:
        whole = (x if len(x) == most else torch.cat((x, x.new_full((most - len(x), *x.shape[1:]), fill)))
                 for x in parts)  # fmt: skip
        return torch.stack(list(whole))

    first = padded(readings, torch.nan)
    read, device = first.isfinite(), points[0].device
    present = [torch.ones(len(x), dtype=torch.bool, device=device) for x in points] if there is None else there
    none = [torch.zeros(len(x), dtype=torch.bool, device=x.device) for x in points]
    given = none if walls is None else [n if w is None else w for n, w in zip(none, walls, strict=True)]
    return Scene(
        padded(points),
        padded(present),
        torch.where(read, first, 0.0),
        read,
        padded(given),
        clock if clock.ndim == 2 else clock.expand(count, -1),
        _onto(edges, most),
        torch.tensor(list(near), dtype=points[0].dtype).to(device, non_blocking=True),
        space,
        Span() if span is None else span,
    )


def _onto(edges: Sequence[Tensor], most: int) -> Tensor:
    """Edges of flows of `most` sensors each, [2, E] among all in a row."""
    if len({x.shape[1] for x in edges}) > 1:
        return torch.cat([x + most * number for number, x in enumerate(edges)], 1)
    begin = most * torch.arange(len(edges), device=edges[0].device)
    return (torch.stack(list(edges), 1) + begin.unsqueeze(1)).flatten(1)


def embedded(points: Tensor, space: Space) -> Tensor:
    """Coordinates as networks read them: cosine and sine of each on a periodic box, [..., 2 d]; the unit vector on a
    sphere, [..., 3]; from -1 to 1 in a plane, [..., d]. Without seams and poles."""
    if space.kind == "sphere":
        return points / space.radius
    # Axis by axis: sides as tensors would have to be sent to the device, which no graph of it can record.
    sides = zip(points.unbind(-1), space.lower, space.upper, strict=True)
    share = torch.stack([(x - low) / (high - low) for x, low, high in sides], -1)
    if space.kind == "plane":
        return 2.0 * share - 1.0
    angle = 2.0 * torch.pi * share
    return torch.cat((angle.cos(), angle.sin()), -1)
