"""Tensors whose entries are expressions of one sample, and what reshaping does to them.

The axis that counts the samples is not stored: along it every entry has the same expression, in that sample's own
numbers. A tensor may have it merged with other axes, [B * n]: then those are what is stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..lift import CannotCompile
from .expressions import Expr

__all__ = [
    "Symbolic",
    "concatenate",
    "elementwise",
    "expand",
    "permute",
    "reduce",
    "scatter_slice",
    "select",
    "take",
    "unsqueeze",
    "view",
]


_LONGEST = 1024
"""Most terms of a sum over an axis."""


class Symbolic(NamedTuple):
    """shape, as the graph has it; data, an array of `Expr`, 1 long along axes where all entries are the same.

    lane: (axis, outer, inner) if the axis is outer x samples x inner, of which outer x inner is stored; else None.
    """

    shape: tuple[int, ...]
    data: np.ndarray
    lane: tuple[int, int, int] | None

    @staticmethod
    def of(e: Expr, shape: Sequence[int] = ()) -> Symbolic:
        """One expression everywhere."""
        data = np.empty((1,) * len(shape), dtype=object)
        data[...] = e
        return Symbolic(tuple(shape), data, None)

    def _stored(self) -> tuple[int, ...]:
        """The shape of the data with nothing left implicit but the samples."""
        shape = list(self.shape)
        if self.lane is not None:
            axis, outer, inner = self.lane
            shape[axis] = outer * inner
        return tuple(shape)

    def spread(self) -> np.ndarray:
        """The data with nothing left implicit but the samples."""
        return np.broadcast_to(self.data, self._stored())


def _mixes(what: str) -> CannotCompile:
    return CannotCompile(f"the kernel engine takes every sample by itself, and the field {what}")


def _promoted(x: Symbolic, samples: int) -> Symbolic:
    """With a uniform axis as long as the batch read as the batch, so that it is never written out."""
    if x.lane is None and samples > 1:
        for axis, (size, stored) in enumerate(zip(x.shape, x.data.shape, strict=True)):
            if size == samples and stored == 1:
                return x._replace(lane=(axis, 1, 1))
    return x


def elementwise(fn: Callable[..., Expr], args: Sequence[Symbolic]) -> Symbolic:
    """fn entry by entry, with broadcasting."""
    ndim = max(len(a.shape) for a in args)
    args = [_padded(a, ndim) for a in args]
    shape = tuple(_common([a.shape[i] for a in args]) for i in range(ndim))
    lanes = {a.lane for a in args if a.lane is not None}
    if len(lanes) > 1:
        raise _mixes("combines different samples")
    lane = next(iter(lanes), None)
    if lane is not None and any(a.lane is None and a.data.shape[lane[0]] != 1 for a in args):
        raise _mixes("combines the samples with a tensor as long as the batch that is not one value a sample")
    arrays = np.broadcast_arrays(*(a.data for a in args))
    data = np.empty(arrays[0].shape, dtype=object)
    for index in np.ndindex(data.shape):
        data[index] = fn(*(a[index] for a in arrays))
    return Symbolic(shape, data, lane)


def _common(sizes: list[int]) -> int:
    """The broadcast size."""
    return next((s for s in sizes if s != 1), 1)


def _padded(x: Symbolic, ndim: int) -> Symbolic:
    """With axes of length 1 in front."""
    more = ndim - len(x.shape)
    lane = None if x.lane is None else (x.lane[0] + more, *x.lane[1:])
    return Symbolic((1,) * more + x.shape, x.data.reshape((1,) * more + x.data.shape), lane)


def expand(x: Symbolic, sizes: Sequence[int]) -> Symbolic:
    """torch.Tensor.expand."""
    x = _padded(x, len(sizes))
    return x._replace(shape=tuple(n if s == -1 else s for s, n in zip(sizes, x.shape, strict=True)))


def permute(x: Symbolic, dims: Sequence[int]) -> Symbolic:
    """torch.permute."""
    dims = [d % len(x.shape) for d in dims]
    lane = None if x.lane is None else (dims.index(x.lane[0]), *x.lane[1:])
    return Symbolic(tuple(x.shape[d] for d in dims), x.data.transpose(dims), lane)


def view(x: Symbolic, shape: Sequence[int], samples: int) -> Symbolic:
    """torch.Tensor.view to a shape without -1."""
    shape = tuple(shape)
    x = _promoted(x, samples)
    if x.lane is None:
        if x.data.size == 1:
            return Symbolic(shape, x.data.reshape((1,) * len(shape)), None)
        return Symbolic(shape, x.spread().reshape(shape), None)
    axis, outer, inner = x.lane
    before = math.prod(x.shape[:axis]) * outer
    after = inner * math.prod(x.shape[axis + 1 :])
    for q, size in enumerate(shape):
        front, back = math.prod(shape[:q]), math.prod(shape[q + 1 :])
        if size % samples == 0 and front and back and before % front == 0 and after % back == 0:
            lane = (q, before // front, after // back)
            stored = (*shape[:q], lane[1] * lane[2], *shape[q + 1 :])
            return Symbolic(shape, x.spread().reshape(stored), lane)
    raise _mixes("splits the batch into several axes")


def take(x: Symbolic, dim: int, entries: Sequence[int]) -> Symbolic:
    """The entries of an axis, in this order."""
    dim %= len(x.shape)
    entries = list(entries)
    shape = (*x.shape[:dim], len(entries), *x.shape[dim + 1 :])
    if x.lane is not None and x.lane[0] == dim:
        if entries != list(range(x.shape[dim])):
            raise _mixes("picks some samples out of the batch")
        return x
    data = x.data if x.data.shape[dim] == 1 else np.take(x.data, entries, axis=dim)
    return Symbolic(shape, data, x.lane)


def select(x: Symbolic, dim: int, index: int) -> Symbolic:
    """torch.select: one entry of an axis, which goes."""
    dim %= len(x.shape)
    if x.lane is not None and x.lane[0] == dim:
        raise _mixes("picks a sample out of the batch")
    x = take(x, dim, [index % x.shape[dim]])
    lane = x.lane if x.lane is None or x.lane[0] < dim else (x.lane[0] - 1, *x.lane[1:])
    shape = (*x.shape[:dim], *x.shape[dim + 1 :])
    return Symbolic(shape, x.data.reshape((*x.data.shape[:dim], *x.data.shape[dim + 1 :])), lane)


def unsqueeze(x: Symbolic, dim: int) -> Symbolic:
    """torch.unsqueeze."""
    dim %= len(x.shape) + 1
    lane = x.lane if x.lane is None or x.lane[0] < dim else (x.lane[0] + 1, *x.lane[1:])
    return Symbolic((*x.shape[:dim], 1, *x.shape[dim:]), np.expand_dims(x.data, dim), lane)


def concatenate(parts: Sequence[Symbolic], dim: int, samples: int) -> Symbolic:
    """torch.cat."""
    parts = [p for p in parts if p.shape != (0,)]
    dim %= len(parts[0].shape)
    lane = next((p.lane for p in parts if p.lane is not None), None) or _shared_lane(parts, dim, samples)
    parts = [_with_lane(p, lane) for p in parts]
    lanes = {p.lane for p in parts}
    lane = next(iter(lanes))
    if len(lanes) > 1 or (lane is not None and lane[0] == dim):
        raise _mixes("joins samples with something that is not a sample")
    data = np.concatenate([p.spread() for p in parts], axis=dim)
    length = sum(p.shape[dim] for p in parts)
    return Symbolic((*parts[0].shape[:dim], length, *parts[0].shape[dim + 1 :]), data, lane)


def _shared_lane(parts: Sequence[Symbolic], dim: int, samples: int) -> tuple[int, int, int] | None:
    """An axis beside `dim` as long as the batch along which no part varies: never written out."""
    for axis, size in enumerate(parts[0].shape):
        if axis != dim and size == samples > 1 and all(p.data.shape[axis] == 1 for p in parts):
            return axis, 1, 1
    return None


def _with_lane(x: Symbolic, lane: tuple[int, int, int] | None) -> Symbolic:
    """The same, its uniform batch axis marked as the one of its companions."""
    if lane is None or x.lane is not None or x.data.shape[lane[0]] != 1:
        return x
    return x._replace(lane=lane)


def reduce(fn: Callable[[Expr, Expr], Expr], x: Symbolic, dims: Sequence[int], keep: bool) -> Symbolic:
    """fold fn over axes (all of them, if none are named)."""
    ndim = len(x.shape)
    dims = sorted({d % ndim for d in dims} if len(dims) else range(ndim), reverse=True)
    if x.lane is not None and x.lane[0] in dims:
        raise _mixes("reduces over the batch")
    for dim in dims:
        if x.shape[dim] > _LONGEST:
            raise CannotCompile(f"the kernel engine unrolls sums, and {x.shape[dim]} terms are too many")
        parts = [select(x, dim, i) for i in range(x.shape[dim])]
        total = parts[0]
        for part in parts[1:]:
            total = elementwise(fn, [total, part])
        x = unsqueeze(total, dim) if keep else total
    return x


def scatter_slice(x: Symbolic, source: Symbolic, dim: int, entries: Sequence[int], samples: int) -> Symbolic:
    """x with these entries of an axis replaced by those of the source."""
    dim %= len(x.shape)
    where: dict[int, Any] = {e: i for i, e in enumerate(entries)}
    if list(entries) == list(range(x.shape[dim])):
        return source
    if x.lane is not None and x.lane[0] == dim:
        raise _mixes("writes to some samples of the batch")
    parts = [take(source, dim, [where[i]]) if i in where else take(x, dim, [i]) for i in range(x.shape[dim])]
    return concatenate(parts, dim, samples)
