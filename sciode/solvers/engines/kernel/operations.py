"""What each operation of an aten graph does to tensors of expressions."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from ..lift import CannotCompile
from . import symbolic as sym
from .expressions import NARROW, Algebra, Expr
from .symbolic import Symbolic

__all__ = ["POINTWISE", "Interpreter", "input_kind", "kind_of"]

aten = torch.ops.aten

_MOST_PRODUCTS = 4096
"""Multiplications of the matrix products of one evaluation: all are unrolled."""
_LARGEST_CONSTANT = 4096
_UNARY = {
    name: name
    for name in (
        "neg", "exp", "log", "sin", "cos", "tan", "tanh", "sigmoid", "sqrt", "rsqrt", "abs", "sign", "erf", "log1p",
        "expm1", "floor", "ceil",
    )
}  # fmt: skip
_BINARY = {"add": "add", "sub": "sub", "mul": "mul", "div": "div", "maximum": "maximum", "minimum": "minimum"}
_COMPARE = {name: name for name in ("lt", "le", "gt", "ge", "eq", "ne")}
_LOGIC = {"logical_and": "and", "logical_or": "or", "bitwise_and": "and", "bitwise_or": "or"}
_SAME = ("alias", "detach", "clone", "lift_fresh_copy", "contiguous", "lift_fresh", "_to_copy", "view_as_real_copy")


class Interpreter:
    """Runs an aten graph on `Symbolic` tensors of `samples` samples."""

    def __init__(self, algebra: Algebra, samples: int) -> None:
        self.algebra = algebra
        self.samples = samples
        self.products = 0

    def run(self, graph: fx.GraphModule, inputs: Sequence[Symbolic]) -> list[Symbolic]:
        """The graph's outputs. Raises CannotCompile, naming the operation."""
        known: dict[fx.Node, Any] = {}
        given = iter(inputs)
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                known[node] = next(given)
            elif node.op == "get_attr":
                known[node] = self.constant(getattr(graph, node.target))
            elif node.op == "output":
                return [self._read(x, known) for x in node.args[0]]
            else:
                known[node] = self._call(node, known)
        raise AssertionError("a graph without an output")

    def constant(self, value: Tensor) -> Symbolic:
        """A tensor whose numbers are known."""
        if value.numel() > _LARGEST_CONSTANT or value.is_complex():
            raise CannotCompile(f"the kernel engine cannot hold a constant of shape {[*value.shape]}, {value.dtype}")
        data = np.empty(tuple(value.shape), dtype=object)
        for index in np.ndindex(data.shape):
            data[index] = self.algebra.const(value[index].item(), kind_of(value.dtype))
        return Symbolic(tuple(value.shape), data, None)

    def _read(self, x: Any, known: dict[fx.Node, Any]) -> Any:
        return fx.map_arg(x, lambda n: known[n])

    def _call(self, node: fx.Node, known: dict[fx.Node, Any]) -> Any:
        args, kwargs = self._read(list(node.args), known), self._read(dict(node.kwargs), known)
        if node.target is operator.getitem:
            return args[0][args[1]]
        packet = getattr(node.target, "overloadpacket", None)
        name = packet.__name__ if packet is not None else str(node.target)
        value = node.meta.get("val")
        handler = _HANDLERS.get(name)
        if handler is None:
            raise CannotCompile(f"the kernel engine cannot trace {node.target}")
        try:
            found = handler(self, name, value, args, kwargs)
            if isinstance(found, Symbolic) and isinstance(value, Tensor) and value.dtype in NARROW:
                return sym.elementwise(lambda e: self.algebra.wrapped(e, value.dtype), [found])
            return found
        except (IndexError, TypeError, ValueError, KeyError, NotImplementedError) as error:
            raise CannotCompile(f"the kernel engine cannot trace {node.target} as it is used here: {error}") from error

    def scalar(self, x: Any, dtype: torch.dtype) -> Symbolic:
        """An argument, a tensor or a Python number, in this dtype."""
        if isinstance(x, Symbolic):
            return sym.elementwise(lambda e: self.algebra.cast(e, dtype), [x])
        return Symbolic.of(self.algebra.const(x, dtype))

    def pointwise(self, op: str, args: Sequence[Any], inner: torch.dtype, outer: torch.dtype | None = None) -> Symbolic:
        """An operation entry by entry: arguments in dtype `inner`, the result in `outer`."""
        result = outer or inner
        return sym.elementwise(lambda *e: self.algebra(op, e, result), [self.scalar(a, inner) for a in args])


