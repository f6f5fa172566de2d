"""A smooth surface through what sensors say, in torch: radial functions in space, cubic polynomials in time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from sciode.data.flow import Space

from .scene import embedded
from .tables import whole_tables

__all__ = ["ORDERS", "chosen_order", "chosen_stretch", "surface_inverse", "surface_rows", "time_weights"]

ORDERS = (3, 5, 7)
"""Of surfaces: 3 is the cubic one. Higher ones are better by far where sensors are dense beside what a flow shows, and
overshoot where they are not."""

_NUGGET = 1e-6
"""Of the usual distance to the nearest sensor to the order: sensors in one place share what they say, and any others
are met to some six digits."""
_ROUNDING = 1e-14
"""Of the largest distance to the order: a nugget below it would be lost."""
_MISSED = 100.0
"""What a surface that misses its own sensors counts, beside one that misses a sensor that it does not know."""
_LIMITS = (1.0 / 8.0, 8.0)
"""Of stretches."""
_ASKED = 800
"""Readings of each sensor, at most, by which surfaces are chosen."""
_TABLES = 4
"""Of readings without gaps, at most, by which they are."""
_FEWEST = 16
"""Sensors of a table, at least."""
_NEAR = 2500
"""Sensors, at most, by which they are: the nearest to one of them, for what is best hangs on how dense sensors are."""


def surface_rows(
    x: Tensor, points: Tensor, there: Tensor, space: Space, stretch: Tensor | None = None, order: int = 3
) -> Tensor:
    """What a surface is made of at places x [..., Q, d]: |u - u_i|^order of each point, and the polynomials in u below
    half the order; [..., Q, N + p].

    u is `embedded` x, float64, so that a periodic box has no seam and a sphere no poles. points [..., N, d]; 0 where
    there [..., N] is False. stretch: what the coordinates of u are multiplied by: a flow that varies more along one
    axis than along others is smoother so (`chosen_stretch`). order: one of `ORDERS`;
    ValueError for any other, as even ones make no surface.
    """
    if order not in ORDERS:
        raise ValueError(f"a surface of order {order} is none: give one of {ORDERS}")
    scale = 1.0 if stretch is None else stretch.to(x.device).double()
    u, centres = (embedded(places.double(), space) * scale for places in (x, points))
    powers = _powers(u, centres, order) * there.unsqueeze(-2)
    return torch.cat((powers, _polynomials(u, (order - 1) // 2, space)), -1)


def _powers(u: Tensor, centres: Tensor, order: int) -> Tensor:
    """|u - c|^order of places [..., Q, p] and centres [..., N, p], order odd: [..., Q, N]."""
    if not u.is_cuda:
        return torch.cdist(u, centres, compute_mode="donot_use_mm_for_euclid_dist").pow(order)
    # A card's `cdist` takes a block of threads for every pair; axis by axis a thread does.
    square = torch.zeros((), dtype=u.dtype, device=u.device)
    for a, b in zip(u.unbind(-1), centres.unbind(-1), strict=True):
        square = square + (a.unsqueeze(-1) - b.unsqueeze(-2)).square()
    return square.pow(order // 2) * square.sqrt()


def surface_inverse(points: Tensor, space: Space, stretch: Tensor | None = None, order: int = 3) -> Tensor:
    """M [N + p, N] float64: `surface_rows` @ M @ values is the surface through values [N, c] at points [N, d].

    Of all functions through the values it has the least energy in Duchon's sense (1977), of `order` 3 that of the cubic
    spline on a line: the integral over frequencies w of |u^(w)|^2 |w|^(order + d), d that of the space in which u lies.
    Duplicates and collinear points are no harm: a small nugget keeps the system definite.
    """
    there = torch.ones(len(points), dtype=torch.bool, device=points.device)
    rows = surface_rows(points, points, there, space, stretch, order)
    count, p = len(points), rows.shape[1] - len(points)
    system = rows.new_zeros(count + p, count + p)
    system[:count] = rows
    system[count:, :count] = rows[:, count:].T
    distances = rows[:, :count]
    apart = torch.where(distances > 0.0, distances, torch.inf).amin(1)
    usual = apart[apart.isfinite()].median() if bool(apart.isfinite().any()) else distances.new_tensor(1.0)
    nugget = torch.maximum(_NUGGET * usual, _ROUNDING * distances.max())
    # Powers are definite where polynomials are not, up to the sign (-1)^((order + 1) / 2).
    sign = torch.cat((system.new_ones(count), -system.new_ones(p))) * (-1.0) ** ((order + 1) // 2)
    system = system + torch.diag(nugget * sign)
    return torch.linalg.solve(system, torch.eye(count + p, count, dtype=system.dtype, device=system.device))


def _polynomials(u: Tensor, degree: int, space: Space) -> Tensor:
    """Monomials of u [..., p] up to a degree, without those that others give by z^2 = 1 - x^2 - y^2 on a sphere, or
    sin^2 = 1 - cos^2 in a periodic box."""
    p = u.shape[-1]
    once = {"sphere": {2}, "periodic": set(range(p // 2, p)), "plane": set()}[space.kind]
    powers = [
        chosen
        for total in range(degree + 1)
        for chosen in itertools.combinations_with_replacement(range(p), total)
        if all(chosen.count(axis) < 2 for axis in once)
    ]
    # Column by column: what is taken by lists cannot be recorded on a card.
    columns, one = u.unbind(-1), torch.ones_like(u[..., 0])
    return torch.stack([math.prod((columns[axis] for axis in axes), start=one) for axes in powers], -1)


def chosen_stretch(points: Tensor, values: Tensor, space: Space) -> Tensor:
    """The stretch by which cubic surfaces through all sensors but one best tell that one; see `chosen_order`."""
    return chosen_order(points, values, space, (3,))[1]


def chosen_order(points: Tensor, values: Tensor, space: Space, orders: tuple[int, ...] = ORDERS) -> tuple[int, Tensor]:
    """The order, and the stretch, by which surfaces through all sensors but one best tell that one, of readings
    [F, N, c] at points [N, d].

    Each axis but the first (on a sphere: its own) is stretched in turn, from an eighth to eight times. Each sensor is
    left out in turn, by one inverse (Rippa, 1999). Readings are standardised; where some are missing, frames that the
    same sensors have read stand together, and the largest four of these tables choose, channel by channel where no
    sensor reads all. Where none has 16 sensors it is the first order without a stretch. Nothing but these readings is
    looked at.
    """
    tables = _asked(points, values, space)
    u, d = embedded(points[:1].double(), space), space.dimension
    p = u.shape[1]
    axes = [[2]] if space.kind == "sphere" else [list(range(a, p, d)) for a in range(1, d)]
    known: dict[tuple[int, tuple[float, ...]], float] = {}

    def error(order: int, factors: tuple[float, ...]) -> float:
        if (order, factors) not in known:
            stretch = _stretch(u, axes, factors)
            known[order, factors] = sum(_untold(*table, space, stretch, order) * table[1].numel() for table in tables)
        return known[order, factors]

    order, factors = orders[0], (1.0,) * len(axes)
    if not tables:
        return order, _stretch(u, axes, factors)
    while True:
        before = order, factors
        for axis in range(len(axes)):
            factors = _searched(lambda tried, at=order: error(at, tried), factors, axis)
        order = min(orders, key=lambda tried: error(tried, factors))
        if (order, factors) == before or order == before[0]:
            return order, _stretch(u, axes, factors)


def _asked(points: Tensor, values: Tensor, space: Space) -> list[tuple[Tensor, Tensor]]:
    """Points [n, d] and columns [n, k] of readings without a gap by which surfaces are chosen."""
    found = whole_tables(points, values, _TABLES)
    if not found:  # no sensor reads all channels
        found = [one for channel in values.unbind(2) for one in whole_tables(points, channel.unsqueeze(2), 1)]
    tables = []
    for at, table in found:
        start = torch.randint(len(at), (1,), generator=torch.Generator().manual_seed(0)).to(at.device)
        u = embedded(at.double(), space)
        near = (u - u[start]).square().sum(1).argsort()[:_NEAR]
        thin = table[:: max(len(table) * table.shape[2] // _ASKED, 1), near]
        if len(near) >= _FEWEST:
            tables.append((at[near], thin.transpose(0, 1).flatten(1).double()))
    return tables


def _stretch(u: Tensor, axes: list[list[int]], factors: tuple[float, ...]) -> Tensor:
    found = torch.ones(u.shape[1], dtype=torch.float64, device=u.device)
    for axis, factor in zip(axes, factors, strict=True):
        found[axis] = factor
    return found


def _searched(error: Callable[[tuple[float, ...]], float], factors: tuple[float, ...], axis: int) -> tuple[float, ...]:
    """Factors with the best of an axis: downhill by doubling or halving, then by the root of two."""
    best = factors
    for ratio in (2.0, 2.0**0.5):
        for step in (ratio, 1.0 / ratio):
            while True:
                tried = (*best[:axis], float(f"{best[axis] * step:.9g}"), *best[axis + 1 :])
                if not _LIMITS[0] <= tried[axis] <= _LIMITS[1] or error(tried) >= error(best):
                    break
                best = tried
    return best


def _untold(points: Tensor, table: Tensor, space: Space, stretch: Tensor, order: int) -> float:
    """Mean squared error at each sensor of the surface through the others, and `_MISSED` times that of the surface
    through all of them, which rounding makes more than 0 where distances are too uneven for the order."""
    there = torch.ones(len(points), dtype=torch.bool, device=points.device)
    inverse = surface_inverse(points, space, stretch, order)
    weights = inverse @ table
    met = surface_rows(points, points, there, space, stretch, order) @ weights
    missed = (met - table).square().mean()
    return float((weights[: len(points)] / inverse.diag().unsqueeze(1)).square().mean() + _MISSED * missed)


def time_weights(clock: Tensor, t: Tensor, causal: bool = False) -> tuple[Tensor, Tensor]:
    """(index, weight), [B, Q, m] both: values at times t [B, Q] are sums of those at clock [B, K] with these weights.

    Lagrange's polynomials on the four anchor times around t, fewer where there are fewer; times after the last are
    those of its cubic. causal: the last anchor time that is not after t, alone.
    """
    after = torch.searchsorted(clock.contiguous(), t.contiguous() + 1e-9, right=True)
    if causal:
        return (after - 1).clamp(min=0).unsqueeze(-1), torch.ones_like(t).unsqueeze(-1)
    m = min(4, clock.shape[1])
    first = (after - (m + 1) // 2).clamp(min=0, max=clock.shape[1] - m)
    index = first.unsqueeze(-1) + torch.arange(m, device=t.device)
    nodes = clock.gather(1, index.flatten(1)).unflatten(1, index.shape[1:])
    weight = torch.ones_like(nodes)
    for one in range(m):
        for other in range(m):
            if one != other:
                weight[..., one] *= (t - nodes[..., other]) / (nodes[..., one] - nodes[..., other])
    return index, weight
