"""A Brownian path over an interval as a sum of hashed normals: any time may be asked for, and nothing is kept.

The tree halves the interval `levels` times. What a node adds to the path, given the increment and the area of its own
interval, is two parabolas, so W and its integral at a time are sums over the nodes around that time, one a level.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..transforms import transforming
from .draws import kernels_for
from .philox import normals, philox, words

__all__ = ["BrownianTree", "levels_for"]

_PURPOSE = 3
"""Tells these draws from those of cells (`counter`)."""
_DEEPEST = 29
"""Numbers of nodes stay below 2^31."""
_SHALLOW, _DEEP = 22, 26
_TOGETHER = 8
"""Nodes that are added up in halves; these sums, one after another."""
_NEAR = 1e-6
"""Parts of a leaf that rounding of a time may make up."""


def levels_for(dtype: torch.dtype, span: float = 1.0, dtmin: float | None = None) -> int:
    """How often an interval of length `span` is halved: 22 times for float32, 26 for float64.

    That resolves 2.4e-7 of the interval (1.5e-8); over so little, a path moves by 5e-4 (1.2e-4) of what it does over
    the whole, and a step of strong order 1.5 errs by about 1e-10 (2e-12). A smaller dtmin gets four leaves, as long as
    there are at most 2^29.
    """
    levels = _DEEP if dtype == torch.float64 else _SHALLOW
    if dtmin is not None:
        levels = max(levels, math.ceil(math.log2(4 * span / dtmin)))
    return min(levels, _DEEPEST)


class _Places(NamedTuple):
    """Times seen from the nodes around them: the root's two normals, the splits', the leaf's.

    nodes: their numbers [N, n, L], N at most levels + 2; path, area: what their two normals add to W and to its
    integral, as factors [2, N, n, L].
    """

    nodes: Tensor
    path: Tensor
    area: Tensor


@dataclass(frozen=True, eq=False)
class BrownianTree:
    """W and its space-time Levy area over any interval, a pure function of (seed, sample, interval).

    Over [s, u] of length h: the increment W(u) - W(s) ~ N(0, h) and H = (1/h) int_s^u (W - its chord) dt ~ N(0, h/12),
    independent of one another. Times are the field's; a step backward in time gets W(s) - W(u) and the same H.

    Arguments:
        seeds [B] int64; channels m; low, span > 0 [L] float64, L = 1 or B: the interval from low to low + span; levels:
            halvings, at most 29, so that times are told apart down to span / 2^levels (two times in one leaf are each
            right by themselves, and too smooth together); area: whether `over` gives H, too; dtype: of what it gives.
            Sums are taken in float64, because H is a small difference.

    A node's normals z, n, for its interval of length h, move the path by sqrt(h/16) z (3 r^2 - 2 r) +- sqrt(h/12) n
    (3 r - 3 r^2), + in the left half and - in the right one, where r runs from 0 at either end to 1 in the middle. A
    leaf adds the bridge given its increment and area, at one time.
    Source: Foster, Lyons, Oberhauser: An optimal polynomial approximation of Brownian motion (SIAM J. Numer. Anal. 58,
    2020); Jelincic, Tao, Turner, Cass, Foster, Ni: Generative modelling of Levy area for high order SDE simulation
    (2023). Summed over levels here, and tested against the covariances of Brownian motion.
    """

    seeds: Tensor
    channels: int
    low: Tensor
    span: Tensor
    levels: int
    area: bool
    dtype: torch.dtype

    @property
    def kind(self) -> Hashable:
        """What compiled code depends on beside the tensors."""
        return BrownianTree, self.channels, self.levels, self.area, self.dtype

    @property
    def leaf(self) -> Tensor:
        """The length of a leaf [L]: shorter steps see too smooth a path."""
        return self.span * 2.0**-self.levels

    def over(self, t: Tensor, dt: Tensor) -> Tensor:
        """For steps from t to t + dt (both [L], dt of any sign): dW [B, m], or dW and H [2, B, m] with `area`."""
        end = t + dt
        path, area = self._at(torch.stack((t, end)))
        increment = path[1] - path[0]
        if not self.area:
            return increment.to(self.dtype)
        # From where to where the path was asked for: far from 0, rounding of the end is much of a short step.
        length = (end - t).unsqueeze(-1)
        still = length == 0
        mean = (area[1] - area[0]) / torch.where(still, 1.0, length)
        levy = torch.where(still, 0.0, mean - 0.5 * (path[0] + path[1]))
        return torch.stack((increment, levy)).to(self.dtype)

    def bridge(self, t: Tensor, dt: Tensor, theta: Tensor) -> Tensor:
        """W less its chord at theta [n, L] of steps from t to t + dt ([L] or [n, L]): [n, B, m], 0 at both ends."""
        inner = t + theta * dt
        if t.ndim < theta.ndim:
            t, dt = (x.expand(inner.shape[1:]).unsqueeze(0) for x in (t, dt))
        start, end, inner = self.path(torch.cat((t, t + dt, inner))).split((len(t), len(t), len(theta)))
        return (inner - start - theta.unsqueeze(-1) * (end - start)).to(self.dtype)

    def of(self, lane: Tensor) -> BrownianTree:
        """The trees of some samples, or of some more than once."""
        low, span = (x if x.shape[0] == 1 else x[lane] for x in (self.low, self.span))
        return replace(self, seeds=self.seeds[lane], low=low, span=span)

    def path(self, t: Tensor) -> Tensor:
        """W(t) - W(low), float64 [n, B, m], at t [n, L]."""
        return self._at(t)[0]

    def _at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """W and its integral from `low` to t [n, L]: [n, B, m] each."""
        if t.device.type == "cuda" and not transforming():
            # One operation, which a compiler leaves alone and a graph can hold.
            return _descended(self.seeds, t, self.low, self.span, self.channels, self.levels)
        return self._summed(t)

    def _summed(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The same by tensors."""
        places = self._places(t)
        z = self._normals(places.nodes)
        return _sum(places.path.unsqueeze(-1) * z), _sum(places.area.unsqueeze(-1) * z)

    def _places(self, t: Tensor) -> _Places:
        count = 2**self.levels
        x = ((t - self.low) / self.span).clamp(0.0, 1.0)
        # In leaves; a time that rounding has moved off the end of one is put back.
        u, end = x * count, (x * count).round()
        u = torch.where((u - end).abs() < _NEAR, end, u)
        leaf = u.to(torch.int64).clamp(max=count - 1)
        depth = self._depth(u)
        level = torch.arange(min(depth, self.levels), device=t.device).reshape(-1, 1, 1)
        width, size = torch.ones_like(level) << level, torch.ones_like(level) << (self.levels - level)
        split = leaf >> (self.levels - level)
        nodes = [torch.zeros_like(leaf).unsqueeze(0), width + split]
        factors = [_whole(u / count, self.span), _split(u / size - split, self.span / width)]
        if depth > self.levels:
            nodes.append((count + leaf).unsqueeze(0))
            factors.append(_leaf(u - leaf, self.leaf))
        path, area = (torch.cat(parts, dim=1) for parts in zip(*factors, strict=True))
        return _Places(torch.cat(nodes), path, area)

    def _depth(self, u: Tensor) -> int:
        """Levels that add something at u [n, L], in leaves; the leaves are one more.

        A time that many halvings of the interval make a node's end feels nothing below. Only a host can say; elsewhere
        all levels are added up.
        """
        if _elsewhere(u):
            return self.levels + 1
        whole = u.numpy().astype(np.int64)
        if (whole != u.numpy()).any():
            return self.levels + 1
        lowest = np.bitwise_or.reduce(whole.ravel()) | 2**self.levels
        return self.levels - (int(lowest & -lowest).bit_length() - 1)

    def _normals(self, nodes: Tensor) -> Tensor:
        """Two normals for every node and channel: [2, N, n, B, m] float64."""
        blocks = -(-self.channels // 2)
        if _elsewhere(nodes):
            # All counters are tensors: a product of two Python integers would not wrap.
            column = torch.arange(blocks, device=nodes.device)
            counter = (nodes.unsqueeze(-1), torch.zeros_like(column), column, torch.full_like(column, _PURPOSE))
            drawn = philox(words(self.seeds.unsqueeze(-1)), counter)
        else:
            # NumPy's integer operations cost a third.
            key = words(self.seeds.numpy().view(np.uint64)[:, None])
            index = nodes.numpy().view(np.uint64)[..., None]
            hashed = philox(key, (index, np.uint64(0), np.arange(blocks, dtype=np.uint64), np.uint64(_PURPOSE)))
            w0, w1, w2, w3 = (torch.from_numpy(w.view(np.int64)) for w in hashed)
            drawn = w0, w1, w2, w3
        pairs = normals(drawn, torch.float64).unflatten(-1, (2, 2))
        return pairs.movedim(-1, 0).flatten(-2)[..., : self.channels]


@torch.library.custom_op("sciode::brownian_tree", mutates_args=())
def _descended(
    seeds: Tensor, times: Tensor, low: Tensor, span: Tensor, channels: int, levels: int
) -> tuple[Tensor, Tensor]:
    """W and its integral from `low` to times [n, L], float64 [n, B, channels] each."""
    if kernels_for(times.device) is None:
        return BrownianTree(seeds, channels, low, span, levels, True, torch.float64)._summed(times)
    from .descent import descend

    return descend(seeds, times, low, span, channels, levels, _PURPOSE)


@_descended.register_fake
def _(seeds: Tensor, times: Tensor, low: Tensor, span: Tensor, channels: int, levels: int) -> tuple[Tensor, Tensor]:
    shape = (times.shape[0], seeds.shape[0], channels)
    return times.new_empty(shape), times.new_empty(shape)


def _elsewhere(x: Tensor) -> bool:
    """Whether its numbers are not, or not yet, where the host can read them."""
    return torch.compiler.is_compiling() or transforming() or x.device.type != "cpu"


def _sum(x: Tensor) -> Tensor:
    """Over the two normals and the nodes of x [2, nodes, ...].

    In an order that neither the other times nor nodes that add nothing have a say in, so that a time has one sum to the
    last bit; `Tensor.sum` adds as things stand in memory.
    """
    nodes = x[0] + x[1]
    missing = -len(nodes) % _TOGETHER
    if missing:
        nodes = torch.cat((nodes, nodes.new_zeros(missing, *nodes.shape[1:])))
    blocks = nodes.unflatten(0, (-1, _TOGETHER))
    while blocks.shape[1] > 1:
        half = blocks.shape[1] // 2
        blocks = blocks[:, :half] + blocks[:, half:]
    total = blocks[0, 0]
    for block in blocks[1:, 0]:
        total = total + block
    return total


Factors = tuple[Tensor, Tensor]
"""What two normals add to the path and to its integral: [2, nodes, n, L] each."""


def _whole(x: Tensor, span: Tensor) -> Factors:
    """The root, at the part x [n, L] of its interval: W(end) = sqrt(span) z, H = sqrt(span / 12) n."""
    z, n = span.sqrt(), (span / 12).sqrt()
    path = torch.stack((z * x, n * 6 * x * (1 - x)))
    area = torch.stack((z * x * x / 2, n * (3 * x * x - 2 * x * x * x))) * span
    return path.unsqueeze(1), area.unsqueeze(1)


def _split(x: Tensor, length: Tensor) -> Factors:
    """Nodes cut at their middles, at the parts x [nodes, n, L] of their intervals of `length` [nodes, 1, L]."""
    left = x < 0.5
    r = 2 * torch.where(left, x, 1 - x)
    side = torch.where(left, 1.0, -1.0)
    z, n, half = (length / 16).sqrt(), (length / 12).sqrt(), length / 2
    path = torch.stack((z * (3 * r - 2) * r, n * side * 3 * r * (1 - r)))
    # Both parts integrate to 0 over the whole node: its own area is given.
    area = torch.stack((z * half * side * (r - 1) * r * r, n * half * (1.5 - r) * r * r))
    return path, area


def _leaf(x: Tensor, length: Tensor) -> Factors:
    """The bridge at the part x [n, L] of a leaf, given its increment and area; right at one time of the leaf."""
    y = 1 - x
    cubes = 1 - 3 * x * y
    spread = (x * y / cubes).sqrt()
    a, c = 0.5 * x**3 * spread, x * y * (x * y / (12 * cubes)).sqrt()
    path = (x * y * cubes).sqrt() * length.sqrt()
    scale = length * length.sqrt()
    moved = torch.stack((path, torch.zeros_like(path)))
    area = torch.stack((scale * (0.5 * x * (x * y * cubes).sqrt() - a), scale * c))
    return moved.unsqueeze(1), area.unsqueeze(1)
