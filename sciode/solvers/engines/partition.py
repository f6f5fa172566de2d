"""A graph and its derivative as two graphs: one that also returns what the other needs, and that other.

What to hand over is a minimum cut of the joint graph, in bytes: matrix products, reductions and whatever else is dear
are never done twice; views, moves and pointwise arithmetic are, where that leaves less to keep. What the derivative can
have for nothing is never kept: inputs that are the same in every step, and what the tape's row holds anyway.

The cut is our own. Torch's partitioner for `torch.compile` takes every input to be kept, cannot be told that some are
the same in every step while others are in a row, and follows heuristics and a signature that change with its version.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, fx

from .lift import check_repeatable, operations_of

__all__ = ["Asked", "Partition", "Place", "partition"]

_aten: Any = torch.ops.aten
_MOVES = {
    _aten.arange, _aten.cat, _aten.constant_pad_nd, _aten.copy, _aten.empty, _aten.empty_like, _aten.fill, _aten.flip,
    _aten.full, _aten.full_like, _aten.gather, _aten.index, _aten.index_select, _aten.lift_fresh_copy, _aten.new_empty,
    _aten.new_full, _aten.new_ones, _aten.new_zeros, _aten.ones, _aten.ones_like, _aten.repeat, _aten.roll,
    _aten.scalar_tensor, _aten.select_scatter, _aten.slice_scatter, _aten.stack, _aten._to_copy, _aten._unsafe_view,
    _aten.zeros, _aten.zeros_like,
}  # fmt: skip
"""Operations that compute nothing: beside pointwise ones and views they may be done twice."""


class Place(NamedTuple):
    """Which input or output of a graph a tensor is."""

    of: Literal["input", "output"]
    index: int


class Asked(NamedTuple):
    """What is to be differentiated with respect to what.

    wanted: for every input, which of the gradients is its (-1: none); like: a tensor of the shape of each gradient;
    steady: for every input, whether it is the same in every step; held: what the tape's row holds anyway;
    differentiated: the outputs that have cotangents.
    """

    wanted: Sequence[int]
    like: Sequence[Tensor]
    steady: Sequence[bool]
    held: Sequence[Place]
    differentiated: Sequence[int]


class Partition(NamedTuple):
    """forward(*inputs) -> (*outputs, *residuals), backward(*fixed, *held, *residuals, *cotangents) -> gradients.

    fixed: the inputs that backward reads; held: which of `Asked.held` it reads; residuals: fake tensors like those that
    forward returns; strangers: inputs that require grad, take part, and were not wanted.
    """

    forward: fx.GraphModule
    backward: fx.GraphModule
    fixed: tuple[int, ...]
    held: tuple[int, ...]
    residuals: tuple[Tensor, ...]
    strangers: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Memory that one step's residuals take."""
        return sum(x.numel() * x.element_size() for x in self.residuals)


def partition(graph: fx.GraphModule, inputs: Sequence[Tensor], asked: Asked) -> Partition:
    """Split graph(*inputs) and its vector-Jacobian product; CannotCompile if the graph must not be repeated."""
    check_repeatable(graph, list(inputs), [])
    joint, strangers = _joint(graph, inputs, asked)
    _tidy(joint.graph)
    halves = _Halves(joint, len(inputs), asked)
    kept = halves.kept()
    return halves.split(kept, strangers)


