"""How a loss is evaluated: as it is written, replayed as one graph of the device, or compiled before that.

A program is a pure function of tensors. What runs it is chosen by name:

- "eager": operation by operation.
- "capture": recorded once as a CUDA graph and replayed, which takes away what launching costs; the same numbers.
- "compile": traced, fused by Inductor, and recorded where there is a card. Programs that come to the same operations
  share what was compiled: tasks of a family that differ in parameters alone compile once.
- "auto" (default): "capture" on a card, "eager" elsewhere and where recording fails.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, final

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from sciode.solvers.engines.graphs import copied
from sciode.solvers.engines.lift import by_inductor, own_code, without_questions
from sciode.solvers.engines.recording import recording
from sciode.solvers.suggest import choose

__all__ = ["ENGINES", "Engine", "Program", "engine_of"]

Program = Callable[..., tuple[Tensor, ...]]
"""Tensors -> tensors, nothing else read or written."""

_KEPT = 16
"""How many compiled programs stay, the latest ones."""


class Engine(ABC):
    """Runs programs. lifts: whether numbers of the equation are handed to it as tensors. records: whether a program of
    more operations, a whole iteration, is worth being made."""

    lifts = False
    records = False

    @abstractmethod
    def prepared(self, program: Program, inputs: Sequence[Tensor]) -> Program:
        """Return the same function of inputs of these shapes, faster if it can be, to be part of others.

        Raises ValueError for a program that the engine cannot run.
        """

    @abstractmethod
    def recorded(self, program: Program, inputs: Sequence[Tensor]) -> Program:
        """Return the same function of inputs of these shapes, to be called many times."""


@final
class Eager(Engine):
    """Operation by operation."""

    def prepared(self, program: Program, inputs: Sequence[Tensor]) -> Program:
        """See `Engine.prepared`."""
        return program

    def recorded(self, program: Program, inputs: Sequence[Tensor]) -> Program:
        """See `Engine.recorded`."""
        return program


@final
class Capturing(Engine):
    """As one CUDA graph. cautious: operation by operation, with a warning, where that cannot be recorded."""

    records = True

    def __init__(self, cautious: bool) -> None:
        self.cautious = cautious

    def prepared(self, program: Program, inputs: Sequence[Tensor]) -> Program:
        """See `Engine.prepared`."""
        return program

    def recorded(self, program: Program, inputs: Sequence[Tensor]) -> Program:
        """See `Engine.recorded`."""
        try:
            return _Recorded(program, inputs)
        except RuntimeError as error:
            if not self.cautious:
                raise ValueError(f'the loss cannot be recorded: {_first(error)}; take engine="eager"') from error
            warnings.warn(f"the loss cannot be recorded and runs operation by operation: {_first(error)}", stacklevel=2)
            return program


@final
class Compiling(Engine):
    """By Inductor, and as one CUDA graph where there is a card."""

    lifts = True

    def __init__(self, device: torch.device) -> None:
        self.records = device.type == "cuda"

    def prepared(self, program: Program, inputs: Sequence[Tensor]) -> Program:
        """See `Engine.prepared`."""
        # On stand-ins, so that nothing is computed; constants that the program holds are real.
        plain = [x.detach() for x in inputs]
        try:
            traced = make_fx(program, tracing_mode="fake", _allow_non_fake_inputs=True)(*plain)
        except Exception as error:
            raise ValueError(
                f"the loss cannot be compiled: {_first(error)}. Ask no tensor for its value, as `if` and `float` do, "
                'or take engine="eager"'
            ) from error
        graph = without_questions(traced)
        # Forward-mode derivatives bring numbers as tensors of the host, which no recording could read.
        graph = graph.to(plain[0].device)
        key = _digest(graph, plain)
        if key not in _compiled:
            _compiled[key] = _inductor(graph)
            while len(_compiled) > _KEPT:
                _compiled.popitem(last=False)
        _compiled.move_to_end(key)
        return _compiled[key]

    def recorded(self, program: Program, inputs: Sequence[Tensor]) -> Program:
        """See `Engine.recorded`."""
        return _Recorded(program, inputs) if self.records else program


_compiled: OrderedDict[str, Program] = OrderedDict()

ENGINES: dict[str, Callable[[torch.device], Engine]] = {
    "auto": lambda device: Capturing(cautious=True) if device.type == "cuda" else Eager(),
    "eager": lambda device: Eager(),
    "capture": lambda device: Capturing(cautious=False),
    "compile": Compiling,
}
"""By name: the device -> an engine."""


def engine_of(name: str, device: torch.device) -> Engine:
    """Return the engine of a name. ValueError for an unknown one, or for "capture" without a card."""
    choose("engine", name, ENGINES)
    if name == "capture" and device.type != "cuda":
        raise ValueError('engine="capture" needs a CUDA device: take "eager" or "compile"')
    return ENGINES[name](device)


@final
class _Recorded:
    """A program as a CUDA graph, with inputs of its own that those of a call are copied into."""

    def __init__(self, program: Program, inputs: Sequence[Tensor]) -> None:
        # A graph knows the program's own tensors by their place in memory alone: they have to stay.
        self.program = program
        self.inputs = [x.detach().clone(memory_format=torch.contiguous_format) for x in inputs]
        self.seen: list[tuple[Tensor, int] | None] = [None] * len(inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # Compiles, and lets libraries allocate, outside of the recording.
            for _ in range(2):
                program(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with recording(self.graph):
            self.outputs = program(*self.inputs)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Replay; what has not changed since the last call is not copied again."""
        fresh = []
        for place, x in enumerate(inputs):
            # Held, so that no other tensor can take its place in memory and pass for it.
            if (old := self.seen[place]) is None or old[0] is not x or old[1] != x._version:
                fresh.append(place)
                self.seen[place] = (x, x._version)
        copied([self.inputs[place] for place in fresh], [inputs[place] for place in fresh])
        self.graph.replay()
        given = [torch.empty_like(x) for x in self.outputs]
        copied(given, self.outputs)
        return tuple(given)


def _inductor(graph: fx.GraphModule) -> Program:
    """Operations fused into kernels; what is returned holds the graph and its constants."""

    def run(*inputs: Tensor) -> Any:
        return graph(*inputs)

    compiled = torch.compile(own_code(run), backend=by_inductor({}), fullgraph=True, dynamic=False)

    def ready(*inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(compiled(*inputs))

    return ready


def _digest(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> str:
    """What a compiled program hangs on: operations, constants, and the inputs' shapes."""
    found = sha256(graph.code.encode())
    for name, value in sorted(graph.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.cpu().numpy().tobytes())
    found.update(repr([(x.dtype, tuple(x.shape), x.stride(), str(x.device)) for x in inputs]).encode())
    return found.hexdigest()


def _first(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
