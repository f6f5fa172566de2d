"""What a loss is made of: residuals of the equation, of what is known, and of the interfaces, at points that are drawn.

A group gives residuals [arms, K, N, m] of one or more terms at K sets of N points. A term is the sum over the K sets of
the mean of |residual|^2 over its points.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from sciode.pde import Boundary
from sciode.pinn.conditions import Condition, Given, Periodic, shuffled
from sciode.pinn.decomposition import Decomposition
from sciode.pinn.derivatives import Derivatives, probed, residual_of, stacked
from sciode.pinn.interfaces import CONDITIONS, Sides, orders_of
from sciode.pinn.problem import Problem
from sciode.pinn.representation import Representation
from sciode.pinn.taylor import Orders
from sciode.training import derive_seed

__all__ = ["EQUATION", "Group", "Numbers", "Sample", "groups_of"]

EQUATION = "equation"
_NUDGE = 1e-7
_PAIR, _DATA = 5, 6
_LOOKED = 2048
"""So many points of a condition's set tell which pieces it touches."""


@dataclass(frozen=True)
class Numbers:
    """How many points: inside each piece; of each condition in each piece that it touches; on each interface."""

    inside: int = 1000
    data: int = 100
    interface: int = 100
    how: str = "sobol"

    def __post_init__(self) -> None:
        if min(self.inside, self.data, self.interface) < 1:
            raise ValueError(f"numbers of points must be at least 1, got {self}")


class Sample(NamedTuple):
    """Points of a group and what travels with them: data [arms or 1, K, N, ...]; which networks they belong to.

    data["share"] [1, K, N] is each point's part of the mean of its set.
    """

    which: tuple[int, ...]
    data: Mapping[str, Tensor]

    def rows(self, begin: int, end: int) -> Sample:
        """Points begin to end of every set; shares stay what they are."""
        return Sample(self.which, {name: value[:, :, begin:end] for name, value in self.data.items()})

    def sets(self, places: Sequence[int]) -> Sample:
        """Some of the sets; the networks of pairs stay together."""
        sets = self.data["share"].shape[1]
        which = tuple(self.which[k + side] for side in range(0, len(self.which), sets) for k in places)
        return Sample(which, {name: value[:, list(places)] for name, value in self.data.items()})

    def group(self, k: int, arm: int = 0) -> Sample:
        """Set k alone, of one arm."""
        alone = self.sets([k])
        return Sample(alone.which, {name: value[arm % len(value)][None] for name, value in alone.data.items()})

    @property
    def count(self) -> int:
        """N."""
        return self.data["share"].shape[2]


class Group(ABC):
    """Residuals that are evaluated together. names: of its terms, in order."""

    names: tuple[str, ...]

    def __init__(self, representation: Representation) -> None:
        self.of = representation
        self.problem: Problem = representation.problem

    @abstractmethod
    def draw(self, numbers: Numbers, seed: int, like: Tensor) -> Sample | None:
        """Points for one seed, None where there is nothing to draw."""

    @abstractmethod
    def residuals(self, theta: Tensor, sample: Sample) -> dict[str, Tensor]:
        """Term -> residuals [arms, K, N, m]."""

    def _seen(self, theta: Tensor, sample: Sample, orders: frozenset[Orders]) -> Derivatives:
        """Fields and derivatives at a sample's points."""
        data = sample.data
        extras = {name.removeprefix("extra "): x for name, x in data.items() if name.startswith("extra ")}
        return self.of.derivatives(theta, data["points"], sample.which, orders, extras, data.get("normals"))


@final
class Inside(Group):
    """The equation inside the pieces."""

    names = (EQUATION,)

    def draw(self, numbers: Numbers, seed: int, like: Tensor) -> Sample:
        """See `Group.draw`."""
        return self.sample(self.of.decomposition.inside(numbers.inside, numbers.how, seed)[None], like)

    def sample(self, points: Tensor, like: Tensor) -> Sample:
        """Points [arms or 1, pieces, N, d] as a sample; under windows they are one set."""
        pieces = points.shape[1]
        if self.of.groups == 1:
            points = points.flatten(1, 2)[:, None]
        which = tuple(range(pieces)) if self.of.groups > 1 else (0,)
        return _sample(self.of, which, points, {}, self.problem.orders, like)

    def residuals(self, theta: Tensor, sample: Sample) -> dict[str, Tensor]:
        """See `Group.residuals`."""
        d = self._seen(theta, sample, self.problem.orders)
        return {EQUATION: residual_of(self.problem.equation, d, self.of.parameters(theta))}


