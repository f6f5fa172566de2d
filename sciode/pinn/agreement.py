"""Whether what is known of a solution agrees with itself: first-kind conditions, periodic ones and hard constraints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations, product
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from sciode.pde import Box, Domain, Slab
from sciode.pde.regions import boxed
from sciode.pinn.conditions import Condition, Edge, Face, Given, Periodic, Walls, Where
from sciode.pinn.derivatives import Names

__all__ = ["disagreement"]

Function = Callable[[Tensor], Tensor]
_POINTS, _LOOKED, _SEED, _SLACK = 16, 1024, 0, 1e-6
_REACH = (1e-9, 4e-3, 2e-2)
"""Sets of `_LOOKED` points touch where two of these are so near, in units of the domain's sides: of an interval, the
plane, space. Coarse, so what both functions vary by over that distance is no disagreement."""
_VANISHED = 1e-9
"""A factor of a hard constraint below this share of its largest value is 0."""


class Touch(NamedTuple):
    """Points [m, d] of one set and, each beside it, of another."""

    first: Tensor
    second: Tensor


def disagreement(
    names: Names,
    domain: Domain,
    conditions: Sequence[Condition | Periodic],
    hard: tuple[Function, Function] | None = None,
) -> str:
    """Say which conditions tell different values where their sets touch, the point and the values; "" if none do.

    hard: the value and the distance of a hard constraint.
    """
    told = [one for one in conditions if isinstance(one, Condition) and one.fixes]
    periods = [one for one in conditions if isinstance(one, Periodic)]
    found = chain(
        _between(names, domain, told), _around(names, domain, told, periods), _held(names, domain, told, hard)
    )
    return next(filter(None, found), "")


def _between(names: Names, domain: Domain, told: Sequence[Condition]) -> Iterator[str]:
    """Two conditions of one field."""
    for one, other in combinations(told, 2):
        for touch in _touching(names, domain, one.where, other.where) if one.fixes == other.fixes else ():
            yield _compared(one.name, one.value, other.name, other.value, touch)


def _around(names: Names, domain: Domain, told: Sequence[Condition], periods: Sequence[Periodic]) -> Iterator[str]:
    """A condition on a face, and a periodic one that joins its ends."""
    domain = boxed(domain)
    for one, period in product(told, periods):
        face = one.where
        if isinstance(domain, Box) and isinstance(face, Face) and face.coordinate != period.coordinate:
            points = face.draw(names, domain, _POINTS, _SEED).points
            axis = names.coordinates.index(period.coordinate)
            low, high = (_pinned(points, axis, ends[axis]) for ends in (domain.low, domain.high))
            first, second = one.value(low)[:, 0], one.value(high)[:, 0]
            if found := _worst(first, second, _slack(first)):
                row, a, b = found
                yield (
                    f"{one.name} tells {a:.6g} at {_said(low[row])} and {b:.6g} at {_said(high[row])}, which "
                    f"{period.name} says are equal"
                )


def _held(
    names: Names, domain: Domain, told: Sequence[Condition], hard: tuple[Function, Function] | None
) -> Iterator[str]:
    """A condition, and what is built in where the distance is 0."""
    if hard is None:
        return
    value, distance = hard
    inside = distance(domain.sample(_POINTS, _SEED, dtype=torch.float64)).abs().max()
    for one in told:
        points = one.where.draw(names, domain, _LOOKED, _SEED).points
        points = points[distance(points)[:, 0].abs() <= _VANISHED * inside]
        channel = names.fields.index(str(one.fixes))
        if len(points):
            yield _compared(
                "the hard constraint", lambda x, c=channel: value(x)[..., c : c + 1], one.name, one.value,
                Touch(points, points),
            )  # fmt: skip


def _compared(who: str, first: Function, other: str, second: Function, touch: Touch) -> str:
    """What is to be said of two functions where their sets touch."""
    here, there = (first(points)[:, 0] for points in touch)
    mine, own = (second(points)[:, 0] for points in touch)
    varied = (here - there).abs() + (mine - own).abs()
    found = _worst(here, own, _slack(here) + 2 * varied)
    if not found:
        return ""
    row, a, b = found
    return f"{who} and {other} tell {a:.6g} and {b:.6g} at {_said(touch.first[row])}, where they meet"


def _slack(values: Tensor) -> Tensor:
    return _SLACK * (1 + values.abs().max())


def _worst(first: Tensor, second: Tensor, slack: Tensor) -> tuple[int, float, float] | None:
    """The row where two differ most beyond the slack, and both values there."""
    beyond = (first - second).abs() - slack
    row = int(beyond.nan_to_num(-math.inf).argmax())
    return (row, float(first[row]), float(second[row])) if float(beyond[row]) > 0 else None


def _said(point: Tensor) -> list[float]:
    return [round(v, 6) for v in point.tolist()]


def _pinned(points: Tensor, axis: int, value: float) -> Tensor:
    """The points, moved along an axis to a value."""
    moved = points.clone()
    moved[:, axis] = value
    return moved


def _touching(names: Names, domain: Domain, one: Where, other: Where) -> list[Touch]:
    """Where two sets touch: exactly, for faces of a box or the walls and a time of a slab; else by nearest points."""
    face, walls = (other, one) if isinstance(one, Walls) else (one, other)
    if isinstance(domain, Slab) and isinstance(face, Face) and face.side and isinstance(walls, Walls):
        points = domain.walls(_POINTS, _SEED).points
        return [_same(_pinned(points, domain.dimension - 1, domain.begin if face.side < 0 else domain.end))]
    box = boxed(domain)
    if not (isinstance(box, Box) and isinstance(one, Face) and isinstance(other, Face)):
        return [touch] if len((touch := _nearest(names, domain, one, other)).first) else []
    axis = names.coordinates.index(other.coordinate)
    points = one.draw(names, domain, _POINTS, _SEED).points
    ends = [box.low[axis] if side < 0 else box.high[axis] for side in _sides(other)]
    if one.coordinate == other.coordinate:
        ends = [end for end in ends if bool((points[:, axis] == end).any())]
    return [_same(_pinned(points, axis, end)) for end in ends]


def _sides(face: Face) -> tuple[int, ...]:
    return (face.side,) if face.side else (-1, 1)


def _same(points: Tensor) -> Touch:
    return Touch(points, points)


def _nearest(names: Names, domain: Domain, one: Where, other: Where) -> Touch:
    """Pairs of points of two sets that are near enough to one another to say that the sets touch there."""
    first, second = (where.draw(names, domain, _LOOKED, _SEED + 1 + k).points for k, where in enumerate((one, other)))
    if isinstance(one, Given) or isinstance(other, Given):
        points, where = (first, other) if isinstance(one, Given) else (second, one)
        return _same(points[_in(names, domain, where, points)])
    sides = np.array(domain.hull.lengths)
    gaps, rows = KDTree(second.numpy() / sides).query(first.numpy() / sides)
    near = torch.from_numpy(gaps <= _REACH[domain.dimension - 1])
    return Touch(first[near], second[torch.from_numpy(rows)][near])


def _in(names: Names, domain: Domain, where: Where, points: Tensor) -> Tensor:
    """Which points lie in a set, to rounding, bool [n]."""
    slack = _VANISHED * math.hypot(*domain.hull.lengths)
    if isinstance(where, Face):
        axis = names.coordinates.index(where.coordinate)
        ends = [domain.hull.low[axis] if side < 0 else domain.hull.high[axis] for side in _sides(where)]
        return torch.stack([(points[:, axis] - end).abs() <= slack for end in ends]).any(0)
    if isinstance(where, Given):
        known = where.points.double().cpu()
        return torch.cdist(points, known, compute_mode="donot_use_mm_for_euclid_dist").amin(1) <= slack
    space = domain.space if isinstance(domain, Slab) and isinstance(where, Walls) else domain
    on = space.level(points[:, : space.dimension])[:, 0].abs() <= slack
    return on & where.part(points) if isinstance(where, Edge) and where.part is not None else on
