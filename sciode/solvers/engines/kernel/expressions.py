"""Scalar expressions of one sample: built once each, folded where constant, written out as Triton functions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ..lift import CannotCompile
from .frame import padded

__all__ = [
    "DIALECTS",
    "NARROW",
    "Algebra",
    "Expr",
    "Operation",
    "Written",
    "literal",
    "names_of",
    "write",
    "write_values",
]


@dataclass(frozen=True, eq=False)
class Expr:
    """A node: `op` applied to `args`; a "const" holds its value, a "leaf" its name.

    varies: it depends on time or state, so every stage computes it anew; lanes: it differs between samples; width: how
    many columns of a tile it has, 1 for one number a sample; trim: whether the padding of its tile is zero.
    """

    op: str
    args: tuple[Any, ...]
    dtype: torch.dtype
    varies: bool
    lanes: bool
    width: int = 1
    trim: bool = True

    @property
    def constant(self) -> bool:
        """Whether its value is known when the kernel is written."""
        return self.op == "const"

    @property
    def value(self) -> Any:
        """The value of a constant."""
        assert self.constant
        return self.args[0]


class Operation(NamedTuple):
    """Triton text of an operation on {0}, {1}, ... and the same on tensors, for constants."""

    text: str
    fold: Callable[..., torch.Tensor]


def _nan_aware(sign: str) -> str:
    return f"tl.where(({{0}} {sign} {{1}}) | ({{0}} != {{0}}), {{0}}, {{1}})"


NARROW = {torch.int32: "int32", torch.int16: "int16", torch.int8: "int8", torch.uint8: "uint8"}
"""Integers that wrap around earlier than those in which all are computed."""
_SHARED: dict[str, Operation] = {
    "add": Operation("({0} + {1})", torch.add),
    "sub": Operation("({0} - {1})", torch.sub),
    "mul": Operation("({0} * {1})", torch.mul),
    "div": Operation("({0} / {1})", torch.div),
    "neg": Operation("(-{0})", torch.neg),
    "abs": Operation("tl.abs({0})", torch.abs),
    "sign": Operation("(({0} > 0).to({real}) - ({0} < 0).to({real}))", torch.sign),
    "maximum": Operation(_nan_aware(">"), torch.maximum),
    "minimum": Operation(_nan_aware("<"), torch.minimum),
    "floor": Operation("tl.floor({0})", torch.floor),
    "ceil": Operation("tl.ceil({0})", torch.ceil),
    "lt": Operation("({0} < {1})", torch.lt),
    "le": Operation("({0} <= {1})", torch.le),
    "gt": Operation("({0} > {1})", torch.gt),
    "ge": Operation("({0} >= {1})", torch.ge),
    "eq": Operation("({0} == {1})", torch.eq),
    "ne": Operation("({0} != {1})", torch.ne),
    "and": Operation("({0} & {1})", torch.logical_and),
    "or": Operation("({0} | {1})", torch.logical_or),
    "not": Operation("({0} == 0)", torch.logical_not),
    "where": Operation("tl.where({0}, {1}, {2})", torch.where),
    "cast": Operation("{0}.to({real})", lambda x: x),
    **{
        f"as_{name}": Operation(f"{{0}}.to(tl.{name}).to(tl.int64)", lambda x, kind=kind: x.to(kind).to(torch.int64))
        for kind, name in NARROW.items()
    },
}

# Of tiles, and never of constants.
_TILED: dict[str, Operation] = {
    "dot": Operation('tl.dot({0}, {1}, input_precision="ieee", out_dtype={real})', torch.matmul),
    "rowsum": Operation("tl.sum({0}, axis=1, keep_dims=True)", torch.sum),
    "row": Operation("tl.full([1, {pad}], {0}, {real})", torch.clone),
    "trim": Operation("tl.where(tl.arange(0, {pad})[None, :] < {width}, {0}, 0.0)", torch.clone),
}

_NATIVE: dict[str, Operation] = {
    "exp": Operation("libdevice.exp({0})", torch.exp),
    "log": Operation("libdevice.log({0})", torch.log),
    "sin": Operation("libdevice.sin({0})", torch.sin),
    "cos": Operation("libdevice.cos({0})", torch.cos),
    "tan": Operation("libdevice.tan({0})", torch.tan),
    "tanh": Operation("libdevice.tanh({0})", torch.tanh),
    "sigmoid": Operation("(1.0 / (1.0 + libdevice.exp(-{0})))", torch.sigmoid),
    "sqrt": Operation("libdevice.sqrt({0})", torch.sqrt),
    "rsqrt": Operation("libdevice.rsqrt({0})", torch.rsqrt),
    "erf": Operation("libdevice.erf({0})", torch.erf),
    "log1p": Operation("libdevice.log1p({0})", torch.log1p),
    "expm1": Operation("libdevice.expm1({0})", torch.expm1),
    "pow": Operation("libdevice.pow({0}, {1})", torch.pow),
    "fmod": Operation("libdevice.fmod({0}, {1})", torch.fmod),
}

# What Triton's interpreter, which has no libdevice, understands.
_PORTABLE: dict[str, Operation] = {
    "exp": Operation("tl.exp({0})", torch.exp),
    "log": Operation("tl.log({0})", torch.log),
    "sin": Operation("tl.sin({0})", torch.sin),
    "cos": Operation("tl.cos({0})", torch.cos),
    "tan": Operation("(tl.sin({0}) / tl.cos({0}))", torch.tan),
    "tanh": Operation("(1.0 - 2.0 / (1.0 + tl.exp(2.0 * {0})))", torch.tanh),
    "sigmoid": Operation("(1.0 / (1.0 + tl.exp(-{0})))", torch.sigmoid),
    "sqrt": Operation("tl.sqrt({0})", torch.sqrt),
    "rsqrt": Operation("(1.0 / tl.sqrt({0}))", torch.rsqrt),
    "erf": Operation("tl.erf({0})", torch.erf),
    "log1p": Operation("tl.log(1.0 + {0})", torch.log1p),
    "expm1": Operation("(tl.exp({0}) - 1.0)", torch.expm1),
    "pow": Operation(
        "tl.where({1} == 0, 1.0, tl.exp2({1} * tl.log2(tl.abs({0}))) * tl.where({0} < 0, "
        "tl.where(tl.floor({1}) == {1}, 1.0 - 4.0 * ({1} * 0.5 - tl.floor({1} * 0.5)), float('nan')), 1.0))",
        torch.pow,
    ),
    "fmod": Operation("({0} % {1})", torch.fmod),
}

DIALECTS = {"native": {**_SHARED, **_NATIVE, **_TILED}, "interpreted": {**_SHARED, **_PORTABLE, **_TILED}}
"""How operations are written for a GPU, and for Triton's interpreter."""