@final
class Data(Group):
    """One condition, in the pieces that its set touches."""

    def __init__(self, representation: Representation, condition: Condition) -> None:
        super().__init__(representation)
        self.condition, self.names = condition, (condition.name,)
        probe, started = self.problem._probe, self.problem.started
        if isinstance(condition.where, Given):
            probe = probed(condition.where.points.to("cpu", torch.float64))
        self.orders = condition.orders(self.problem.names, probe, started)

    def draw(self, numbers: Numbers, seed: int, like: Tensor) -> Sample:
        """See `Group.draw`."""
        cut = self.of.decomposition
        pieces: dict[int, list[Boundary]] = {}
        wanted = numbers.data if self.of.groups > 1 else numbers.data * cut.size
        for attempt in range(8):
            own = derive_seed(seed, _DATA, attempt) % 2**31
            for piece, part in self._drawn(2 * numbers.data * cut.size + 16, own).items():
                pieces.setdefault(piece, []).append(part)
            enough = all(sum(len(one.points) for one in parts) >= wanted for parts in pieces.values())
            if isinstance(self.condition.where, Given) or enough:
                break
        if isinstance(self.condition.where, Given):
            wanted = max(len(parts[0].points) for parts in pieces.values())
        elif missed := self._touched.keys() - pieces.keys():
            more = self._drawn(_LOOKED, own)
            pieces |= {piece: [more.get(piece, self._touched[piece])] for piece in missed}
        return self._padded(pieces, wanted, like)

    def _drawn(self, many: int, seed: int) -> dict[int, Boundary]:
        """Points of the set by the pieces that they lie in; under windows there is one."""
        cut = self.of.decomposition
        found = self.condition.where.draw(self.problem.names, cut.domain, many, seed)
        found = shuffled(found, len(found.points), seed)
        owners = _behind(cut, found)
        if self.of.groups == 1:
            owners = torch.where(owners >= 0, 0, owners)
        told = [piece for piece in owners.unique().tolist() if piece >= 0]
        return {piece: Boundary(*(part[owners == piece] for part in found)) for piece in told}

    @cached_property
    def _touched(self) -> dict[int, Boundary]:
        """Pieces that the set touches, thin ones among them, which few points miss."""
        try:
            return self._drawn(_LOOKED, 0) if self.of.groups > 1 else {}
        except ValueError:  # so small a part of an edge that so many points of it are not found
            return {}

    def _padded(self, pieces: Mapping[int, Sequence[Boundary]], wanted: int, like: Tensor) -> Sample:
        """As many points in each set; where there were fewer, some twice, the second time with a share of nothing."""
        points, normals, shares = [], [], []
        for piece in sorted(pieces):
            own = Boundary(*(torch.cat(parts) for parts in zip(*pieces[piece], strict=True)))
            rows = torch.arange(wanted)
            count = min(len(own.points), wanted)
            points.append(own.points[rows % count])
            normals.append(own.normals[rows % count])
            shares.append((rows < count).double() / count)
        places = torch.stack(points)[None]
        extra = {
            "normals": torch.stack(normals)[None],
            "share": torch.stack(shares)[None],
            "known": self.condition.value(places.reshape(-1, places.shape[-1])).reshape(*places.shape[:-1], -1),
        }
        return _sample(self.of, tuple(sorted(pieces)), places, extra, self.orders, like)

    def residuals(self, theta: Tensor, sample: Sample) -> dict[str, Tensor]:
        """See `Group.residuals`."""
        d = self._seen(theta, sample, self.orders)
        found = self.condition.residual(d, self.of.parameters(theta), sample.data["known"])
        shape = next(iter(d.values.values())).shape[:-1]
        return {self.names[0]: stacked(found, shape, self.names[0])}


class _Pairs(Group):
    """Two sides at a time: sets of points with a network on the left and one on the right."""

    orders: frozenset[Orders]

    def _pairs(self, sets: Sequence[tuple[Any, ...]], like: Tensor) -> Sample:
        """(left network, right network, points and normals on the left, those on the right) as a sample."""
        left, right, normals = (
            torch.stack(parts)[None]
            for parts in (
                [one[2].points for one in sets],
                [one[3].points for one in sets],
                [one[2].normals for one in sets],
            )
        )
        lefts, rights = tuple(one[0] for one in sets), tuple(one[1] for one in sets)
        made = _sample(self.of, lefts, left, {"normals": normals}, self.orders, like)
        other = _sample(self.of, rights, right, {}, self.orders, like)
        beyond = {f"beyond {name}": x for name, x in other.data.items() if name != "share"}
        return Sample(lefts + rights, {**made.data, **beyond})

    def _sides(self, theta: Tensor, sample: Sample) -> Sides:
        """Both sides, evaluated as one batch."""
        data, sets = sample.data, sample.data["share"].shape[1]
        both = {}
        for name, value in data.items():
            other = data.get(f"beyond {name}")
            if other is not None:
                both[name] = torch.cat((value, other), 1)
        d = self._seen(theta, Sample(sample.which, both), self.orders)
        halves = []
        for begin in (0, sets):
            part = slice(begin, begin + sets)
            values = {one: value[:, part] for one, value in d.values.items()}
            halves.append(Derivatives(d.names, values, d.points[:, part], data["normals"]))
        return Sides(self.problem, halves[0], halves[1], data["normals"], self.of.parameters(theta))