def _joint(graph: fx.GraphModule, inputs: Sequence[Tensor], asked: Asked) -> tuple[fx.GraphModule, tuple[int, ...]]:
    """The graph of (*inputs, *cotangents) -> (*outputs, *gradients), without writes; and its strangers."""
    size = len(inputs)
    others = [x.requires_grad and p < 0 for x, p in zip(inputs, asked.wanted, strict=True)]
    met: set[int] = set()

    def pull(*tensors: Tensor) -> list[Tensor]:
        with torch.enable_grad():
            marks = [p >= 0 or other for p, other in zip(asked.wanted, others, strict=True)]
            sources = [x.detach().requires_grad_(m) for x, m in zip(tensors[:size], marks, strict=True)]
            outputs = graph(*sources)
        wanted = [i for i, m in enumerate(marks) if m]
        pairs = [(outputs[i], c) for i, c in zip(asked.differentiated, tensors[size:], strict=True)]
        pairs = [(o, c) for o, c in pairs if o.requires_grad]
        pulled: Sequence[Tensor | None] = [None] * len(wanted)
        if pairs and wanted:
            ends, seeds = zip(*pairs, strict=True)
            pulled = torch.autograd.grad(ends, [sources[i] for i in wanted], seeds, allow_unused=True)
        found = {asked.wanted[i]: g for i, g in zip(wanted, pulled, strict=True) if g is not None and not others[i]}
        met.update(i for i, g in zip(wanted, pulled, strict=True) if g is not None and others[i])
        # Made from their shapes: a zero must not make the derivative read what it is like.
        return [*outputs, *(found[i] if i in found else _zeros(x) for i, x in enumerate(asked.like))]

    with torch.no_grad():
        outputs = graph(*inputs)
        # Cotangents are contiguous, whatever the outputs are.
        seeds = [_zeros(outputs[i]) for i in asked.differentiated]
        joint = operations_of(pull, *inputs, *seeds)
        if any(_writes(node) for node in joint.graph.nodes):
            joint = operations_of(torch.func.functionalize(joint), *inputs, *seeds)
    return joint, tuple(sorted(met))


def _zeros(like: Tensor) -> Tensor:
    return torch.zeros(like.shape, dtype=like.dtype, device=like.device)


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _tidy(graph: fx.Graph) -> None:
    """Drop `detach`, which means nothing here; make one of what is computed twice; drop what nobody uses."""
    seen: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in (_aten.detach.default, _aten.alias.default):
            same = node.args[0]
        else:
            same = seen.setdefault((node.target, _key(node.args), _key(node.kwargs)), node)
        if same is not node:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
    graph.eliminate_dead_code()


def _key(argument: Any) -> Any:
    """Something hashable that is equal for equal arguments; 0, 0.0, -0.0 and False differ."""
    if isinstance(argument, fx.Node):
        return argument
    if isinstance(argument, list | tuple):
        return tuple(map(_key, argument))
    if isinstance(argument, dict):
        return tuple((name, _key(value)) for name, value in argument.items())
    return type(argument), repr(argument)


def _cheap(node: fx.Node) -> bool:
    """Whether a node may be computed a second time."""
    if node.target is operator.getitem:
        parent = node.args[0]
        return isinstance(parent, fx.Node) and _cheap(parent)
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    return torch.Tag.pointwise in target.tags or target.is_view or target.overloadpacket in _MOVES


