"""Repeating a graph on a CUDA device: k turns captured into one CUDA graph, replayed without a word from the host.

The host looks once a batch of replays, through pinned memory. How many turns a solve takes is remembered, so that a
solve like the last one is looked at once. Static buffers stay inside: what comes out is copied.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from .launches import Launches, StepByStep
from .lift import CannotCompile
from .recording import end_capture, recording
from .repeat import Part, Repeat, Spare, Use, beginning
from .shelf import Shelf
from .tuning import LONG, flops_of

__all__ = ["InGraphs", "copied", "on_device"]

_LONGEST = 32
"""Most turns in one CUDA graph."""
_WHOLE = 4
"""Graphs of whole loops that are kept, the least recently used dropped first."""
_HELD = 2**27
"""Bytes that a graph would copy into buffers of its own from which on that costs more than long launches do."""


def on_device(engine: str, once: Part, uses: list[Use], first: Part | None, spare: Spare | None = None) -> Repeat:
    """CUDA graphs, or launches turn by turn where those are long: then graphs save nothing, but copy and hold much.

    The compiled engine always launches.
    """
    best: Launches | None = None

    def repeat(
        others: list[Tensor], state: list[Tensor] | None, nth: int, turns: int | None
    ) -> tuple[list[Tensor], list[int]]:
        nonlocal best
        if best is None:
            flops = flops_of(once, first, others, state)
            held = sum(x.numel() * x.element_size() for x in others if not isinstance(x, nn.Parameter))
            launched_each = engine == "compiled" or (flops >= LONG and held > _HELD)
            best = (StepByStep if launched_each else InGraphs)(once, uses, first, spare, flops)
        return best(others, state, nth, turns)

    return repeat


@final
class InGraphs(Launches):
    """The compiled turn in CUDA graphs of 1, 2, 4, ... turns, captured when first needed (0: the start).

    Loops that are always as long get a graph of their whole length. Its buffers stay where they are. Parameters are
    read where they lie, scratch is written where it lies; everything else is copied in and out, unless it is known to
    lie there already. flops: of a turn (see `tuning`).
    """

    def __init__(
        self, once: Part, uses: list[Use], first: Part | None, spare: Spare | None = None, flops: float = 0.0
    ) -> None:
        super().__init__(uses, first, spare)
        self.graphs: dict[int, Any] = {}
        self.whole: OrderedDict[tuple[bool, int], Any] = OrderedDict()
        self.shelf = Shelf([])
        self.buffers: list[Tensor] = []
        self.given: list[Tensor | None] = []
        self.fresh: list[int] = []
        self.copied: dict[int, tuple[Tensor, int]] = {}
        self.said = torch.zeros(0)
        self.sinks = [i for i, use in enumerate(uses) if use in ("kept", "filled")]
        self.steps = StepByStep(once, uses, first, spare, flops)

    def load(self, others: list[Tensor], state: list[Tensor] | None) -> None:
        """Put this solve's tensors where the turn reads them; capture again where buffers had to be made anew."""
        moved = not self.given or any(
            (kept is not None and kept.data_ptr() != x.data_ptr()) or x.shape != buffer.shape
            for x, kept, buffer in zip(others, self.given, self.buffers, strict=True)
        )
        if moved:
            with torch.inference_mode(False), torch.no_grad():
                self._make(others, state)
            self.graphs.clear()
            self.whole.clear()
            self._warm_up()
        self._fill(others, state)

    def _make(self, others: list[Tensor], state: list[Tensor] | None) -> None:
        """Buffers like this solve's tensors, with their values."""
        stays = [isinstance(x, nn.Parameter) or use == "scratch" for x, use in zip(others, self.uses, strict=True)]
        self.given = [x if s else None for x, s in zip(others, stays, strict=True)]
        self.buffers = [x.detach() if s else _copy_of(x) for x, s in zip(others, stays, strict=True)]
        self.fresh = [i for i, (s, use) in enumerate(zip(stays, self.uses, strict=True)) if not s and use != "filled"]
        self.copied = {}
        apart = () if self.spare is None else self.spare.tensors
        self.shelf = Shelf(state or beginning(self.first, self.buffers), apart)
        self.said = torch.zeros(self.state[-1].shape[0] + 1, dtype=torch.int64, device=others[0].device)

    @property
    def state(self) -> list[Tensor]:
        """The loop's state, as the last turn left it."""
        return self.shelf.tensors

    def _fill(self, others: list[Tensor], state: list[Tensor] | None) -> None:
        """Copy this solve's tensors in."""
        fresh = [i for i in self.fresh if self.uses[i] != "own" or self._changed(i, others[i])]
        to, source = [self.buffers[i] for i in fresh], [others[i] for i in fresh]
        copied(to + self.state, source + state) if state is not None else copied(to, source)
        if state is not None:
            self.said[:-1].copy_(state[-1])
            self.said[-1].zero_()

    def _changed(self, i: int, x: Tensor) -> bool:
        """Whether buffer i has yet to be filled from this tensor; not if it was, and nobody has written to it since."""
        if x.is_inference():
            self.copied.pop(i, None)
            return True
        was, version = self.copied.get(i, (None, 0))
        self.copied[i] = (x, x._version)
        return was is None or (was.data_ptr(), version, was.stride()) != (x.data_ptr(), x._version, x.stride())

    def unload(self, others: list[Tensor], spare: bool) -> list[Tensor]:
        """Copy out what was written, and the state; what is spare and not wanted stays where it is."""
        copied([others[i] for i in self.sinks], [self.buffers[i] for i in self.sinks])
        return self.shelf.copies(self.spare.tensors if self.spare is not None and spare else ())

    def begin(self, fresh: bool, turns: int, steady: bool) -> None:
        """In one graph, if loops are always as long."""
        if not steady or not 0 < turns <= _LONGEST:
            return super().begin(fresh, turns, steady)
        whole = self.whole.get((fresh, turns))
        if whole is None:
            whole = self.whole[fresh, turns] = self._captured(fresh, turns)
            while len(self.whole) > _WHOLE:
                self.whole.popitem(last=False)
        self.whole.move_to_end((fresh, turns))
        whole.replay()

    def start(self) -> None:
        """Replay what makes the first state."""
        self._graph(0).replay()

    def play(self, turns: int) -> None:
        """Replay the graphs whose turns add up to so many."""
        for part in _powers(turns):
            self._graph(part).replay()

    def report(self) -> Tensor:
        """A buffer, as the last turn left it."""
        return self.said

    def forget(self) -> None:
        """Nothing here is the caller's own."""

    def _warm_up(self) -> None:
        """Compile, and let libraries allocate, on a stream of its own, as capture wants it."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._compile()
        torch.cuda.current_stream().wait_stream(stream)

    def _compile(self) -> None:
        """Everything that a graph can hold: a capture ends where something has to be compiled in it."""
        self._launch(self.first is not None, 2)

    def _launch(self, fresh: bool, turns: int) -> None:
        """What a graph holds: each turn reads what the one before made, and the last one's is put where it stays."""
        steps = self.steps
        steps.others, steps.state, steps.said = self.buffers, self.state, self.said
        if fresh:
            steps.start()
            # Of what is made first, some is made once for several places; a turn is compiled for tensors apart.
            self._keep()
        steps.play(turns)
        self._keep()
        steps.forget()

    def _keep(self) -> None:
        """Put the state and its word where they stay."""
        steps = self.steps
        copied([*self.state, self.said], [*steps.state, steps.said])
        steps.state, steps.said = self.state, self.said

    def _graph(self, turns: int) -> Any:
        if turns not in self.graphs:
            self.graphs[turns] = self._captured(turns == 0, turns)
        return self.graphs[turns]

    def _captured(self, fresh: bool, turns: int) -> Any:
        """A graph of what makes the first state, if that is asked for, and of so many turns."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        try:
            with recording(graph):
                self._launch(fresh, turns)
        except RuntimeError as error:
            end_capture()
            raise CannotCompile(f"it cannot be captured: {str(error).strip().splitlines()[0]}") from error
        return graph


def _copy_of(x: Tensor) -> Tensor:
    return x.detach().clone(memory_format=torch.contiguous_format)


def copied(to: Sequence[Tensor], source: Sequence[Tensor]) -> None:
    """Copy many tensors, in one launch for each dtype."""
    for dtype in {x.dtype for x in to}:
        at = [i for i, x in enumerate(to) if x.dtype == dtype]
        torch._foreach_copy_([to[i] for i in at], [source[i] for i in at])  # pyright: ignore[reportPrivateImportUsage]


def _powers(k: int) -> list[int]:
    """k as a sum of powers of two, none above the longest graph; short ones first, so that the device begins soon."""
    short = [1 << b for b in range(k.bit_length()) if (k % _LONGEST) >> b & 1]
    return short + [_LONGEST] * (k // _LONGEST)