def kind_of(dtype: torch.dtype) -> torch.dtype:
    """The dtype expressions have for tensors of this one."""
    if dtype in (torch.float32, torch.float64, torch.bool):
        return dtype
    if dtype == torch.int64 or dtype in NARROW:
        return torch.int64
    raise CannotCompile(f"the kernel engine does not compute in {dtype}")


def input_kind(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a kernel reads an input of this one."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else kind_of(dtype)


def _dtype_of(args: Sequence[Any]) -> torch.dtype:
    """The dtype in which arguments meet in a comparison."""
    tensors = [a for a in args if isinstance(a, Symbolic)]
    dtypes = [a.data.flat[0].dtype for a in tensors]
    common = functools.reduce(torch.promote_types, dtypes)
    if not common.is_floating_point and any(isinstance(a, float) for a in args):
        return torch.float64
    return torch.int64 if common == torch.bool and any(type(a) is int for a in args) else common


POINTWISE = frozenset((
    *_UNARY, *_BINARY, *_COMPARE, *_LOGIC, *_SAME, "rsub", "logical_not", "bitwise_not", "relu", "reciprocal", "clamp",
    "clamp_min", "clamp_max", "where", "remainder", "fmod", "pow", "convert_element_type", "full_like", "zeros_like",
    "ones_like", "empty_like",
))  # fmt: skip
"""Operations that work entry by entry."""

Handler = Callable[[Interpreter, str, Any, list[Any], dict[str, Any]], Any]
_HANDLERS: dict[str, Handler] = {}


def _on(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        for name in names:
            _HANDLERS[name] = handler
        return handler

    return register


@_on(*_UNARY)
def _unary(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    return it.pointwise(_UNARY[name], args[:1], kind_of(value.dtype))


@_on(*_BINARY)
def _binary(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    dtype = kind_of(value.dtype)
    alpha = kwargs.get("alpha", 1)
    if name == "div" and kwargs.get("rounding_mode") is not None:
        raise CannotCompile("the kernel engine cannot trace aten.div with a rounding mode")
    if alpha != 1:
        args = [args[0], it.pointwise("mul", [args[1], alpha], dtype)]
    return it.pointwise(_BINARY[name], args, dtype)


@_on("rsub")
def _rsub(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    return _binary(it, "sub", value, [args[1], args[0]], kwargs)


@_on(*_COMPARE)
def _compare(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    return it.pointwise(_COMPARE[name], args, _dtype_of(args), torch.bool)


@_on(*_LOGIC)
def _logic(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    if name.startswith("bitwise") and value.dtype != torch.bool:
        raise CannotCompile(f"the kernel engine cannot trace aten.{name} of integers")
    return it.pointwise(_LOGIC[name], args, torch.bool)


@_on("logical_not", "bitwise_not")
def _not(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    return it.pointwise("not", args, torch.bool)


@_on("relu")
def _relu(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    return it.pointwise("maximum", [args[0], 0.0], kind_of(value.dtype))


@_on("reciprocal")
def _reciprocal(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    return it.pointwise("div", [1.0, args[0]], kind_of(value.dtype))


@_on("clamp", "clamp_min", "clamp_max")
def _clamp(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    low = kwargs.get("min", args[1] if len(args) > 1 and name != "clamp_max" else None)
    high = kwargs.get("max", args[-1] if (len(args) > 2 or name == "clamp_max") else None)
    out = it.scalar(args[0], kind_of(value.dtype))
    if low is not None:
        out = it.pointwise("maximum", [out, low], kind_of(value.dtype))
    return out if high is None else it.pointwise("minimum", [out, high], kind_of(value.dtype))


@_on("where")
def _where(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    dtype = kind_of(value.dtype)
    three = [it.scalar(args[0], torch.bool), it.scalar(args[1], dtype), it.scalar(args[2], dtype)]
    return sym.elementwise(lambda *e: it.algebra("where", e, dtype), three)


@_on("remainder", "fmod")
def _remainder(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    dtype = kind_of(value.dtype)
    if not dtype.is_floating_point:
        raise CannotCompile(f"the kernel engine cannot trace aten.{name} of integers")
    rest = it.pointwise("fmod", args, dtype)
    if name == "fmod":
        return rest
    # With the sign of the divisor.
    below = [it.pointwise("lt", [x, 0.0], dtype, torch.bool) for x in (rest, args[1])]
    other = it.pointwise("ne", below, torch.bool)
    moved = it.pointwise("and", [it.pointwise("ne", [rest, 0.0], dtype, torch.bool), other], torch.bool)
    return _where(it, "where", value, [moved, it.pointwise("add", [rest, args[1]], dtype), rest], {})


@_on("pow")
def _pow(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    dtype = kind_of(value.dtype)
    base, exponent = it.scalar(args[0], dtype), it.scalar(args[1], dtype)
    return sym.elementwise(functools.partial(_power, it.algebra, dtype), [base, exponent])


def _power(algebra: Algebra, dtype: torch.dtype, base: Expr, exponent: Expr) -> Expr:
    """Small whole and half powers by multiplication: exact for negative bases, and fast."""
    n = exponent.value if exponent.constant else None
    if n is None or base.constant or abs(n) > 8 or n * 2 != int(n * 2):
        return algebra("pow", (base, exponent), dtype)
    whole = int(abs(n))
    factors = [base] * whole if abs(n) == whole else [algebra("sqrt", (base,), dtype), *[base] * whole]
    result = algebra.const(1, dtype)
    for factor in factors:
        result = algebra("mul", (result, factor), dtype)
    return result if n >= 0 else algebra("div", (algebra.const(1, dtype), result), dtype)


@_on(*_SAME, "convert_element_type", "copy")
def _same(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    source = sym.expand(args[1], value.shape) if name == "copy" else args[0]
    return it.scalar(source, kind_of(value.dtype))


@_on("full", "full_like", "zeros", "zeros_like", "ones", "ones_like", "scalar_tensor", "empty", "empty_like",
     "new_zeros", "new_ones", "new_full", "new_empty", "empty_strided", "new_empty_strided")  # fmt: skip
def _filled(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    fill = 1 if "ones" in name else 0
    if name == "scalar_tensor":
        fill = args[0]
    elif "full" in name:
        fill = args[-1]
    if isinstance(fill, Symbolic):
        return sym.expand(it.scalar(fill, kind_of(value.dtype)), value.shape)
    return Symbolic.of(it.algebra.const(fill, kind_of(value.dtype)), tuple(value.shape))


@_on("arange", "eye", "iota", "linspace")
def _numbers(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    kwargs = {k: v for k, v in kwargs.items() if k not in ("device", "pin_memory", "layout")}
    if value.numel() > _LARGEST_CONSTANT:
        raise CannotCompile(f"the kernel engine cannot hold an aten.{name} of shape {[*value.shape]}")
    return it.constant(getattr(torch, name)(*args, **kwargs).to(value.dtype))


@_on("view", "reshape", "_unsafe_view", "_reshape_copy", "view_copy")
def _view(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    return sym.view(args[0], tuple(value.shape), it.samples)


@_on("permute", "t", "transpose")
def _permute(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    x, dims = args[0], list(range(len(args[0].shape)))
    if name == "permute":
        dims = list(args[1])
    elif name == "t":
        dims = dims[::-1]
    else:
        a, b = args[1] % len(dims), args[2] % len(dims)
        dims[a], dims[b] = dims[b], dims[a]
    return sym.permute(x, dims)


@_on("expand")
def _expand(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    return sym.expand(args[0], tuple(value.shape))


@_on("unsqueeze")
def _unsqueeze(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    return sym.unsqueeze(args[0], args[1])


@_on("squeeze")
def _squeeze(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    x = args[0]
    dims = range(len(x.shape)) if len(args) < 2 else ([args[1]] if isinstance(args[1], int) else args[1])
    for dim in sorted({d % len(x.shape) for d in dims if x.shape}, reverse=True):
        if x.shape[dim] == 1:
            x = sym.select(x, dim, 0)
    return x


@_on("select")
def _select(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    return sym.select(args[0], args[1], args[2])


def _entries(size: int, args: list[Any]) -> range:
    start, end, step = ([*args, None, None, None])[:3]
    return range(*slice(start, end, step).indices(size))


@_on("slice")
def _slice(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    x, dim = args[0], args[1] if len(args) > 1 else 0
    entries = _entries(x.shape[dim], args[2:])
    # A batch may be long, and is nearly always taken whole.
    return x if len(entries) == x.shape[dim] and entries.step == 1 else sym.take(x, dim, entries)


@_on("select_scatter")
def _select_scatter(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    x, source, dim, index = args
    return sym.scatter_slice(x, sym.unsqueeze(source, dim % len(x.shape)), dim, [index % x.shape[dim]], it.samples)


@_on("slice_scatter")
def _slice_scatter(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    x, source, dim = args[0], args[1], args[2] if len(args) > 2 else 0
    entries = _entries(x.shape[dim], args[3:])
    if len(entries) == x.shape[dim] and entries.step == 1:
        return source
    return sym.scatter_slice(x, source, dim, entries, it.samples)


@_on("flip")
def _flip(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    x = args[0]
    for dim in args[1]:
        x = sym.take(x, dim, range(x.shape[dim] - 1, -1, -1))
    return x


@_on("roll")
def _roll(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    x, shifts = args[0], args[1]
    if len(args) < 3 or not args[2]:
        raise CannotCompile("the kernel engine cannot trace aten.roll without dims")
    for shift, dim in zip(shifts, args[2], strict=True):
        size = x.shape[dim]
        x = sym.take(x, dim, [(i - shift) % size for i in range(size)])
    return x


@_on("index_select", "index")
def _index(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    x = args[0]
    indices = {args[1]: args[2]} if name == "index_select" else {d: i for d, i in enumerate(args[1]) if i is not None}
    if len(indices) > 1:
        raise CannotCompile(f"the kernel engine cannot trace aten.{name} with several index tensors")
    ((dim, index),) = indices.items()
    numbers = index.spread()
    if index.lane is not None or numbers.ndim != 1 or not all(e.constant and e.dtype == torch.int64 for e in numbers):
        raise CannotCompile(f"the kernel engine cannot trace aten.{name} by an index that is not a constant vector")
    return sym.take(x, dim, [e.value % x.shape[dim] for e in numbers])


@_on("cat")
def _cat(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    parts = [it.scalar(p, kind_of(value.dtype)) for p in args[0]]
    return sym.concatenate(parts, args[1] if len(args) > 1 else kwargs.get("dim", 0), it.samples)


@_on("stack")
def _stack(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % len(value.shape)
    return sym.concatenate([sym.unsqueeze(it.scalar(p, kind_of(value.dtype)), dim) for p in args[0]], dim, it.samples)


@_on("unbind")
def _unbind(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> list[Symbolic]:
    x, dim = args[0], args[1] if len(args) > 1 else 0
    return [sym.select(x, dim, i) for i in range(x.shape[dim])]


@_on("split", "split_with_sizes")
def _split(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> list[Symbolic]:
    x, sizes, dim = args[0], args[1], args[2] if len(args) > 2 else 0
    size = x.shape[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, size - i) for i in range(0, size, sizes)]
    starts = np.cumsum([0, *sizes])
    return [sym.take(x, dim, range(a, b)) for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)]


_REDUCTIONS = {"sum": "add", "mean": "add", "prod": "mul", "amax": "maximum", "amin": "minimum", "any": "or",
               "all": "and"}  # fmt: skip


@_on(*_REDUCTIONS)
def _reduction(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    dtype, op = kind_of(value.dtype), _REDUCTIONS[name]
    x = it.scalar(args[0], dtype)
    dims = args[1] if len(args) > 1 and args[1] is not None else []
    keep = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
    total = sym.reduce(lambda a, b: it.algebra(op, (a, b), dtype), x, [dims] if isinstance(dims, int) else dims, keep)
    if name != "mean":
        return total
    count = int(np.prod(x.shape)) // max(int(np.prod(total.shape)), 1)
    return it.pointwise("mul", [total, 1 / count], dtype)


def _product(it: Interpreter, a: Symbolic, b: Symbolic, contracted: int, dtype: torch.dtype) -> Symbolic:
    """Sum over an axis of a product of two tensors that broadcast."""
    terms = it.pointwise("mul", [a, b], dtype)
    it.products += terms.data.size
    if it.products > _MOST_PRODUCTS:
        raise CannotCompile(
            f"the kernel engine unrolls matrix products, at most {_MOST_PRODUCTS} multiplications an evaluation"
        )
    return sym.reduce(lambda x, y: it.algebra("add", (x, y), dtype), terms, [contracted], False)


@_on("mm", "bmm", "mv", "dot")
def _matmul(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    a, b = args
    dtype = kind_of(value.dtype)
    if name in ("mv", "dot"):
        return _product(it, a, b, -1, dtype)
    return _product(it, sym.unsqueeze(a, -1), sym.unsqueeze(b, -3), -2, dtype)


@_on("addmm", "baddbmm")
def _addmm(it: Interpreter, name: str, value: Any, args: list[Any], kwargs: dict[str, Any]) -> Symbolic:
    dtype = kind_of(value.dtype)
    product = _matmul(it, "mm", value, args[1:3], {})
    alpha, beta = kwargs.get("alpha", 1), kwargs.get("beta", 1)
    product = product if alpha == 1 else it.pointwise("mul", [product, alpha], dtype)
    bias = args[0] if beta == 1 else it.pointwise("mul", [args[0], beta], dtype)
    return it.pointwise("add", [product, bias], dtype)
