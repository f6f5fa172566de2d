"""Repeating a graph on a CUDA device: k turns captured into one CUDA graph, replayed without a word from the host.

The host looks once a batch of replays, through pinned memory. How many turns a solve takes is remembered, so that a
solve like the last one is looked at once. Static buffers stay inside: what comes out is copied.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from .lift import CannotCompile, own_code
from .repeat import Part, Spare, Use, beginning

__all__ = ["InGraphs", "StepByStep"]

_LONGEST = 32
"""Most turns in one CUDA graph."""
_TUNED: dict[str, Any] = {
    "max_autotune_gemm": True, "max_autotune_gemm_backends": "ATEN,TRITON", "autotune_num_choices_displayed": 0
}  # fmt: skip
"""Matrix products by whichever is faster with what surrounds it, a library or a generated kernel: for the small ones of
a neural field the library splits sums over several launches (a neural ODE of 128 x 16 takes 2.0 ms instead of 3.3)."""
_LONG = 3e-4
"""Seconds of a turn from which on a look after every turn costs less than turns too many."""


class _Static:
    """The compiled turn over buffers that stay where they are.

    once: a turn; uses: what it does with each of the other tensors; first: what makes the first state, if the loop does
    so itself. Parameters are read where they lie; everything else is copied in and out.
    """

    def __init__(
        self, once: Part, uses: list[Use], first: Part | None, device: torch.device, spare: Spare | None = None
    ) -> None:
        self.first, self.uses, self.spare = first, uses, spare
        self.state: list[Tensor] = []
        self.buffers: list[Tensor] = []
        self.given: list[Tensor | None] = []
        self.fresh: list[int] = []
        self.report = self.host = torch.zeros(0)

        def turn(state: list[Tensor], buffers: list[Tensor], report: Tensor) -> None:
            # A turn too many, at the end of a batch of replays, changes nothing.
            going = state[-1][0] > 0
            after = [torch.where(going, new, old) for new, old in zip(once(state, buffers), state, strict=True)]
            report.copy_(torch.cat((after[-1], report[-1:] + going)))
            for old, new in zip(state, after, strict=True):
                old.copy_(new)

        def start(state: list[Tensor], buffers: list[Tensor], report: Tensor) -> None:
            begun = beginning(first, buffers)
            report.copy_(torch.cat((begun[-1], torch.zeros_like(report[-1:]))))
            for old, new in zip(state, begun, strict=True):
                old.copy_(new)

        self._turn, self._start = _compiled(turn, device), _compiled(start, device)

    def load(self, others: list[Tensor], state: list[Tensor] | None) -> bool:
        """Put this solve's tensors where the turn reads them; whether buffers had to be made anew."""
        moved = not self.given or any(
            (kept is not None and kept.data_ptr() != x.data_ptr()) or x.shape != buffer.shape
            for x, kept, buffer in zip(others, self.given, self.buffers, strict=True)
        )
        if moved:
            with torch.inference_mode(False), torch.no_grad():
                self._make(others, state)
        else:
            self.fill(others, state)
        return moved

    def _make(self, others: list[Tensor], state: list[Tensor] | None) -> None:
        """Buffers like this solve's tensors, with their values."""
        stays = [isinstance(x, nn.Parameter) for x in others]
        self.given = [x if s else None for x, s in zip(others, stays, strict=True)]
        self.buffers = [x.detach() if s else _copy_of(x) for x, s in zip(others, stays, strict=True)]
        self.fresh = [i for i, (s, use) in enumerate(zip(stays, self.uses, strict=True)) if not s and use != "filled"]
        self.state = [_copy_of(x) for x in (state or beginning(self.first, self.buffers))]
        size = self.state[-1].shape[0] + 1
        self.report = torch.zeros(size, dtype=torch.int64, device=others[0].device)
        self.host = torch.zeros(size, dtype=torch.int64, pin_memory=self.report.is_cuda)

    def fill(self, others: list[Tensor], state: list[Tensor] | None) -> None:
        """Copy this solve's tensors in."""
        to, source = [self.buffers[i] for i in self.fresh], [others[i] for i in self.fresh]
        _copy(to + self.state, source + state) if state is not None else _copy(to, source)
        if state is not None:
            self.report.zero_()

    def unload(self, others: list[Tensor], word: list[int]) -> list[Tensor]:
        """Copy out what was written, and the state; what is spare and not needed stays where it is."""
        sinks = [i for i, use in enumerate(self.uses) if use != "read"]
        spare = () if self.spare is None or word[self.spare.flag] else self.spare.tensors
        found = [x if i in spare else torch.empty_like(x) for i, x in enumerate(self.state)]
        wanted = [i for i in range(len(found)) if i not in spare]
        to, source = [found[i] for i in wanted], [self.state[i] for i in wanted]
        _copy([*to, *(others[i] for i in sinks)], [*source, *(self.buffers[i] for i in sinks)])
        return found

    def turn(self) -> None:
        """Launch one turn."""
        self._launch(self._turn)

    def start(self) -> None:
        """Launch what makes the first state."""
        self._launch(self._start)

    def _launch(self, part: Any) -> None:
        try:
            part(self.state, self.buffers, self.report)
        except TorchDynamoException as error:
            raise CannotCompile(f"Inductor could not compile it: {str(error).strip().splitlines()[0]}") from error

    def look(self) -> tuple[list[int], int]:
        """Wait for the device: its word, and how many turns were not in vain."""
        self.host.copy_(self.report, non_blocking=True)
        if self.report.is_cuda:
            torch.cuda.current_stream().synchronize()
        *word, turns = self.host.tolist()
        return word, turns


