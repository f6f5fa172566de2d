"""One contestant after another at its start, then all taking turns; whoever fails says why and stops nobody."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sciode.bench.contestants import Answer, Contestant, FellBack, Peer
from sciode.bench.timing import Timing, interleaved
from sciode.bench.workloads import OURS, lineup
from sciode.solvers.engines import ENGINES, CompileNotice

__all__ = ["Started", "start", "start_all", "take_turns"]


@dataclass(frozen=True)
class Started:
    """A contestant after its first call; `note` says why there is none, and what follows is then None.

    first_call: seconds, compilation included. memory: bytes beside the arguments, None where nobody counts them.
    read: what `start` was asked to make of the answer, None where there is no answer.
    """

    name: str
    peer: Peer
    note: str | None = None
    contestant: Contestant | None = None
    read: Any = None
    steps: int | None = None
    first_call: float | None = None
    memory: int | None = None


def start_all(names: Iterable[str], problem: Any, mode: str, look: Callable[[Answer], Any]) -> list[Started]:
    """`start` for each name in turn; memory that the one before has freed is given back first."""
    return [start(name, lineup(problem).get(name), problem, mode, look) for name in names]


def start(name: str, peer: Peer | None, problem: Any, mode: str, look: Callable[[Answer], Any]) -> Started:
    """Prepare a contestant, call it once, and `look` at its answer; an Exception becomes a note."""
    if peer is None:
        raise ValueError(f"contestants: nobody is called {name!r} here; there are {', '.join(lineup(problem))}")
    if peer.version is None:
        return Started(name, peer, note="not installed")
    engine = name.split()[0]
    if name in OURS and engine not in ENGINES:
        return Started(name, peer, note=f"n/a: no engine is called {engine!r}")
    with warnings.catch_warnings(record=True) as heard:
        # Always: a notice said once, to an earlier contestant, would be missed.
        warnings.simplefilter("always")
        try:
            return _started(name, peer, problem, mode, look)
        except FellBack as fault:
            notices = [str(found.message) for found in heard if issubclass(found.category, CompileNotice)]
            return Started(name, peer, note=": ".join(["n/a", str(fault), *notices[-1:]]))
        except Exception as fault:
            return Started(name, peer, note=_reason(fault))


def _started(name: str, peer: Peer, problem: Any, mode: str, look: Callable[[Answer], Any]) -> Started:
    device = problem.y0.device
    before = _reserved(device)
    contestant = peer.prepare(problem, mode)
    began = time.perf_counter()
    found = contestant.call()
    spent = time.perf_counter() - began
    answer = None if found is None else contestant.read(found)
    del found
    memory = contestant.memory() if contestant.memory and device.type == "cuda" else _needed(contestant, device, before)
    read, steps = (None, None) if answer is None else (look(answer), answer.steps)
    return Started(name, peer, None, contestant, read, steps, spent, memory)


def _reserved(device: torch.device) -> int:
    """Bytes PyTorch holds that it cannot give back: tensors, and what CUDA graphs keep for their replays."""
    if device.type != "cuda":
        return 0
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(device)


def _needed(contestant: Contestant, device: torch.device, before: int) -> int | None:
    """What the contestant keeps between calls, and the most a call needs beside that."""
    if device.type != "cuda":
        return None
    kept = _reserved(device) - before
    torch.cuda.reset_peak_memory_stats(device)
    base = torch.cuda.memory_allocated(device)
    contestant.call()
    return kept + torch.cuda.max_memory_allocated(device) - base


class _Guarded:
    """A call that, once it has failed, is not made again."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.fault: str | None = None

    def __call__(self) -> None:
        if self.fault is None:
            try:
                self.call()
            except Exception as fault:
                self.fault = f"n/a: {fault}" if isinstance(fault, FellBack) else _reason(fault)


def take_turns(
    started: Iterable[Started], repeats: int, warmup: int = 2, patience: float = float("inf")
) -> tuple[Mapping[str, Timing], Mapping[str, str]]:
    """(timings, faults) by name of those that started; a fault is why a contestant failed while it was timed."""
    calls = {found.name: _Guarded(found.contestant.call) for found in started if found.contestant is not None}
    timings = interleaved(calls, repeats, warmup, patience)
    faults = {name: call.fault for name, call in calls.items() if call.fault is not None}
    return {name: timing for name, timing in timings.items() if name not in faults}, faults


def _reason(fault: BaseException) -> str:
    """The kind of failure and the first line of what it says."""
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    return f"failed: {type(fault).__name__}: {lines[0][:200]}" if lines else f"failed: {type(fault).__name__}"
