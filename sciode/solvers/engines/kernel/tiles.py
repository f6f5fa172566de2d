"""A field as arithmetic of tiles: vectors keep their columns together, and linear layers are matrix products.

A tensor's last axis is one `Expr` as wide as the axis, or several side by side where tensors were joined. Such tensors
go through pointwise operations, linear layers, joins and sums along the axis; whatever else is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx

from ..lift import CannotCompile
from . import symbolic as sym
from .expressions import Algebra, Expr
from .frame import padded
from .operations import POINTWISE, Interpreter, kind_of
from .symbolic import Symbolic
from .trace import Formula, Reader

__all__ = ["TileReader"]

_MOST_BYTES = 160 * 1024
"""Weights that stay on chip: a multiprocessor has 228 KiB of cache and 256 KiB of registers."""
_MOST_PIECES = 16
"""Columns of which each is a number of its own."""


@dataclass(frozen=True)
class Panel:
    """A piece rows x columns of input `index`: entry (i, j) at offset + i down + j across; rows are samples if `apart`.

    bytes: what it takes on chip, with its padding.
    """

    index: int
    offset: int
    rows: int
    columns: int
    down: int
    across: int
    apart: bool
    bytes: int

    def spell(self, pointer: str) -> str:
        """Text that loads it, its padding as zeros."""
        place, masks = f"{pointer} + {self.offset}", []
        if self.apart:
            place, masks = f"{place} + lane[:, None] * {self.down}", ["inside[:, None]"]
        for size, stride, axis in (
            (0 if self.apart else self.rows, self.down, "[:, None]"),
            (self.columns, self.across, "[None, :]"),
        ):
            if size > 1:
                entries = f"tl.arange(0, {padded(size)}){axis}"
                place += f" + {entries} * {stride}"
                masks += [f"({entries} < {size})"] if padded(size) > size else []
        return f"tl.load({place}, mask={' & '.join(masks)}, other=0)" if masks else f"tl.load({place})"


class Matrix(NamedTuple):
    """A matrix that all samples share, as it lies in an input: never written out, only multiplied by."""

    index: int
    shape: tuple[int, int]
    offset: int
    down: int
    across: int
    dtype: torch.dtype

    @property
    def swapped(self) -> Matrix:
        """Its transpose."""
        return self._replace(shape=self.shape[::-1], down=self.across, across=self.down)


class TileInterpreter(Interpreter):
    """Runs an aten graph on tensors whose last axis stays together."""

    def __init__(self, algebra: Algebra, samples: int) -> None:
        super().__init__(algebra, samples)
        self.sources: dict[str, Panel] = {}

    def leaf(self, panel: Panel, dtype: torch.dtype) -> Expr:
        """The expression of a piece of an input."""
        name = f"p{panel.index}_{panel.offset}_{panel.rows}_{panel.columns}_{panel.down}_{panel.across}"
        self.sources[name] = panel
        return self.algebra.leaf(name, dtype, False, panel.apart, panel.columns)

    def piece(self, m: Matrix, first: int, rows: int) -> Expr:
        """Rows of a matrix, as what a product needs."""
        return self.leaf(
            panel_of(m.index, m.offset + first * m.down, (rows, m.shape[1]), m.down, m.across, m.dtype), m.dtype
        )

    def trimmed(self, e: Expr) -> Expr:
        """e, its padding zero."""
        return e if e.trim or padded(e.width) == e.width else self.algebra.node("trim", (e,), e.dtype, e.width, True)

    def scalar(self, x: Any, dtype: torch.dtype) -> Symbolic:
        """An argument in this dtype; a matrix of one row is a row."""
        if isinstance(x, Matrix) and x.shape[0] == 1:
            return super().scalar(_row([self.piece(x, 0, 1)], Symbolic(x.shape, np.empty(0), None), x.shape[1]), dtype)
        return super().scalar(x, dtype)

    def _call(self, node: fx.Node, known: dict[fx.Node, Any]) -> Any:
        args: list[Any] = []
        fx.map_arg((node.args, node.kwargs), lambda n: args.append(known[n]))
        tensors = [a for a in args if isinstance(a, Symbolic)]
        matrices = [a for a in args if isinstance(a, Matrix)]
        if not matrices and not any(_wide(x) for x in tensors):
            return super()._call(node, known)
        packet = getattr(node.target, "overloadpacket", None)
        name = packet.__name__ if packet is not None else str(node.target)
        handler = _HANDLERS.get(name)
        if handler is not None:
            given = [self._read(list(node.args), known), self._read(dict(node.kwargs), known)]
            return handler(self, name, node.meta.get("val"), *given)
        split = {tuple(e.width for e in x.data.reshape(-1)) for x in tensors if x.data.shape and x.data.shape[-1] > 1}
        joined = split | {
            (e.width,) for x in tensors for e in x.data.reshape(-1)[:1] if e.width > 1 and x.data.size == 1
        }
        if any(m.shape[0] > 1 for m in matrices) or name not in POINTWISE or (split and len(joined) > 1):
            raise _refused(node.target)
        return super()._call(node, known)


def panel_of(index: int, offset: int, shape: tuple[int, int], down: int, across: int, dtype: torch.dtype) -> Panel:
    """A piece that all samples share."""
    size = dtype.itemsize * int(np.prod([padded(n) if n > 1 else 1 for n in shape]))
    return Panel(index, offset, *shape, down, across, False, size)


def _wide(x: Symbolic) -> bool:
    return any(e.width > 1 for e in x.data.reshape(-1))


def _refused(what: Any) -> CannotCompile:
    return CannotCompile(f"the kernel engine's tiles do not go through {what}")


def _pieces(x: Symbolic) -> list[Expr]:
    """The expressions along the last axis, together as wide as the axis."""
    if x.data.size != x.data.shape[-1]:
        raise _refused("tensors with several axes beside the batch")
    entries = list(x.data.reshape(-1))
    if len(entries) == 1 and entries[0].width == 1 < x.shape[-1]:
        if x.shape[-1] > _MOST_PIECES:
            raise _refused(f"a number repeated {x.shape[-1]} times")
        entries *= x.shape[-1]
    return entries


def _row(entries: Sequence[Expr], like: Symbolic, size: int) -> Symbolic:
    """A tensor with these expressions along its last axis."""
    data = np.empty(len(entries), dtype=object)
    data[:] = entries
    return Symbolic((*like.shape[:-1], size), data.reshape((1,) * (len(like.shape) - 1) + (-1,)), like.lane)


Handler = Callable[[TileInterpreter, str, Any, list[Any], dict[str, Any]], Any]
_HANDLERS: dict[str, Handler] = {}


def _on(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        _HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


@_on("t", "transpose", "permute")
def _transpose(it: TileInterpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Matrix:
    if not isinstance(args[0], Matrix):
        raise _refused(f"aten.{name}")
    same = name == "permute" and [d % 2 for d in args[1]] == [0, 1]
    return args[0] if same else args[0].swapped


@_on("mm")
def _linear(it: TileInterpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    """x W as a sum over the pieces of x: an outer product for a single column, a matrix product for a tile."""
    x, m = args
    if not isinstance(m, Matrix) or not isinstance(x, Symbolic) or x.lane not in ((0, 1, 1), None):
        raise _refused("a product that is not of samples with a matrix they share")
    alg, total, at, (_, outputs) = it.algebra, None, 0, m.shape
    for e in _pieces(x):
        if e.width > 1 and not e.lanes:
            raise _refused("a product of two tensors that all samples share")
        if outputs == 1 and e.width > 1:
            row = it.leaf(panel_of(m.index, m.offset + at * m.down, (1, e.width), 0, m.down, m.dtype), m.dtype)
            term = alg.node("rowsum", (it.trimmed(alg("mul", (e, row), m.dtype)),), m.dtype, 1, True)
        elif e.width == 1:
            term = alg("mul", (e, it.piece(m, at, 1)), m.dtype)
        else:
            term = alg.node("dot", (it.trimmed(e), it.piece(m, at, e.width)), m.dtype, outputs, True)
        total = term if total is None else alg("add", (total, term), m.dtype)
        at += e.width
    assert total is not None and at == m.shape[0]
    return _row([total], x, outputs)


@_on("addmm")
def _affine(it: TileInterpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    dtype = kind_of(value.dtype)
    product = _linear(it, name, value, args[1:3], {})
    scaled = [
        x if kwargs.get(factor, 1) == 1 else it.pointwise("mul", [x, kwargs[factor]], dtype)
        for x, factor in ((product, "alpha"), (args[0], "beta"))
    ]
    return it.pointwise("add", scaled, dtype)


@_on("cat")
def _join(it: TileInterpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    if dim % len(value.shape) != len(value.shape) - 1:
        raise _refused("aten.cat along another axis than the last")
    parts = [it.scalar(p, kind_of(value.dtype)) for p in args[0]]
    like = next((p for p in parts if p.lane is not None), parts[0])
    return _row([e for p in parts for e in _pieces(p)], like, value.shape[-1])


@_on("slice")
def _slice(it: TileInterpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic | Matrix:
    given: Any = (*args, *(0, None, None, None)[len(args) - 1 :])
    x, dim, start, end, step = given
    entries = range(*slice(start, end, step).indices(x.shape[dim]))
    if len(entries) == x.shape[dim] and entries.step == 1:
        return x
    if isinstance(x, Matrix):
        stride, shape = (x.down, x.across)[dim % 2], list(x.shape)
        shape[dim % 2] = len(entries)
        strides = {"down" if dim % 2 == 0 else "across": stride * entries.step}
        return x._replace(offset=x.offset + entries.start * stride, shape=tuple(shape), **strides)
    edges = np.cumsum([0, *(e.width for e in _pieces(x))]).tolist()
    if dim % len(x.shape) != len(x.shape) - 1 or entries.step != 1 or not {entries.start, entries.stop} <= set(edges):
        raise _refused("aten.slice, but along the seams of a join")
    return _row(_pieces(x)[edges.index(entries.start) : edges.index(entries.stop)], x, len(entries))


@_on("view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "expand")
def _view(it: TileInterpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    """Axes of length 1 may come and go before the last."""
    x, shape = args[0], tuple(value.shape)
    long = [n for n in shape[:-1] if n != 1]
    if isinstance(x, Matrix) or shape[-1:] != x.shape[-1:] or long not in ([it.samples] if it.samples > 1 else [], []):
        raise _refused(f"aten.{name} as it is used here")
    lane = (shape.index(it.samples), 1, 1) if x.lane is not None else None
    return Symbolic(shape, x.data.reshape((1,) * (len(shape) - 1) + (-1,)), lane)


@_on("sum", "mean")
def _sum(it: TileInterpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    x, dtype = it.scalar(args[0], kind_of(value.dtype)), kind_of(value.dtype)
    dims = [args[1]] if len(args) > 1 and isinstance(args[1], int) else (args[1] if len(args) > 1 else None)
    if not dims or [d % len(x.shape) for d in dims] != [len(x.shape) - 1]:
        raise _refused(f"aten.{name} over another axis than the last")
    alg, total = it.algebra, it.algebra.const(0, dtype)
    for e in _pieces(x):
        part = e if e.width == 1 else alg.node("rowsum", (it.trimmed(e),), dtype, 1, True)
        total = alg("add", (total, part), dtype)
    if name == "mean":
        total = alg("mul", (total, alg.const(1 / x.shape[-1], dtype)), dtype)
    keep = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
    found = _row([total], x, 1)
    return found if keep else sym.select(found, -1, 0)


class TileReader(Reader):
    """Gives every input its tiles, and takes the result as tiles."""

    def _interpreter(self) -> TileInterpreter:
        return TileInterpreter(self.algebra, self.samples)

    def _input(self, it: Interpreter, i: int, x: Tensor, how: str) -> Symbolic | Matrix:
        assert isinstance(it, TileInterpreter)
        if how == "time":
            return super()._input(it, i, x, how)
        lane, shape = self._lane(0), tuple(x.shape)
        if how == "state":
            if shape[1] == 1:
                raise CannotCompile("the kernel engine's tiles hold states of two components or more")
            return _row(
                [self.algebra.leaf("y_0", self.real, True, True, shape[1])],
                Symbolic(shape, np.empty(1), lane),
                shape[1],
            )
        size = int(np.prod(shape[1:])) if how == "apart" else x.numel()
        like = Symbolic(shape, np.empty(0), lane if how == "apart" else None)
        kind = kind_of(x.dtype)
        if how == "apart" and len(shape) < 3:
            panel = Panel(i, 0, 1, size, size, 1, True, 0)
            leaf = it.leaf(panel, kind)
            return _row([leaf], like, x.shape[-1])
        if how == "shared" and len(shape) == 2 and kind == self.real:
            return Matrix(i, shape, 0, shape[1], 1, kind)
        if how == "shared" and (not shape or shape[-1] == size):
            leaf = it.leaf(panel_of(i, 0, (1, size), 0, 1, kind), kind)
            return _row([leaf], like, size) if shape else Symbolic.of(leaf)
        raise _refused(f"an input of shape {[*shape]}")

    def _formula(self, it: Interpreter, outputs: list[Symbolic]) -> Formula:
        assert isinstance(it, TileInterpreter)
        columns = self.size
        pieces = [self._tile(it, x, columns) for x in outputs]
        weights = sum(p.bytes for p in it.sources.values())
        if weights > _MOST_BYTES:
            raise CannotCompile(
                f"the kernel engine keeps weights on chip, and {weights // 1024} KiB, with their padding, are more "
                f"than {_MOST_BYTES // 1024} KiB"
            )
        return Formula((pieces[0],), ((pieces[1],),) if len(pieces) > 1 else None, dict(it.sources), tiled=True)

    def _tile(self, it: TileInterpreter, x: Symbolic, columns: int) -> Expr:
        """What the field returned as one tile with nothing in its padding."""
        if len(x.shape) != 2 or x.lane not in (None, (0, 1, 1)) or x.data.size != 1:
            raise _refused("what the field returns: not one tile")
        (e,) = x.data.reshape(-1)
        if e.constant and e.value != 0:
            e = it.algebra.node("row", (e,), e.dtype, columns, False)
        if e.width == 1 and not e.constant:
            return it.algebra.node("trim", (e,), e.dtype, columns, True)
        return it.trimmed(e)