def _compiled(function: Any, device: torch.device) -> Any:
    options = _TUNED if device.type == "cuda" else None
    return torch.compile(own_code(function), fullgraph=True, dynamic=False, options=options)


def _copy_of(x: Tensor) -> Tensor:
    return x.detach().clone(memory_format=torch.contiguous_format)


def _copy(to: list[Tensor], source: list[Tensor]) -> None:
    """Copy many tensors, in one launch for each dtype."""
    for dtype in {x.dtype for x in to}:
        at = [i for i, x in enumerate(to) if x.dtype == dtype]
        torch._foreach_copy_([to[i] for i in at], [source[i] for i in at])  # pyright: ignore[reportPrivateImportUsage]


class StepByStep(_Static):
    """The compiled turn, launched and looked at turn by turn."""

    def __call__(self, others: list[Tensor], state: list[Tensor] | None) -> tuple[list[Tensor], list[int]]:
        """The state at the end, and its word."""
        self.load(others, state)
        if state is None:
            self.start()
            word, _ = self.look()
        else:
            word = [1]
        while word[0]:
            self.turn()
            word, _ = self.look()
        return self.unload(others, word), word


class InGraphs(_Static):
    """The compiled turn in CUDA graphs of 1, 2, 4, ... turns, captured when first needed (0: the start)."""

    def __init__(
        self, once: Part, uses: list[Use], first: Part | None, device: torch.device, spare: Spare | None = None
    ) -> None:
        super().__init__(once, uses, first, device, spare)
        self.graphs: dict[int, Any] = {}
        self.expected = 0
        self.long = False

    def __call__(self, others: list[Tensor], state: list[Tensor] | None) -> tuple[list[Tensor], list[int]]:
        """The state at the end, and its word."""
        if self.load(others, state):
            self.graphs.clear()
            self._warm_up()
            self.fill(others, state)
        began = time.monotonic()
        if state is None:
            self._graph(0).replay()
        # A step less where steps are long: better one look more than a step in vain.
        ahead = max(self.expected - 1, 0) if self.long else self.expected
        for k in _powers(ahead):
            self._graph(k).replay()
        word, turns = self.look() if ahead or state is None else ([1], 0)
        k = 1 if self.long else max(ahead // 8, 1)
        while word[0]:
            for part in _powers(k):
                self._graph(part).replay()
            word, turns = self.look()
            k = 1 if self.long else min(2 * k, _LONGEST)
        self.long = self.expected == turns and time.monotonic() - began > _LONG * max(turns, 1)
        self.expected = turns
        return self.unload(others, word), word

    def _warm_up(self) -> None:
        """Compile, and let libraries allocate, on a stream of its own, as capture wants it."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            if self.first is not None:
                self.start()
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
                    if turns == 0:
                        self.start()
            except RuntimeError as error:
                raise CannotCompile(f"it cannot be captured: {str(error).strip().splitlines()[0]}") from error
            self.graphs[turns] = graph
        return self.graphs[turns]


def _powers(k: int) -> list[int]:
    """k as a sum of powers of two, none above the longest graph."""
    parts = [_LONGEST] * (k // _LONGEST)
    return parts + [1 << b for b in range(k.bit_length()) if (k % _LONGEST) >> b & 1]
