"""How a domain is cut into pieces, each with a network of its own, and where pieces meet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from sciode.pde import Ball, Boundary, Box, Domain, Polygon, Slab, draw
from sciode.pde.regions import boxed
from sciode.pinn.networks import Scaling
from sciode.pinn.touching import Contact, contacts, drawn
from sciode.training import derive_seed

__all__ = ["Decomposition", "Meeting", "grid", "single", "strips", "windows"]

_ACROSS = 1e-7
"""How far across a boundary a neighbour is looked for, as a share of the domain's diagonal."""
_LOOKED, _LOOKED_AGAIN, _ROUNDS, _MOST = 512, 4096, 10, 2**15
_ROUNDED = 1e-6
_SHARED = 0.01
"""A share of the domain in more than one piece from which on pieces overlap; below, it is rounding at their edges."""
_CROSS, _INSIDE = 1, 2
"""What a seed is used for."""


@dataclass(frozen=True)
class Meeting:
    """The interface of pieces `left` and `right`; normals point from left to right."""

    left: int
    right: int


@dataclass(frozen=True)
class Decomposition:
    """Pieces of a domain, each one region or several that share a network.

        Decomposition(domain, [(Box((-1, 0), (-0.1, 1)), Box((0.1, 0), (1, 1))), Box((-0.1, 0), (0.1, 1))])

    Pieces fill the domain without overlap and meet in interfaces. Those of boxes, polygons and `Slab`s are known; those
    of other regions are looked for among 4,096 points of both boundaries, so one below a thousandth of either is better
    made of boxes and polygons. overlap > 0 (made by `windows`) makes of them a partition of unity instead: every
    network is heard everywhere, weighted by a smooth window of its box that fades over this share of a cell's side, and
    there are no interfaces. `strips`, `grid` and `single` make what is usual.

    Raises ValueError for no pieces, an empty one, one that reaches beyond the domain, gaps, overlaps, or a piece that
    touches no other.
    """

    domain: Domain
    pieces: tuple[tuple[Domain, ...], ...]
    overlap: float = 0.0

    def __init__(self, domain: Domain, pieces: Sequence[Domain | Sequence[Domain]], overlap: float = 0.0) -> None:
        object.__setattr__(self, "domain", domain)
        if isinstance(pieces, Domain):
            raise ValueError("pieces: give a list of them, or take single(domain)")
        regions = tuple((one,) if isinstance(one, Domain) else tuple(one) for one in pieces)
        object.__setattr__(self, "pieces", regions)
        object.__setattr__(self, "overlap", float(overlap))
        self._check()

    def _check(self) -> None:
        if not self.pieces or not all(self.pieces):
            raise ValueError("pieces: give at least one, each of at least one region")
        for number, piece in enumerate(self.pieces):
            for part in piece:
                self._check_part(number, part)
        points = self.domain.sample(_LOOKED, 0, dtype=torch.float64)
        owners = self.owner(points)
        if bool((owners < 0).any()):
            share = float((owners < 0).double().mean())
            raise ValueError(f"pieces leave {share:.1%} of the domain to no network: fill it")
        if (share := float((self._owned(points) > 1).double().mean())) > _SHARED:
            raise ValueError(
                f"pieces overlap in {share:.1%} of the domain: cut them apart, or make `windows` of a grid"
            )
        self._check_volumes()
        if self.overlap and not all(len(piece) == 1 and isinstance(piece[0], Box) for piece in self.pieces):
            raise ValueError("windows need pieces of one box each")
        if not self.overlap and len(self.pieces) > 1:
            met = {k for one in self.meetings for k in (one.left, one.right)}
            if alone := set(range(len(self.pieces))) - met:
                raise ValueError(f"piece {min(alone)} touches no other: nothing would reach its network from there")

    def _check_volumes(self) -> None:
        """Where volumes are exact, they show a gap that is too small for points to fall into."""
        parts = [part for piece in self.pieces for part in piece]
        if all(isinstance(one, Box | Polygon | Ball) for one in (self.domain, *parts)):
            share = sum(part.volume for part in parts) / self.domain.volume
            if abs(share - 1) > _ROUNDED:
                raise ValueError(f"pieces have {share:.6%} of the domain's volume: they leave a gap, or overlap")

    def _check_part(self, number: int, part: Domain) -> None:
        if not isinstance(part, Domain):
            raise ValueError(f"piece {number}: {part!r} is no Domain: give Box(low, high), Polygon(...), ...")
        if part.dimension != self.domain.dimension:
            raise ValueError(f"piece {number} has {part.dimension} axes and the domain {self.domain.dimension}")
        if not part.share:
            raise ValueError(f"piece {number} is empty: no point of {part.hull} is in it")
        points = part.sample(64, 0, dtype=torch.float64)
        if float(self.domain.contains(points).double().mean()) < 1.0:
            raise ValueError(f"piece {number} reaches beyond the domain: cut it with sciode.pde.intersection")

    @property
    def size(self) -> int:
        """How many pieces, and so networks, there are."""
        return len(self.pieces)

    @cached_property
    def scaling(self) -> Scaling:
        """The boxes around the pieces, widened by the overlap, float64."""
        lows, highs = [], []
        for piece in self.pieces:
            hulls = [part.hull for part in piece]
            low = [min(values) for values in zip(*(hull.low for hull in hulls), strict=True)]
            high = [max(values) for values in zip(*(hull.high for hull in hulls), strict=True)]
            lows.append([a - self.overlap * (b - a) for a, b in zip(low, high, strict=True)])
            highs.append([b + self.overlap * (b - a) for a, b in zip(low, high, strict=True)])
        low, high = torch.tensor(lows, dtype=torch.float64), torch.tensor(highs, dtype=torch.float64)
        return Scaling((low + high) / 2, (high - low) / 2)

    def owner(self, points: Tensor) -> Tensor:
        """Return the piece of each point [N, d], the first of those that have it, -1 for none: int64 [N]."""
        found = torch.full(points.shape[:1], -1, dtype=torch.int64, device=points.device)
        for number in reversed(range(self.size)):
            for part in self.pieces[number]:
                found[part.contains(points)] = number
        return found

    def _owned(self, points: Tensor) -> Tensor:
        """How many pieces have each point, int64 [N]."""
        held = [torch.stack([part.contains(points) for part in piece]).any(0) for piece in self.pieces]
        return torch.stack(held).sum(0)

    @cached_property
    def meetings(self) -> tuple[Meeting, ...]:
        """Pairs of pieces that touch, in order."""
        found = {pair for pair, own in self._contacts.items() if own} | set(self._probed)
        return tuple(Meeting(*pair) for pair in sorted(found))

    @cached_property
    def _probed(self) -> dict[tuple[int, int], int]:
        """Interfaces that had to be looked for, and the piece of whose boundary they take the larger share."""
        unknown = {pair for pair, own in self._contacts.items() if own is None}
        shares: dict[tuple[int, int], dict[int, float]] = {}
        for many in (_LOOKED, _LOOKED_AGAIN):
            missed = unknown - shares.keys()
            for number in sorted({number for pair in missed for number in pair}):
                owners = torch.cat([beyond for _, beyond in self._crossings(number, many, 0)])
                for other in owners.unique().tolist():
                    pair = min(number, other), max(number, other)
                    if pair in missed:
                        shares.setdefault(pair, {})[number] = float((owners == other).double().mean())
        return {pair: max(own, key=lambda number: own[number]) for pair, own in shares.items()}

    @cached_property
    def _contacts(self) -> dict[tuple[int, int], list[Contact] | None]:
        """Of pieces whose hulls touch: where they do, None where that has to be found by probing."""
        if self.overlap:
            return {}
        slack, found = self._step, {}
        centre, half = self.scaling.centre.numpy(), self.scaling.half.numpy()
        for left in range(self.size):
            near = (np.abs(centre - centre[left]) <= half + half[left] + slack).all(1)
            for right in np.flatnonzero(near[left + 1 :]) + left + 1:
                own = [contacts(a, b, slack) for a, b in product(self.pieces[left], self.pieces[right])]
                found[left, int(right)] = None if None in own else [one for part in own for one in part or ()]
        return found

    @property
    def _step(self) -> float:
        return _ACROSS * math.hypot(*self.domain.hull.lengths)

    def interface(self, meeting: Meeting, n: int, seed: int) -> Boundary:
        """Return n points of an interface in float64 and the normals from left to right.

        Raises ValueError where none can be reached.
        """
        pair = meeting.left, meeting.right
        if own := self._contacts.get(pair):
            return drawn(own, n, derive_seed(seed, _CROSS))
        if pair not in self._probed:
            raise ValueError(f"the interface of pieces {pair[0]} and {pair[1]} cannot be reached: they do not touch")
        number = self._probed[pair]
        found: list[Boundary] = []
        many, tried, count = n + 16, 0, 0
        for attempt in range(_ROUNDS):
            for edge, owners in self._crossings(number, many, derive_seed(seed, _CROSS, attempt)):
                kept = owners == (pair[1] if number == pair[0] else pair[0])
                found.append(Boundary(edge.points[kept], edge.normals[kept] * (1.0 if number == pair[0] else -1.0)))
                tried, count = tried + many, count + len(found[-1].points)
            if count >= n:
                points, normals = (torch.cat(parts) for parts in zip(*found, strict=True))
                # Evenly from all regions of the piece.
                chosen = (torch.arange(n) * len(points)) // n
                return Boundary(points[chosen], normals[chosen])
            # As many more as the interface's share of the boundary asks for.
            many = min(math.ceil(1.3 * (n - count) * tried / max(count, 1)) + 16, _MOST)
        raise ValueError(
            f"the interface of pieces {pair[0]} and {pair[1]} cannot be reached: {count} of {tried} points of the "
            f"boundary of piece {number} are on it, and {n} are asked for: make the pieces of boxes or polygons"
        )

    def _crossings(self, number: int, n: int, seed: int) -> list[tuple[Boundary, Tensor]]:
        """Points on the boundaries of a piece's regions, and which other piece begins beyond each (-1: none)."""
        found = []
        for place, part in enumerate(self.pieces[number]):
            edge = part.boundary(n, derive_seed(seed, _CROSS, number, place), dtype=torch.float64)
            beyond = self.owner(edge.points + self._step * edge.normals)
            found.append((edge, torch.where(beyond == number, -1, beyond)))
        return found

    def inside(self, n: int, how: str, seed: int) -> Tensor:
        """Return n points in every piece in float64, [pieces, n, d]; its regions have numbers by their volumes."""
        return torch.stack([self._filled(number, n, how, seed) for number in range(self.size)])

    def _filled(self, number: int, n: int, how: str, seed: int) -> Tensor:
        parts = self.pieces[number]
        volumes = torch.tensor([part.volume for part in parts], dtype=torch.float64)
        ends = (volumes.cumsum(0) / volumes.sum() * n).round().long().tolist()
        counts = [b - a for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        seeds = [derive_seed(seed, _INSIDE, number, place) % 2**31 for place in range(len(parts))]
        drawn = [
            draw(part, m, how, s, dtype=torch.float64) for part, m, s in zip(parts, counts, seeds, strict=True) if m
        ]
        return torch.cat(drawn)

    def window(self, points: Tensor) -> Tensor:
        """Return each piece's share at points [..., d], [..., pieces]; the shares sum to 1.

        Products of sigmoids over the axes, normalised: smooth to all orders, and near 1 away from a window's edges.
        """
        centre, half = self.scaling.centre.to(points), self.scaling.half.to(points)
        inner = half / (1 + 2 * self.overlap)
        # A sigmoid falls from 0.99 to 0.01 over twice the overlap.
        steep = 4.6 / (2 * self.overlap * inner)
        off = points.unsqueeze(-2) - centre
        rise, fall = steep * (off + inner), steep * (inner - off)
        logs = (torch.nn.functional.logsigmoid(rise) + torch.nn.functional.logsigmoid(fall)).sum(-1)
        return torch.softmax(logs, -1)


def single(domain: Domain) -> Decomposition:
    """Return the domain as one piece: a plain physics-informed network."""
    return Decomposition(domain, [domain])


def strips(domain: Domain, axis: int, cuts: Sequence[float]) -> Decomposition:
    """Return a box cut across an axis, or any `Slab` cut across its last one, time, at these places in ascending order.

    Raises ValueError for other cuts, or a domain that cannot be cut like this.
    """
    if not isinstance(axis, Integral) or not isinstance(cuts, Iterable):
        raise ValueError(f"axis is a number from 0 on and cuts are a list of places, got {axis!r} and {cuts!r}")
    low, high = domain.hull.low, domain.hull.high
    fault = f"cuts must ascend inside the domain along an axis it has, got {list(cuts)} on axis {axis}"
    if not 0 <= axis < domain.dimension:
        raise ValueError(fault)
    ends = [low[axis], *map(float, cuts), high[axis]]
    if sorted(set(ends)) != ends:
        raise ValueError(fault)
    if isinstance(domain, Slab) and axis == domain.dimension - 1:
        return Decomposition(domain, [Slab(domain.space, a, b) for a, b in pairwise(ends)])
    _check_box(domain)

    def strip(a: float, b: float) -> Box:
        return Box([*low[:axis], a, *low[axis + 1 :]], [*high[:axis], b, *high[axis + 1 :]])

    return Decomposition(domain, [strip(a, b) for a, b in pairwise(ends)])


def grid(domain: Domain, counts: Sequence[int]) -> Decomposition:
    """Return a box cut into equal boxes, counts of them along each axis, the last axis fastest; or any `Slab` in time.

    Raises ValueError for other counts, or a domain that cannot be cut like this.
    """
    if len(counts) != domain.dimension or min(counts) < 1:
        raise ValueError(f"counts must be one number >= 1 for each of {domain.dimension} axes, got {list(counts)}")
    sides = [
        torch.linspace(a, b, count + 1, dtype=torch.float64).tolist()
        for a, b, count in zip(domain.hull.low, domain.hull.high, counts, strict=True)
    ]
    if max(counts[:-1], default=1) == 1:
        return strips(domain, domain.dimension - 1, sides[-1][1:-1])
    _check_box(domain)

    def corner(cell: Sequence[int], far: int) -> list[float]:
        return [side[k + far] for side, k in zip(sides, cell, strict=True)]

    return Decomposition(domain, [Box(corner(cell, 0), corner(cell, 1)) for cell in product(*map(range, counts))])


def _check_box(domain: Domain) -> None:
    """Raise ValueError for a domain that is no box."""
    if not isinstance(boxed(domain), Box):
        raise ValueError(
            f"{type(domain).__name__} is no box, which this cuts: give the pieces, Decomposition(domain, [piece, ...])"
        )


def windows(cells: Decomposition, overlap: float = 0.25) -> Decomposition:
    """Return the same boxes as overlapping windows: finite-basis physics-informed networks (FBPINN).

    overlap: how far a window reaches into its neighbours, as a share of a cell's side, 0 < overlap < 1.
    Source: Moseley, Markham, Nissen-Meyer: Finite basis physics-informed neural networks (Adv. Comput. Math. 2023).
    """
    if not 0 < overlap < 1:
        raise ValueError(f"overlap must lie between 0 and 1, got {overlap}")
    return replace(cells, overlap=float(overlap))
