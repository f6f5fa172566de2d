"""What a step of our engines is made of: kernels, waits for the device, and how much of the time is the field's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from sciode.bench.floor import prepare_field
from sciode.bench.measuring import Started, start_all
from sciode.bench.problems import Problem
from sciode.bench.timing import interleaved
from sciode.bench.workloads import OURS, Workload

__all__ = ["Anatomy", "anatomies", "census"]

_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cuStreamSynchronize")


@dataclass(frozen=True)
class Anatomy:
    """One call of an engine. On a CPU, and where a number says nothing, None.

    kernels, launches, syncs: for each trial step of the sample that took most, of kernels run by the device, launches
    by the host (a CUDA graph is one) and waits of the host for the device. busy: seconds the kernels took. field_share:
    seconds of the bare field for as many evaluations, over seconds of the call; above 1 where an engine fuses what the
    field does operation by operation.
    """

    workload: str
    contestant: str
    steps: int | None
    kernels: float | None = None
    launches: float | None = None
    syncs: float | None = None
    busy: float | None = None
    field_share: float | None = None

    def __str__(self) -> str:
        parts = {"kernels": self.kernels, "launches": self.launches, "syncs": self.syncs}
        counted = "".join(f", {value:.3g} {name} a step" for name, value in parts.items() if value is not None)
        busy = "" if self.busy is None else f", kernels run {1e3 * self.busy:.3g} ms"
        share = "" if self.field_share is None else f", the field's share {100 * self.field_share:.0f} %"
        return f"  {self.contestant}: {self.steps} steps{counted}{busy}{share}"


def anatomies(workload: Workload, device: str) -> list[Anatomy]:
    """Each engine of ours that runs this workload; not eager on a GPU, whose events would take minutes to read."""
    problem = workload.problem().to(device)
    names = [name for name in workload.contestants if name in OURS and (device == "cpu" or name != "eager")]
    started = [found for found in start_all(names, problem, workload.mode, lambda answer: None) if found.contestant]
    shares = _field_shares(started, problem, workload.mode)
    return [_dissected(workload.name, found, device, shares.get(found.name)) for found in started]


def _field_shares(started: list[Started], problem: Any, mode: str) -> dict[str, float]:
    """The time of the bare field over that of each contestant; none for an SDE, whose field is two functions."""
    if not isinstance(problem, Problem) or not started:
        return {}
    calls = {found.name: found.contestant.call for found in started if found.contestant is not None}
    timings = interleaved({"field": prepare_field(problem, mode).call, **calls}, repeats=5, warmup=1, patience=5.0)
    return {name: timings["field"].median / timings[name].median for name in calls}


def _dissected(workload: str, found: Started, device: str, share: float | None) -> Anatomy:
    bare = Anatomy(workload, found.name, found.steps, field_share=share)
    if device != "cuda" or found.contestant is None or not found.steps:
        return bare
    # What the profiler and our own wait at the end of the call add.
    ground, _ = census(torch.cuda.synchronize)
    counts, busy = census(found.contestant.call)
    kernels, launches, syncs = (
        max(counts[kind] - ground[kind], 0) / found.steps for kind in ("kernel", "launch", "sync")
    )
    return Anatomy(workload, found.name, found.steps, kernels, launches, syncs, busy, share)


def census(call: Callable[[], Any]) -> tuple[Counter[str], float]:
    """Kernels, launches and syncs of one call, and the seconds of its kernels, as torch's profiler sees them."""
    from torch.profiler import ProfilerActivity, profile

    call()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    counts: Counter[str] = Counter()
    busy = 0.0
    for event in seen.events() or ():
        if event.device_type.name == "CUDA" and not event.name.startswith(("Memcpy", "Memset")):
            counts["kernel"] += 1
            busy += event.time_range.elapsed_us() * 1e-6
        elif event.name in _LAUNCHES:
            counts["launch"] += 1
        elif event.name in _WAITS:
            counts["sync"] += 1
    return counts, busy