@final
class Joints(_Pairs):
    """Interface conditions, all that any arm uses."""

    def __init__(self, representation: Representation, names: Sequence[str]) -> None:
        super().__init__(representation)
        self.names = tuple(names)
        self.orders = orders_of(names, self.problem)

    def draw(self, numbers: Numbers, seed: int, like: Tensor) -> Sample | None:
        """See `Group.draw`."""
        cut = self.of.decomposition
        sets = []
        for place, meeting in enumerate(cut.meetings):
            found = cut.interface(meeting, numbers.interface, derive_seed(seed, _PAIR, place) % 2**31)
            sets.append((meeting.left, meeting.right, found, found))
        return self._pairs(sets, like) if sets else None

    def residuals(self, theta: Tensor, sample: Sample) -> dict[str, Tensor]:
        """See `Group.residuals`."""
        sides = self._sides(theta, sample)
        return {name: CONDITIONS[name].residual(sides) for name in self.names}


@final
class Wrapped(_Pairs):
    """A periodic condition: what belongs together may lie in two pieces."""

    def __init__(self, representation: Representation, condition: Periodic) -> None:
        super().__init__(representation)
        self.condition, self.names = condition, (condition.name,)
        self.orders = condition.orders(self.problem.names, self.problem._probe, self.problem.started)

    def draw(self, numbers: Numbers, seed: int, like: Tensor) -> Sample:
        """See `Group.draw`."""
        cut = self.of.decomposition
        one = numbers.data * (1 if self.of.groups > 1 else cut.size)
        found = self._drawn(one * cut.size * 2 + 16, seed)
        if missed := self._touched.keys() - found.keys():
            more = self._drawn(_LOOKED, seed)
            found |= {pair: more.get(pair, self._touched[pair]) for pair in missed}
        sets = []
        for pair, sides in sorted(found.items(), key=lambda item: item[0]):
            rows = torch.arange(one) % len(sides[0].points)
            sets.append((*pair, *(Boundary(side.points[rows], side.normals[rows]) for side in sides)))
        return self._pairs(sets, like)

    def _drawn(self, many: int, seed: int) -> dict[tuple[int, int], tuple[Boundary, Boundary]]:
        """Points of both faces by the pieces that they lie in; under windows there is one."""
        cut = self.of.decomposition
        low, high = self.condition.draw(self.problem.names, cut.domain, many, seed)
        lefts, rights = _behind(cut, low), _behind(cut, high)
        if self.of.groups == 1:
            lefts, rights = torch.zeros_like(lefts), torch.zeros_like(rights)
        found = {}
        for a, b in set(zip(lefts.tolist(), rights.tolist(), strict=True)):
            rows = (lefts == a) & (rights == b)
            found[a, b] = Boundary(*(x[rows] for x in low)), Boundary(*(x[rows] for x in high))
        return found

    @cached_property
    def _touched(self) -> dict[tuple[int, int], tuple[Boundary, Boundary]]:
        """Pairs of pieces that are joined, thin ones among them, which few points miss."""
        return self._drawn(_LOOKED, 0) if self.of.groups > 1 else {}

    def residuals(self, theta: Tensor, sample: Sample) -> dict[str, Tensor]:
        """See `Group.residuals`."""
        sides = self._sides(theta, sample)
        jumps = [sides.jump(lambda d, one=one: d.of(one)) for one in sorted(self.orders)]
        return {self.names[0]: torch.cat(jumps, -1)}


def _behind(cut: Decomposition, found: Boundary) -> Tensor:
    """The piece that lies behind each point of a boundary."""
    diagonal = sum(length**2 for length in cut.domain.hull.lengths) ** 0.5
    return cut.owner(found.points - _NUDGE * diagonal * found.normals)


def groups_of(representation: Representation, joints: Sequence[str]) -> list[Group]:
    """Return the groups of a problem: its equation, its conditions, and interface conditions of these names."""
    found: list[Group] = [Inside(representation)]
    for one in representation.problem.conditions:
        found.append(Wrapped(representation, one) if isinstance(one, Periodic) else Data(representation, one))
    if joints and representation.decomposition.meetings:
        found.append(Joints(representation, joints))
    return found


def _sample(
    of: Representation,
    which: tuple[int, ...],
    points: Tensor,
    extra: Mapping[str, Tensor],
    orders: frozenset[Orders],
    like: Tensor,
) -> Sample:
    """Points in float64 on the host as a sample where the networks are."""
    extras = {f"extra {name}": x for name, x in of.extras(points, which, orders).items()}
    share = torch.full((1, *points.shape[1:3]), 1.0 / points.shape[2], dtype=torch.float64)
    data = {"points": points, "share": share, **extras, **extra}
    return Sample(which, {name: x.to(like) for name, x in data.items()})