_NAMES = {torch.float32: "tl.float32", torch.float64: "tl.float64", torch.int64: "tl.int64", torch.bool: "tl.int1"}
_KEEP_ZERO = {
    "add", "sub", "neg", "abs", "sign", "maximum", "minimum", "floor", "ceil", "cast", "sin", "tan", "tanh", "sqrt",
    "erf", "log1p", "expm1",
}  # fmt: skip
"""Operations that map zeros to zero."""
_UNIT = {"add": 0, "sub": 0, "mul": 1, "div": 1}


def names_of(dtype: torch.dtype) -> str:
    """Triton's name of a dtype."""
    return _NAMES[dtype]


class Algebra:
    """Makes expressions, each one once, so that what a field computes twice is computed once."""

    def __init__(self) -> None:
        self._known: dict[Any, Expr] = {}

    def _keep(self, key: Any, make: Callable[[], Expr]) -> Expr:
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = make()
        return found

    def const(self, value: Any, dtype: torch.dtype) -> Expr:
        """A number known now."""
        value = torch.tensor(value, dtype=dtype).item()
        return self._keep(("const", repr(value), dtype), lambda: Expr("const", (value,), dtype, False, False))

    def wrapped(self, x: Expr, dtype: torch.dtype) -> Expr:
        """An integer as one of this dtype keeps it."""
        return self(f"as_{NARROW[dtype]}", (x,), torch.int64) if dtype in NARROW else x

    def leaf(self, name: str, dtype: torch.dtype, varies: bool, lanes: bool, width: int = 1) -> Expr:
        """A number known when the kernel runs."""
        return self._keep(("leaf", name), lambda: Expr("leaf", (name,), dtype, varies, lanes, width))

    def cast(self, x: Expr, dtype: torch.dtype) -> Expr:
        """x in another dtype."""
        if x.dtype == dtype:
            return x
        if x.constant:
            return self.const(x.value, dtype)
        if dtype == torch.bool:
            return self("ne", (x, self.const(0, x.dtype)), dtype)
        return self("cast", (x,), dtype)

    def __call__(self, op: str, args: Sequence[Expr], dtype: torch.dtype) -> Expr:
        """An operation on expressions that have its dtype already."""
        if all(a.constant for a in args):
            values = [torch.tensor(a.value, dtype=a.dtype) for a in args]
            return self.const(DIALECTS["native"][op].fold(*values).item(), dtype)
        if op in _UNIT and args[1].constant and args[1].value == _UNIT[op]:
            return args[0]
        if op in ("add", "mul") and args[0].constant and args[0].value == _UNIT[op]:
            return args[1]
        if op == "where" and args[0].constant:
            return args[1] if args[0].value else args[2]
        widths = {a.width for a in args if a.width > 1}
        if len(widths) > 1:
            raise CannotCompile("the kernel engine's tiles meet only where they have the same columns")
        return self.node(op, args, dtype, max(widths, default=1), _trim(op, args))

    def node(self, op: str, args: Sequence[Expr], dtype: torch.dtype, width: int, trim: bool) -> Expr:
        """An operation whose result has other columns than its arguments."""
        args = tuple(args)
        varies, lanes = any(a.varies for a in args), any(a.lanes for a in args)
        key = (op, *map(id, args), dtype, width)
        return self._keep(key, lambda: Expr(op, args, dtype, varies, lanes, width, trim))


