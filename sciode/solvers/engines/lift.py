"""A Python function as a graph whose every tensor is an argument, however the function reached it.

Dynamo traces the function once for each (code, structure, shapes) and finds the tensors anew at every call: a module's
parameters, a closure's cells, a lambda made again in each iteration. It calls nothing here: an engine gets the graph
and the tensors of this call, and repeats the graph as it likes.
"""

from __future__ import annotations

import operator
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = [
    "CannotCompile",
    "Lift",
    "Lifted",
    "Traced",
    "by_inductor",
    "check_repeatable",
    "compiler_error",
    "operations_of",
    "own_code",
    "quietly",
    "without_questions",
    "without_vmap",
]


def compiler_error() -> type[Exception]:
    """What Dynamo raises; loaded when something is compiled or has failed, because that takes a second."""
    from torch._dynamo.exc import TorchDynamoException

    return TorchDynamoException


class CannotCompile(RuntimeError):
    """A field that cannot be put into a graph; the message names the operation."""


class Traced:
    """One graph and what engines made of it; lives as long as Dynamo's guards let the graph be used again."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.made: Any = None

    @property
    def outputs(self) -> int:
        """How many tensors the graph returns."""
        return len(self.graph.graph.output_node().args[0])  # type: ignore[arg-type]


class Lifted(NamedTuple):
    """A traced graph and the tensors of this call in the order of its arguments."""

    traced: Traced
    inputs: list[Tensor]

    def positions(self, tensors: list[Tensor]) -> list[int]:
        """For every argument, which of these tensors it is; -1 if none."""
        known = {id(x): i for i, x in enumerate(tensors)}
        return [known.get(id(x), -1) for x in self.inputs]


class Lift:
    """A function to be lifted; `traces` counts how often it was traced."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.traces = 0
        self._local = threading.local()
        self._call = torch.compile(own_code(function), backend=self._receive, fullgraph=True, dynamic=False)

    def __call__(self, *arguments: Any, returns: int | None = None) -> Lifted:
        """The graph for these arguments; `returns`: how many tensors the function returns. Raises CannotCompile."""
        self._local.returns = returns
        try:
            with nullcontext() if self.traces else quietly():
                self._call(*arguments)
        except compiler_error() as error:
            ours = getattr(error, "inner_exception", None)
            raise CannotCompile(str(ours) if isinstance(ours, CannotCompile) else _reason(error)) from error
        return self._local.__dict__.pop("found")

    def _receive(self, graph: fx.GraphModule, examples: list[Any]) -> Callable[..., Any]:
        self.traces += 1
        _spell_powers(graph)
        # A copy whose code exists from the start: Dynamo cannot look into a lazily compiled one.
        graph = fx.GraphModule(graph, graph.graph)
        getattr(graph, "real_recompile", graph.recompile)()
        traced = Traced(graph)
        count, wanted = traced.outputs, self._local.returns
        if wanted is not None and count != wanted:
            # Before Python's side effects are written back with tensors that no graph has made.
            raise CannotCompile("the field keeps a tensor in Python (a counter, a list), which a graph cannot do")

        def record(*inputs: Tensor) -> list[Tensor]:
            self._local.found = Lifted(traced, list(inputs))
            return [_NOTHING] * count

        return record


_NOTHING = torch.empty(0)


def _spell_powers(graph: fx.GraphModule) -> None:
    """Write (-2) ** x as a function of both: torch 2.13 prints it without its brackets, and reads -(2 ** x)."""
    for node in graph.graph.nodes:
        if node.target is operator.pow and not isinstance(node.args[0], fx.Node):
            node.target = torch.pow


