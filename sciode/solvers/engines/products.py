"""Gradients of weights as one matrix product over all steps, instead of a small one a step.

A weight's gradient is a sum of products of what went into a layer and what came back to it, over stages and steps. The
loop back writes the factors down, and each sum is taken once, at its end: the device then launches half as many kernels
a step, and the products that are left are large ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

__all__ = ["CACHED", "Postponed", "Product", "Source", "postpone", "room", "totals"]

_aten: Any = torch.ops.aten
_TURNED: dict[Any, Callable[[Any], bool]] = {
    _aten.t.default: lambda node: True,
    _aten.transpose.int: lambda node: sorted(d % _ndim(node) for d in node.args[1:]) == [*range(_ndim(node))][-2:],
    _aten.permute.default: lambda node: [d % _ndim(node) for d in node.args[1]] == _swapped(_ndim(node)),
}
"""Operations that may swap the last two axes, and whether one does."""
_VIEWS = {
    _aten.t.default, _aten.transpose.int, _aten.permute.default, _aten.view.default, _aten._unsafe_view.default,
    _aten.reshape.default, _aten.unsqueeze.default, _aten.squeeze.dim, _aten.squeeze.dims,
}  # fmt: skip
"""Operations that may as well be done to a sum as to each of its terms."""
_PRODUCTS = (_aten.mm.default, _aten.bmm.default)
_SUM = _aten.sum.dim_IntList
_SCATTER = _aten.index_add.default
"""The gradient of a table of which a step reads some rows: as large as the table."""
_ZEROS = {_aten.zeros.default, _aten.new_zeros.default, _aten.zeros_like.default}
_SAME = {_aten.detach.default, _aten.alias.default}
_ROOM = 2**24
"""Bytes a step above which factors are not written down: products so large are no small kernels."""
_HELD = 2**29
"""Bytes of factors of one stretch of a tape beyond which its steps' products are summed up one by one."""
_PAYS = frozenset({"cuda"})
"""Devices where launches cost more than memory. On a CPU the factors would leave the cache: a neural ODE of 128 x 16
took 20 ms instead of 13."""
CACHED = 2**23
"""Bytes of factors of a whole tape which pay on a CPU, too."""

View = tuple[Any, tuple[Any, ...]]


class Source(NamedTuple):
    """Where a factor is found: in a column that the steps have written already, or among what the way back writes."""

    of: str
    index: int


class Product(NamedTuple):
    """A gradient: `views` of the sum over steps and terms of lefts^T rights, or, without lefts, of rights over `axes`.

    A left is [..., n, a], a right [..., n, b]; shape: of the sum, before the views. scattered: lefts are numbers [n] of
    rows instead, which the rights [n, ...] are added to.
    """

    lefts: tuple[Source, ...]
    rights: tuple[Source, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]
    views: tuple[View, ...]
    scattered: bool = False


class Postponed(NamedTuple):
    """A way back through one step whose last outputs are factors.

    graph(*inputs) -> (*cotangents and gradients that are not postponed, *factors); products: number of the gradient ->
    what it is; factors: tensors like those that are written; cached: whether they should stay in a cache.
    """

    graph: fx.GraphModule
    products: dict[int, Product]
    factors: tuple[Tensor, ...]
    cached: bool = False

    @classmethod
    def none(cls, graph: fx.GraphModule) -> Postponed:
        """Nothing is."""
        return cls(graph, {}, ())

    def fits(self, count: int) -> bool:
        """Whether the factors of so many steps may be held at once: `recompute` is there to hold little."""
        if all(product.scattered for product in self.products.values()):
            # Else the gradient of a whole table is added up in every step.
            return True
        if self.cached:
            return count * _bytes(self.factors) <= CACHED
        return room(count) * _bytes(self.factors) <= _HELD


def room(count: int) -> int:
    """Rows to hold factors of so many steps, and one for waste: few numbers, each of them captured anew."""
    return 1 + (1 << max(count - 1, 7).bit_length())