def _trim(op: str, args: Sequence[Expr]) -> bool:
    """Whether an operation keeps a zero padding zero."""
    wide = [a for a in args if a.width > 1]
    if not all(a.trim for a in wide):
        return False
    if op in _KEEP_ZERO:
        return all(a.width > 1 or (a.constant and a.value == 0) for a in args)
    return not wide or op == "mul" or (op == "div" and args[1].constant)


class Written(NamedTuple):
    """A Triton function: its text, and what it is called with after time and state: expressions, then pointers."""

    text: str
    values: tuple[Expr, ...]
    pointers: tuple[str, ...]


def literal(value: Any) -> str:
    """A Python number as Triton reads it."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return f"({value!r})" if isinstance(value, int | float) and value < 0 else repr(value)


def _order(roots: Iterable[Expr], stop: Callable[[Expr], bool]) -> list[Expr]:
    """Every node the roots need, arguments first; below a node where `stop` holds nothing is visited."""
    done: dict[int, Expr] = {}
    for root in roots:
        stack: list[tuple[Expr, bool]] = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if id(node) in done:
                continue
            if ready or stop(node) or node.op in ("const", "leaf"):
                done[id(node)] = node
                continue
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args))
    return list(done.values())


def _text_of(node: Expr, known: dict[int, str], dialect: str) -> str:
    words = [literal(a.value) if a.constant else known[id(a)] for a in node.args]
    if node.op == "where":
        # Two plain literals would meet as float32.
        words = [
            f"tl.full((), {w}, {names_of(a.dtype)})" if a.constant else w for a, w in zip(node.args, words, strict=True)
        ]
    if node.op in ("pow", "fmod"):
        words = [
            f"tl.full((), {w}, {names_of(a.dtype)})" if a.constant else w for a, w in zip(node.args, words, strict=True)
        ]
    real = node.dtype if node.op in ("cast", "sign") else node.args[0].dtype
    size = {"width": node.width, "pad": padded(node.width)}
    return DIALECTS[dialect][node.op].text.format(*words, real=names_of(real), **size)


def write_values(
    roots: Sequence[Expr], known: dict[int, str], dialect: str, prefix: str, spell: Callable[[Expr], str | None]
) -> list[str]:
    """Lines that compute the roots; their names are added to `known`. `spell` gives the text of a leaf."""
    lines = []
    for node in _order(roots, lambda n: id(n) in known):
        if node.constant or id(node) in known:
            continue
        text = spell(node) if node.op == "leaf" else _text_of(node, known, dialect)
        assert text is not None, f"nobody knows the leaf {node.args[0]}"
        known[id(node)] = f"{prefix}{len(known)}"
        lines.append(f"{known[id(node)]} = {text}")
    return lines


def write(name: str, given: Sequence[str], outputs: Sequence[Expr], dialect: str, pointers: dict[str, str]) -> Written:
    """A function of `given` (names of leaves), of what does not vary, and of nothing else.

    pointers: leaves that are loaded where they are used, because they are too many for registers: name -> text; the
    functions takes the pointers P0, P1, ... that these mention.
    """

    def outside(node: Expr) -> bool:
        return not node.varies and not (node.op == "leaf" and node.args[0] in pointers)

    reached = _order(outputs, outside)
    hoisted = tuple(n for n in reached if not n.constant and outside(n))
    known = {id(n): f"a{i}" for i, n in enumerate(hoisted)}
    known |= {id(n): n.args[0] for n in reached if n.op == "leaf" and n.args[0] in given}
    lines = write_values(outputs, known, dialect, "v", lambda leaf: pointers.get(leaf.args[0]))
    loads = (pointers[n.args[0]] for n in reached if _loaded(n, pointers))
    used = tuple(sorted({found.group() for load in loads if (found := re.search(r"\bP\d+", load))}))
    results = [_as_lanes(e, known, given[-1]) for e in outputs]
    head = ", ".join((*given, *(f"a{i}" for i in range(len(hoisted))), *used))
    body = [*lines, f"return {', '.join(results)}"]
    text = "\n".join((f"@triton.jit\ndef {name}({head}):", *(f"    {line}" for line in body)))
    return Written(text, hoisted, used)


def _loaded(node: Expr, pointers: dict[str, str]) -> bool:
    return node.op == "leaf" and node.args[0] in pointers


def _as_lanes(e: Expr, known: dict[int, str], anchor: str) -> str:
    """The expression as one value a lane, also where all lanes share it."""
    text = literal(e.value) if e.constant else known[id(e)]
    return text if e.lanes else f"tl.full({anchor}.shape, 0.0, {names_of(e.dtype)}) + {text}"