def _cost(node: fx.Node) -> int | None:
    """Bytes to keep a node, a view dearer than what it looks at; None if it is no tensor."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    looks = isinstance(node.target, torch._ops.OpOverload) and node.target.is_view
    return value.numel() * value.element_size() + looks


class _Halves:
    """The joint graph, its nodes told apart.

    late: nodes that need a cotangent; early, the others; steady: those that follow from steady inputs alone; held:
    those that are in the tape's row, and which column is theirs.
    """

    def __init__(self, joint: fx.GraphModule, size: int, asked: Asked) -> None:
        self.joint, self.asked = joint, asked
        nodes = list(joint.graph.nodes)
        placeholders = [node for node in nodes if node.op == "placeholder"]
        self.inputs, self.cotangents = placeholders[:size], placeholders[size:]
        returned = joint.graph.output_node().args[0]
        count = len(returned) - len(asked.like)  # type: ignore[arg-type]
        self.outputs, self.gradients = list(returned[:count]), list(returned[count:])  # type: ignore[index]
        self.held = {(self.inputs if p.of == "input" else self.outputs)[p.index]: i for i, p in enumerate(asked.held)}
        late: set[fx.Node] = set(self.cotangents)
        self.steady = {node for node, same in zip(self.inputs, asked.steady, strict=True) if same}
        for node in nodes:
            if node.op == "placeholder" or node.op == "output":
                continue
            if not late.isdisjoint(node.all_input_nodes):
                late.add(node)
            elif self.steady.issuperset(node.all_input_nodes):
                self.steady.add(node)
        self.early = [node for node in nodes if node not in late and node.op != "output"]
        self.late = late

    @property
    def needed(self) -> list[fx.Node]:
        """Early nodes that the derivative reads."""
        ends = set(self.gradients)
        return [node for node in self.early if node in ends or not self.late.isdisjoint(node.users)]

    def kept(self) -> list[fx.Node]:
        """The residuals: the cheapest set of nodes from which every needed one follows by cheap operations."""
        # Imported where it is used: a dependency of torch's that takes its time.
        import networkx

        network: Any = networkx.DiGraph()
        network.add_nodes_from(("source", "sink"))
        free = self.steady | set(self.held)
        for node in self.early:
            if node in free:
                continue
            cost = _cost(node)
            # An edge without a capacity can carry anything: it is never cut.
            network.add_edge((node, "in"), (node, "out"), **({} if cost is None else {"capacity": cost}))
            if node.op == "placeholder" or not _cheap(node):
                network.add_edge("source", (node, "in"))
                continue
            for argument in node.all_input_nodes:
                if argument not in free:
                    network.add_edge((argument, "out"), (node, "in"))
        for node in self.needed:
            if node not in free:
                network.add_edge((node, "out"), "sink")
        # Of several cheapest cuts this is the one nearest to the sink, which leaves least to be done again. There is
        # only one such, so the same graph is always cut in the same place.
        _, (_, beyond) = networkx.minimum_cut(network, "source", "sink")
        return [n for n in self.early if n not in free and (n, "out") in beyond and (n, "in") not in beyond]

    def split(self, kept: list[fx.Node], strangers: tuple[int, ...]) -> Partition:
        """The two graphs."""
        forward = _extract(self.joint, self.inputs, [*self.outputs, *kept])
        stops = {*kept, *self.held, *self.inputs, *self.cotangents}
        reached = _behind(self.gradients, stops)
        # An input that is neither steady nor held is kept or not reached.
        fixed = [i for i, node in enumerate(self.inputs) if node in reached and node in self.steady - set(self.held)]
        held = sorted(i for node, i in self.held.items() if node in reached)
        by_number = {i: node for node, i in self.held.items()}
        arguments = [*(self.inputs[i] for i in fixed), *(by_number[i] for i in held), *kept, *self.cotangents]
        backward = _extract(self.joint, arguments, self.gradients)
        residuals = tuple(node.meta["val"] for node in kept)
        return Partition(forward, backward, tuple(fixed), tuple(held), residuals, strangers)


def _behind(ends: Iterable[fx.Node], stops: set[fx.Node]) -> set[fx.Node]:
    """The nodes that `ends` are made of, `stops` included and nothing behind them."""
    found: set[fx.Node] = set()
    stack = list(ends)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += [] if node in stops else node.all_input_nodes
    return found


def _extract(joint: fx.GraphModule, arguments: list[fx.Node], ends: list[fx.Node]) -> fx.GraphModule:
    """The part of a graph that makes `ends` from `arguments`."""
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in arguments}
    for node, placed in copies.items():
        placed.meta.update(node.meta)
    copy: Callable[[fx.Node], fx.Node] = copies.__getitem__
    wanted = _behind(ends, set(arguments))
    for node in joint.graph.nodes:
        if node in wanted and node not in copies:
            copies[node] = graph.node_copy(node, copy)
    graph.output([copies[node] for node in ends])
    graph.lint()
    part = fx.GraphModule(joint, graph)
    # Dynamo, which will trace it again, cannot look into code that is made lazily.
    getattr(part, "real_recompile", part.recompile)()
    return part