def _bytes(factors: Sequence[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in factors)


def postpone(
    graph: fx.GraphModule, before: int, fixed: frozenset[int], columns: dict[int, int], device: torch.device,
    cached: bool = False,
) -> Postponed:  # fmt: skip
    """Take the gradients, which are the outputs from number `before` on, out of a graph where they are such sums.

    fixed: inputs that are the same in every step; columns: input -> the column of which it is a row; device: where;
    cached: also on a CPU, whose tapes may be short enough. Of tables, every CPU's loop writes down what rows get.
    """
    kinds = [
        tables for tables, wanted in ((True, device.type == "cpu"), (False, cached or device.type in _PAYS)) if wanted
    ]
    nodes = list(graph.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    ends: list[Any] = list(graph.graph.output_node().args[0])  # type: ignore[arg-type]
    varying = _varying(nodes, {node for i, node in enumerate(inputs) if i not in fixed})
    found = {i: _sum_of(end, varying) for i, end in enumerate(ends[before:])}
    sums = {i: x for i, x in found.items() if x is not None and x.scattered in kinds}
    written: dict[tuple[fx.Node, bool], int] = {}
    places = {inputs[i]: Source("column", column) for i, column in columns.items()}

    def source(factor: tuple[fx.Node, bool]) -> Source:
        node, turned = factor
        given = _original(node)
        if given in places and not turned:
            return places[given]
        return Source("written", written.setdefault(factor, len(written)))

    products = {
        i: Product(tuple(map(source, s.lefts)), tuple(map(source, s.rights)), s.axes, s.shape, s.views, s.scattered)
        for i, s in sums.items()
    }
    factors = tuple(_value(node).mT if turned else _value(node) for node, turned in written)
    if not products or (False in kinds and _bytes(factors) > _ROOM):
        return Postponed.none(graph)
    kept = [end for i, end in enumerate(ends) if i - before not in products]
    return Postponed(_with_ends(graph, kept, list(written)), products, factors, cached)


def totals(products: dict[int, Product], sources: dict[str, Sequence[Tensor]], count: int) -> dict[int, Tensor]:
    """The gradients, from the first `count` rows of columns [room, ...] of factors."""
    joined: dict[Any, Tensor] = {}

    def all_of(factors: tuple[Source, ...], summed: bool) -> Tensor:
        if (factors, summed) not in joined:
            parts = [sources[f.of][f.index][:count] for f in factors]
            if not summed:
                # The axis of the samples is the last but one: steps, and terms, come before it.
                parts = [p.movedim(0, -3).flatten(-3, -2) for p in parts]
            joined[factors, summed] = torch.cat(parts, 0 if summed else -2) if len(parts) > 1 else parts[0]
        return joined[factors, summed]

    found = {}
    for i, product in products.items():
        if product.scattered:
            index, rows = (all_of(f, True).flatten(0, 1) for f in (product.lefts, product.rights))
            total = rows.new_zeros(product.shape).index_add_(0, index, rows)
        elif product.lefts:
            total = all_of(product.lefts, False).mT @ all_of(product.rights, False)
        else:
            total = all_of(product.rights, True).sum((0, *(a + 1 for a in product.axes))).reshape(product.shape)
        for target, arguments in product.views:
            total = target(total, *arguments)
        found[i] = total.contiguous()
    return found


class _Sum(NamedTuple):
    """As `Product`, in nodes; a factor is a node, and whether its last two axes are to be swapped."""

    lefts: tuple[tuple[fx.Node, bool], ...]
    rights: tuple[tuple[fx.Node, bool], ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]
    views: tuple[View, ...]
    scattered: bool = False


def _original(node: fx.Node) -> fx.Node:
    """What a node is only another name of."""
    while node.target in _SAME:
        node = node.all_input_nodes[0]
    return node


def _varying(nodes: Sequence[fx.Node], inputs: set[fx.Node]) -> set[fx.Node]:
    """The nodes that are not the same in every step."""
    found = set(inputs)
    for node in nodes:
        if node.op == "call_function" and not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


def _sum_of(end: Any, varying: set[fx.Node]) -> _Sum | None:
    """What a gradient is the sum of; None if it is anything but products of a kind, or something is the same anyway."""
    terms = _terms(end)
    if terms is None or len({(node.target, views, _axes(node), _value(node).shape) for views, node in terms}) != 1:
        return None
    views, first = terms[0]
    axes = _axes(first)
    if first.target in _PRODUCTS:
        lefts, rights = tuple(_left(n.args[0]) for _, n in terms), tuple((n.args[1], False) for _, n in terms)
    elif first.target is _SCATTER:
        lefts, rights = (tuple((n.args[i], False) for _, n in terms) for i in (2, 3))
    else:
        lefts, rights = (), tuple((n.args[0], False) for _, n in terms)
    if any(node not in varying for node, _ in (*lefts, *rights)):
        return None
    if len({_value(node).shape for node, _ in rights}) != 1:
        return None
    scattered = first.target is _SCATTER
    return _Sum(lefts, rights, axes, tuple(_value(first).shape), views, scattered)  # type: ignore[arg-type]


def _terms(node: Any) -> list[tuple[tuple[View, ...], fx.Node]] | None:
    """The products that a node is a sum of, each with the views taken of it, first one first."""
    if not isinstance(node, fx.Node) or node.op != "call_function" or not isinstance(node.meta.get("val"), Tensor):
        return None
    if node.target in _PRODUCTS or (node.target is _SUM and not node.kwargs.get("dtype")):
        return [((), node)]
    if node.target is _SCATTER and _value(node.args[2]).ndim == 1 and node.args[1] == 0 and not node.kwargs:
        table: Any = node.args[0]
        return [((), node)] if table.target in _ZEROS else None
    if node.target is _aten.add.Tensor and not node.kwargs:
        left, right = _terms(node.args[0]), _terms(node.args[1])
        return None if left is None or right is None else left + right
    if node.target in _VIEWS and not any(isinstance(a, fx.Node) for a in node.args[1:]):
        inner, view = _terms(node.args[0]), (node.target, tuple(map(_frozen, node.args[1:])))
        return None if inner is None else [((*views, view), product) for views, product in inner]
    return None


def _frozen(argument: Any) -> Any:
    return tuple(argument) if isinstance(argument, list | tuple) else argument


def _axes(node: fx.Node) -> tuple[int, ...]:
    """Over which axes a sum is taken; () for a product."""
    if node.target is not _SUM:
        return ()
    axes: Any = node.args[1]
    ndim = _ndim(node.args[0])
    return tuple(sorted(a % ndim for a in axes)) if axes else tuple(range(ndim))


def _left(node: Any) -> tuple[fx.Node, bool]:
    """The left factor [..., n, a] of a product whose left operand [..., a, n] this is."""
    turned = _TURNED.get(node.target)
    return (node.args[0], False) if turned is not None and turned(node) else (node, True)


def _value(node: Any) -> Tensor:
    return node.meta["val"]


def _ndim(node: Any) -> int:
    return _value(node).ndim


def _swapped(ndim: int) -> list[int]:
    """The order of the axes with the last two swapped."""
    return [*range(ndim - 2), ndim - 1, ndim - 2]


def _with_ends(graph: fx.GraphModule, ends: Sequence[Any], factors: Sequence[tuple[fx.Node, bool]]) -> fx.GraphModule:
    """The graph with other outputs."""
    copy, places = fx.Graph(), {}
    for node in graph.graph.nodes:
        if node.op != "output":
            places[node] = copy.node_copy(node, places.__getitem__)
    turned = [
        copy.call_function(_aten.transpose.int, (places[node], -2, -1)) if swap else places[node]
        for node, swap in factors
    ]
    copy.output([*(places[end] for end in ends), *turned])
    copy.eliminate_dead_code()
    copy.lint()
    part = fx.GraphModule(graph, copy)
    # Dynamo, which will trace it again, cannot look into code that is made lazily.
    getattr(part, "real_recompile", part.recompile)()
    return part
