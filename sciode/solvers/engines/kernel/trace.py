"""A field as scalar arithmetic of one sample.

Dynamo finds the field's code and tensors, `make_fx` turns them into aten operations on fake tensors at the real batch
size, and `operations` runs those on expressions. Nothing is guessed: an operation that would mix samples is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from ..lift import CannotCompile, Lifted
from .expressions import Algebra, Expr
from .operations import Interpreter, input_kind
from .symbolic import Symbolic

__all__ = ["Formula", "Graph", "Piece", "Reader", "formula_of", "graph_of"]

_MOST_SHARED = 4096
_MOST_COMPONENTS = 32


class Piece(Protocol):
    """Where the number, or the tile, of a leaf lies."""

    @property
    def index(self) -> int:
        """The input it is a part of."""
        ...

    @property
    def apart(self) -> bool:
        """Whether every sample has one of its own."""
        ...

    @property
    def bytes(self) -> int:
        """What it takes on chip, if all samples share it."""
        ...

    def spell(self, pointer: str) -> str:
        """Text that loads it."""
        ...


@dataclass(frozen=True)
class Source:
    """Where a leaf's number lies: entry `offset` of input `index`, counted within a sample if it is `apart`.

    size: numbers a sample (or in all, if they are shared); bytes: of the number.
    """

    index: int
    offset: int
    size: int
    apart: bool
    bytes: int

    def spell(self, pointer: str) -> str:
        """Text that loads it."""
        if self.apart:
            return f"tl.load({pointer} + lane * {self.size} + {self.offset}, mask=inside, other=0)"
        return f"tl.load({pointer} + {self.offset})"


@dataclass(frozen=True, eq=False)
class Formula:
    """A field written out: drift [D], diffusion [D][m] (m = 1 for each component if diagonal), or None for an ODE.

    Leaves are named "t64", "y_0", "y_1", ..., and as in `sources`. tiled: all components are one tile: D and m are 1.
    """

    drift: tuple[Expr, ...]
    diffusion: tuple[tuple[Expr, ...], ...] | None
    sources: Mapping[str, Piece]
    tiled: bool = False


@dataclass(frozen=True)
class Graph:
    """A field's aten operations; inputs, what they read, in shapes alone (a graph outlives its tensors).

    positions: 0 for the time, 1 for the state, else -1; owned: whether it is a module's.
    """

    module: fx.GraphModule
    inputs: list[Tensor]
    positions: list[int]
    owned: list[bool]

    @property
    def products(self) -> int:
        """Multiplications in the matrix products, for the whole batch."""
        count = 0
        for node in self.module.graph.nodes:
            if node.target in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
                count += node.args[-2].meta["val"].numel() * node.meta["val"].shape[-1]
        return count


def graph_of(lifted: Lifted, time: Tensor, y: Tensor) -> Graph:
    """The graph of one evaluation at these tensors, in core aten operations, without running any."""
    module = lifted.traced.graph

    def functional(*inputs: Tensor) -> Any:
        return torch.func.functionalize(module, remove="mutations")(*inputs)

    inputs = [x.detach() for x in lifted.inputs]
    with torch.no_grad():
        traced = make_fx(functional, _decompositions(), tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
    names = [n.name for n in module.graph.nodes if n.op == "placeholder"]
    owned = [
        isinstance(x, nn.Parameter) or "_parameters_" in name or "_buffers_" in name
        for x, name in zip(lifted.inputs, names, strict=True)
    ]
    shapes = [torch.empty_like(x, device="meta") for x in inputs]
    return Graph(traced, shapes, lifted.positions([time, y]), owned)


def formula_of(graph: Graph, samples: int, size: int, real: torch.dtype, reader: type[Reader]) -> Formula:
    """The graph as expressions. A tensor as long as the batch is read as one value a sample, then as a shared one.

    size: components of the state; reader: in which form.
    """
    apart = [_apart(*x, samples) for x in zip(graph.inputs, graph.positions, graph.owned, strict=True)]
    readings = [apart]
    if any(a == "unclear" for a in apart):
        readings = [
            ["apart" if a == "unclear" else a for a in apart],
            ["shared" if a == "unclear" else a for a in apart],
        ]
    refusal = None
    for reading in readings:
        try:
            return reader(graph, reading, samples, size, real).read()
        except CannotCompile as error:
            refusal = refusal or error
    assert refusal is not None
    if len(readings) > 1:
        raise CannotCompile(
            f"{refusal} (a tensor has {samples} rows, as many as there are samples, and fits neither as one value a "
            "sample nor as a shared one: give it a leading axis of 1)"
        ) from refusal
    raise refusal


def _apart(x: Tensor, position: int, owned: bool, samples: int) -> str:
    """Whether an input has a value for each sample: "time", "state", "apart", "shared" or "unclear"."""
    if position >= 0:
        return ("time", "state")[position]
    if x.ndim == 0 or x.shape[0] != samples or samples == 1 or owned:
        return "shared"
    return "apart" if samples > 64 else "unclear"


def _decompositions() -> dict[Any, Any]:
    aten = torch.ops.aten
    more = get_decompositions([
        aten.addmv, aten.addr, aten.baddbmm, aten.gelu, aten.silu, aten.elu, aten.softplus, aten.leaky_relu,
        aten.hardtanh, aten.mish, aten.log_sigmoid_forward, aten.addcmul, aten.addcdiv, aten.lerp, aten.square,
        aten.linalg_vector_norm, aten.norm, aten.var, aten.std, aten.softmax, aten._softmax, aten.native_layer_norm,
        aten.linalg_cross, aten.eye, aten.stack, aten.hardswish, aten.hardsigmoid, aten.logit, aten.sinc,
        aten.dot, aten.mv, aten.vdot, aten.frac, aten.diag_embed, aten.triu, aten.tril, aten.trace,
    ])  # fmt: skip
    return {**core_aten_decompositions(), **more}


class Reader:
    """Gives every input its expressions, runs the graph, and cuts the result into components."""

    def __init__(self, graph: Graph, reading: Sequence[str], samples: int, size: int, real: torch.dtype) -> None:
        self.graph, self.reading = graph, reading
        self.samples, self.size, self.real = samples, size, real
        self.algebra = Algebra()
        self.sources: dict[str, Piece] = {}

    def read(self) -> Formula:
        """The field's components."""
        it = self._interpreter()
        named = enumerate(zip(self.graph.inputs, self.reading, strict=True))
        inputs = [self._input(it, i, x, how) for i, (x, how) in named]
        return self._formula(it, [it.scalar(x, self.real) for x in it.run(self.graph.module, inputs)])

    def _interpreter(self) -> Interpreter:
        return Interpreter(self.algebra, self.samples)

    def _input(self, it: Interpreter, i: int, x: Tensor, how: str) -> Any:
        alg, samples = self.algebra, self.samples
        if how == "time":
            # [1] where the samples share a clock: the same expression for all of them.
            lane = self._lane(0) if x.shape[0] == samples else None
            return Symbolic(tuple(x.shape), _array((1,), [alg.leaf("t64", torch.float64, True, True)]), lane)
        if how == "state":
            size = x.shape[1]
            if size > _MOST_COMPONENTS:
                raise CannotCompile(
                    f"the kernel engine keeps states of up to {_MOST_COMPONENTS} components in registers"
                )
            names = [alg.leaf(f"y_{j}", self.real, True, True) for j in range(size)]
            return Symbolic((samples, size), _array((1, size), names), self._lane(0))
        apart = how == "apart"
        stored = (1, *x.shape[1:]) if apart else tuple(x.shape)
        count = int(np.prod(stored))
        if count > _MOST_SHARED:
            raise CannotCompile(f"the kernel engine keeps weights on chip; a tensor of shape {[*x.shape]} is too large")
        kind = input_kind(x.dtype)
        leaves = []
        for j in range(count):
            name = f"p{i}_{j}"
            self.sources[name] = Source(i, j, count, apart, x.element_size())
            leaves.append(alg.leaf(name, kind, False, apart))
        return Symbolic(tuple(x.shape), _array(stored, leaves), self._lane(0) if apart else None)

    def _formula(self, it: Interpreter, outputs: list[Symbolic]) -> Formula:
        diffusion = None if len(outputs) == 1 else self._matrix(outputs[1])
        return Formula(self._components(outputs[0]), diffusion, self.sources)

    def _lane(self, axis: int) -> tuple[int, int, int] | None:
        return (axis, 1, 1) if self.samples > 1 else None

    def _components(self, x: Symbolic) -> tuple[Expr, ...]:
        return tuple(row[0] for row in self._rows(x))

    def _matrix(self, x: Symbolic) -> tuple[tuple[Expr, ...], ...]:
        return tuple(tuple(row) for row in self._rows(x))

    def _rows(self, x: Symbolic) -> list[list[Expr]]:
        if x.lane not in (None, (0, 1, 1)) or x.shape[0] != self.samples:
            raise CannotCompile("the kernel engine takes every sample by itself, and the field moves the batch axis")
        if x.lane is None and self.samples > 1:
            if x.data.shape[0] != 1:
                raise CannotCompile("the kernel engine takes every sample by itself; the field returns constants a row")
            x = x._replace(lane=(0, 1, 1))
        rows = x.spread()[0]
        return [[e] for e in rows] if rows.ndim == 1 else [list(row) for row in rows]


def _array(shape: tuple[int, ...], entries: list[Expr]) -> np.ndarray:
    data = np.empty(len(entries), dtype=object)
    for i, e in enumerate(entries):
        data[i] = e
    return data.reshape(shape)