@contextmanager
def quietly() -> Iterator[None]:
    """Tracing reads the .grad of every tensor it meets, also of one that was computed before the solve."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*not a leaf Tensor.*")
        yield


def by_inductor(options: dict[str, Any]) -> Callable[[Any, list[Any]], Callable[..., Any]]:
    """A backend of torch.compile: Inductor with these options.

    What torch says to itself while it compiles (its own deprecations, precision it would use) is for nobody else, and
    no error where warnings are errors.
    """

    def compiled(graph: Any, examples: list[Any]) -> Callable[..., Any]:
        from torch._dynamo import lookup_backend

        inductor: Any = lookup_backend("inductor")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"torch\.")
            return inductor(graph, examples, config_patches=options)

    return compiled


def own_code(function: Callable[..., Any]) -> Any:
    """A copy of a function with a code object of its own: Dynamo keeps its graphs, and their limit, by code object."""
    assert isinstance(function, types.FunctionType)
    code = function.__code__.replace()
    copy = types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _reason(error: BaseException) -> str:
    """The first lines of what Dynamo says: what it met, and where in the user's code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    where = [line for line in lines if line.startswith("File ")]
    first = lines[0] if lines else type(error).__name__
    return f"{first} ({where[-1]})" if where else first


_LEVELS = ("_vmap_increment_nesting", "_jvp_increment_nesting")
"""Where a transform begins."""


def without_vmap(graph: fx.GraphModule, inputs: list[Tensor]) -> fx.GraphModule:
    """The graph with every `torch.vmap` in it written out as operations on batches, which a compiled loop can hold.

    So is every forward-mode derivative, which torch 2.11 traces once but not a second time.

    Without a tape: a graph that is to be differentiated loses its vmap where its gradient is traced.
    """
    levels = (n for n in graph.graph.nodes if getattr(n.target, "__name__", "") in _LEVELS)
    if next(levels, None) is None:
        return graph
    with torch.no_grad():
        # On fakes, because the graph may write to its inputs.
        plain = make_fx(graph, tracing_mode="fake")(*(x.detach() for x in inputs))
    return without_questions(plain)


def operations_of(function: Callable[..., Any], *inputs: Tensor) -> fx.GraphModule:
    """`make_fx` on real tensors.

    It notes the shape of every value on fake tensors; a mode for all of them spares it one, and a look at the whole of
    Python's stack, for each: half of its time.
    """
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
        return make_fx(function)(*inputs)


def without_questions(graph: fx.GraphModule) -> fx.GraphModule:
    """The graph without what forward-mode derivatives ask (are shapes alike?), whose answers Dynamo would refuse."""
    for node in reversed(graph.graph.nodes):
        if isinstance(node.target, torch._ops.OpOverload) and not node.users:
            kinds = {str(result.type) for result in node.target._schema.returns}
            if kinds == {"bool"}:
                graph.graph.erase_node(node)
    graph.recompile()
    return graph


def check_repeatable(graph: fx.GraphModule, inputs: list[Tensor], writable: list[Tensor]) -> None:
    """CannotCompile if the graph draws random numbers or writes to an input that is not `writable`; runs on fakes."""
    own = {id(x) for x in writable}
    plain = [x.detach() for x in inputs]
    with FakeTensorMode() as fakes, torch.no_grad():
        stand_ins: list[Tensor] = [fakes.from_tensor(x) for x in plain]
        given = [fake for fake, x in zip(stand_ins, inputs, strict=True) if id(x) not in own]
        habits = _Habits(given)
        try:
            with habits:
                graph(*stand_ins)
        except DataDependentOutputException as error:
            raise CannotCompile(f"the field looks at a value ({error}): every step would wait for the host") from error
    if habits.found is not None:
        raise CannotCompile(habits.found)


class _Habits(TorchDispatchMode):
    """Watches operations for what a graph must not repeat: random draws, and writes to tensors it was given."""

    def __init__(self, given: list[Tensor]) -> None:
        super().__init__()
        self.given = {x.untyped_storage()._cdata for x in given}
        self.found: str | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.found = f"{func} draws random numbers (dropout?): a step taken again would differ"
        elif func._schema.is_mutable:
            declared = zip(args, func._schema.arguments, strict=False)
            written = [a for a, formal in declared if formal.alias_info is not None and formal.alias_info.is_write]
            if any(isinstance(a, Tensor) and a.untyped_storage()._cdata in self.given for a in written):
                self.found = f"{func} writes to a tensor of the field's (batch statistics?)"
        return func(*args, **(kwargs or {}))
