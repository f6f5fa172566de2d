"""A smooth surface through what sensors say, in torch: cubic radial functions in space, cubic polynomials in time."""

from __future__ import annotations

import torch
from torch import Tensor

from sciode.data.flow import Space

from .scene import embedded

__all__ = ["chosen_stretch", "surface_inverse", "surface_rows", "time_weights"]

_NUGGET = 1e-9
"""Of the largest distance cubed: sensors in one place share what they say, and any others are met to six digits."""


_STRETCHES = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0)
_ASKED = 800
"""Sensors and readings of each, at most, by which a stretch is chosen."""


def surface_rows(x: Tensor, points: Tensor, there: Tensor, space: Space, stretch: Tensor | None = None) -> Tensor:
    """What a surface is made of at places x [..., Q, d]: |u - u_i|^3 of each point, 1 and u; [..., Q, N + p + 1].

    u is `embedded` x [..., p], float64, so that a periodic box has no seam and a sphere no poles. points [..., N, d]; 0
    where there [..., N] is False. stretch: [p], what u is multiplied by: a flow that varies more along one axis than
    along others is smoother so (`chosen_stretch`).
    """
    scale = 1.0 if stretch is None else stretch.to(x.device).double()
    u, centres = (embedded(places.double(), space) * scale for places in (x, points))
    cubes = _cubes(u, centres) * there.unsqueeze(-2)
    return torch.cat((cubes, torch.ones_like(u[..., :1]), u), -1)


def _cubes(u: Tensor, centres: Tensor) -> Tensor:
    """|u - c|^3 of places [..., Q, p] and centres [..., N, p]: [..., Q, N]."""
    if not u.is_cuda:
        return torch.cdist(u, centres, compute_mode="donot_use_mm_for_euclid_dist").pow(3)
    # A card's `cdist` takes a block of threads for every pair; axis by axis a thread does.
    square = torch.zeros((), dtype=u.dtype, device=u.device)
    for a, b in zip(u.unbind(-1), centres.unbind(-1), strict=True):
        square = square + (a.unsqueeze(-1) - b.unsqueeze(-2)).square()
    return square * square.sqrt()


def surface_inverse(points: Tensor, space: Space, stretch: Tensor | None = None) -> Tensor:
    """M [N + p + 1, N] float64: `surface_rows` @ M @ values is the surface through values [N, c] at points [N, d].

    Of all functions through the values it has the least energy in Duchon's sense (1977): that of the cubic spline on a
    line, the integral of |w| |w^2 u^(w)|^2 over frequencies in a plane, of |w|^2 |w^2 u^(w)|^2 in space. Duplicates and
    collinear points are no harm: a small nugget keeps the system definite.
    """
    there = torch.ones(len(points), dtype=torch.bool, device=points.device)
    rows = surface_rows(points, points, there, space, stretch)
    count, p = len(points), rows.shape[1] - len(points)
    system = rows.new_zeros(count + p, count + p)
    system[:count] = rows
    system[count:, :count] = rows[:, count:].T
    nugget = _NUGGET * system[:count, :count].max().clamp(min=1e-30)
    sign = torch.cat((system.new_ones(count), -system.new_ones(p)))
    system = system + torch.diag(nugget * sign)
    return torch.linalg.solve(system, torch.eye(count + p, count, dtype=system.dtype, device=system.device))


def chosen_stretch(points: Tensor, values: Tensor, space: Space) -> Tensor:
    """The stretch [p] by which surfaces through some of the sensors best tell the others, of readings [F, N, c].

    points [N, d]. A quarter of the sensors is hidden, three times, and each axis but the first (on a sphere: its own)
    is stretched in turn, from a quarter to eight times. Readings are standardised; frames with a missing one are left
    out, and where none is whole, nothing is stretched. Nothing but these readings is looked at.
    """
    draw = torch.Generator().manual_seed(0)
    some = torch.randperm(len(points), generator=draw)[:_ASKED].to(points.device)
    points, values = points[some], values[:, some]
    whole = values[values.isfinite().flatten(1).all(1)]
    table = whole[:: max(len(whole) * values.shape[2] // _ASKED, 1)].transpose(0, 1).flatten(1).double()
    p = embedded(points[:1], space).shape[-1]
    best = torch.ones(p, dtype=torch.float64, device=points.device)
    axes = [[2]] if space.kind == "sphere" else [list(range(a, p, space.dimension)) for a in range(1, space.dimension)]
    if not table.shape[1] or len(points) < 16:
        return best
    folds = [torch.rand(len(points), generator=draw).to(points.device) < 0.25 for _ in range(3)]
    for axis in axes:
        errors = []
        for factor in _STRETCHES:
            tried = best.clone()
            tried[axis] = factor
            errors.append(sum(_untold(points, table, hidden, space, tried) for hidden in folds))
        best[axis] = _STRETCHES[errors.index(min(errors))]
    return best


def _untold(points: Tensor, table: Tensor, hidden: Tensor, space: Space, stretch: Tensor) -> float:
    """Mean squared error at hidden sensors of surfaces through the others."""
    shown = points[~hidden]
    there = torch.ones(len(shown), dtype=torch.bool, device=points.device)
    rows = surface_rows(points[hidden], shown, there, space, stretch)
    told = rows @ (surface_inverse(shown, space, stretch) @ table[~hidden])
    return float((told - table[hidden]).square().mean())


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
