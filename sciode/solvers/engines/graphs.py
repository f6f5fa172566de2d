"""Repeating a graph on a CUDA device: k turns captured into one CUDA graph, replayed without a word from the host.

The host looks once a batch of replays, through pinned memory. How many turns a solve takes is remembered, so that a
solve like the last one is looked at once. Static buffers stay inside: what comes out is copied.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from .lift import CannotCompile, own_code
from .repeat import Body, Use

__all__ = ["InGraphs", "StepByStep"]

_LONGEST = 32
"""Most turns in one CUDA graph."""


class _Static:
    """The compiled turn over buffers that stay where they are.

    positions: for every input of the body, which tensor of the state it is, -1 for what does not change; written: what
    the body does with each. Parameters are read where they lie; everything else is copied in and out.
    """

    def __init__(self, body: Body, positions: list[int], written: list[Use]) -> None:
        self.positions, self.written = positions, written
        self.place = {p: i for i, p in enumerate(positions) if p >= 0}
        self.buffers: list[Tensor] = []
        self.given: list[Tensor | None] = []

        def once(buffers: list[Tensor], report: Tensor) -> None:
            before = [buffers[self.place[p]] for p in range(len(self.place))]
            # A turn too many, at the end of a batch of replays, changes nothing.
            going = before[-1][0] > 0
            state = [torch.where(going, new, old) for new, old in zip(body(*buffers), before, strict=True)]
            report.copy_(torch.cat((state[-1], report[-1:] + going)))
            for old, new in zip(before, state, strict=True):
                old.copy_(new)

        self.once = _compiled(once)
        self.report = torch.zeros(0)
        self.host = torch.zeros(0)
        self.fresh: list[bool] = []

    def load(self, inputs: list[Tensor]) -> bool:
        """Put this solve's tensors where the turn reads them; whether buffers had to be made anew."""
        moved = not self.given or any(
            (kept is not None and kept.data_ptr() != x.data_ptr()) or x.shape != buffer.shape
            for x, kept, buffer in zip(inputs, self.given, self.buffers, strict=True)
        )
        if moved:
            stays = [isinstance(x, nn.Parameter) for x in inputs]
            self.given = [x if s else None for x, s in zip(inputs, stays, strict=True)]
            self.buffers = [
                x.detach() if s else x.detach().clone(memory_format=torch.contiguous_format)
                for x, s in zip(inputs, stays, strict=True)
            ]
            size = self.buffers[self.place[len(self.place) - 1]].shape[0] + 1
            self.report = torch.zeros(size, dtype=torch.int64, device=inputs[0].device)
            self.host = torch.zeros(size, dtype=torch.int64, pin_memory=self.report.is_cuda)
            self.fresh = [not s and use != "filled" for s, use in zip(stays, self.written, strict=True)]
        else:
            self.fill(inputs)
        return moved

    def fill(self, inputs: list[Tensor]) -> None:
        """Copy this solve's tensors in."""
        at = [i for i, fresh in enumerate(self.fresh) if fresh]
        _copy([self.buffers[i] for i in at], [inputs[i] for i in at])
        self.report.zero_()

    def unload(self, inputs: list[Tensor]) -> list[Tensor]:
        """Copy out what was written, and the state."""
        sinks = [i for i, use in enumerate(self.written) if use != "read"]
        state = [self.buffers[self.place[p]] for p in range(len(self.place))]
        copies = [torch.empty_like(x) for x in state]
        _copy([*copies, *(inputs[i] for i in sinks)], [*state, *(self.buffers[i] for i in sinks)])
        return copies

    def turn(self) -> None:
        """Launch one turn."""
        try:
            self.once(self.buffers, self.report)
        except TorchDynamoException as error:
            raise CannotCompile(f"Inductor could not compile it: {str(error).strip().splitlines()[0]}") from error

    def look(self) -> tuple[list[int], int]:
        """Wait for the device: its word, and how many turns were not in vain."""
        self.host.copy_(self.report, non_blocking=True)
        if self.report.is_cuda:
            torch.cuda.current_stream().synchronize()
        *word, turns = self.host.tolist()
        return word, turns


def _compiled(function: Any) -> Any:
    return torch.compile(own_code(function), fullgraph=True, dynamic=False)


def _copy(to: list[Tensor], source: list[Tensor]) -> None:
    """Copy many tensors, in one launch for each dtype."""
    for dtype in {x.dtype for x in to}:
        at = [i for i, x in enumerate(to) if x.dtype == dtype]
        torch._foreach_copy_([to[i] for i in at], [source[i] for i in at])  # pyright: ignore[reportPrivateImportUsage]


class StepByStep(_Static):
    """The compiled turn, launched and looked at turn by turn."""

    def __call__(self, inputs: list[Tensor]) -> tuple[list[Tensor], list[int]]:
        """The state at the end, and its word."""
        self.load(inputs)
        word = [1]
        while word[0]:
            self.turn()
            word, _ = self.look()
        return self.unload(inputs), word


class InGraphs(_Static):
    """The compiled turn in CUDA graphs of 1, 2, 4, ... turns, captured when first needed."""

    def __init__(self, body: Body, positions: list[int], written: list[Use]) -> None:
        super().__init__(body, positions, written)
        self.graphs: dict[int, Any] = {}
        self.expected = 0

    def __call__(self, inputs: list[Tensor]) -> tuple[list[Tensor], list[int]]:
        """The state at the end, and its word."""
        if self.load(inputs):
            self.graphs.clear()
            self._warm_up()
            self.fill(inputs)
        for k in _powers(self.expected):
            self._graph(k).replay()
        word, turns = self.look() if self.expected else ([1], 0)
        k = max(self.expected // 8, 1)
        while word[0]:
            for part in _powers(k):
                self._graph(part).replay()
            word, turns = self.look()
            k = min(2 * k, _LONGEST)
        self.expected = turns
        return self.unload(inputs), word

    def _warm_up(self) -> None:
        """Compile, and let libraries allocate, on a stream of its own, as capture wants it."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.turn()
        torch.cuda.current_stream().wait_stream(stream)

    def _graph(self, turns: int) -> Any:
        if turns not in self.graphs:
            graph = torch.cuda.CUDAGraph()
            torch.cuda.synchronize()
            try:
                with torch.cuda.graph(graph):
                    for _ in range(turns):
                        self.turn()
            except RuntimeError as error:
                raise CannotCompile(f"it cannot be captured: {str(error).strip().splitlines()[0]}") from error
            self.graphs[turns] = graph
        return self.graphs[turns]


def _powers(k: int) -> list[int]:
    """k as a sum of powers of two, none above the longest graph."""
    parts = [_LONGEST] * (k // _LONGEST)
    return parts + [1 << b for b in range(k.bit_length()) if (k % _LONGEST) >> b & 1]
