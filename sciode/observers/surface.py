"""A smooth surface through what sensors say, in torch: cubic radial functions in space, cubic polynomials in time."""

from __future__ import annotations

import torch
from torch import Tensor

from sciode.data.flow import Space

from .scene import embedded

__all__ = ["surface_inverse", "surface_rows", "time_weights"]

_NUGGET = 1e-9
"""Of the largest distance cubed: sensors in one place share what they say, and any others are met to six digits."""


def surface_rows(x: Tensor, points: Tensor, there: Tensor, space: Space) -> Tensor:
    """What a surface is made of at places x [..., Q, d]: |u - u_i|^3 of each point, 1 and u; [..., Q, N + p + 1].

    u is `embedded` x [..., p], float64, so that a periodic box has no seam and a sphere no poles. points [..., N, d]; 0
    where there [..., N] is False.
    """
    u, centres = embedded(x.double(), space), embedded(points.double(), space)
    cubes = torch.cdist(u, centres, compute_mode="donot_use_mm_for_euclid_dist").pow(3) * there.unsqueeze(-2)
    return torch.cat((cubes, torch.ones_like(u[..., :1]), u), -1)


def surface_inverse(points: Tensor, space: Space) -> Tensor:
    """M [N + p + 1, N] float64: `surface_rows` @ M @ values is the surface through values [N, c] at points [N, d].

    Source: Duchon (1977): of all surfaces through the values, that of the least bending. Duplicates and collinear
    points are no harm: a small nugget keeps the system definite.
    """
    there = torch.ones(len(points), dtype=torch.bool, device=points.device)
    rows = surface_rows(points, points, there, space)
    count, p = len(points), rows.shape[1] - len(points)
    system = rows.new_zeros(count + p, count + p)
    system[:count] = rows
    system[count:, :count] = rows[:, count:].T
    nugget = _NUGGET * system[:count, :count].max().clamp(min=1e-30)
    sign = torch.cat((system.new_ones(count), -system.new_ones(p)))
    system = system + torch.diag(nugget * sign)
    return torch.linalg.solve(system, torch.eye(count + p, count, dtype=system.dtype, device=system.device))


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
