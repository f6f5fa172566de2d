"""Wall-clock medians of calls that take turns, and the machine they were measured on."""

from __future__ import annotations

import gc
import math
import os
import platform
import time
from collections.abc import Callable, Hashable, Mapping
from datetime import date
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple, TypeVar

import torch

__all__ = ["Timing", "interleaved", "machine"]


_FEWEST = 3
"""Timed calls below which nobody is impatient: a median needs some."""

Key = TypeVar("Key", bound=Hashable)


class Timing(NamedTuple):
    """Seconds of one call over the repeats: the median, and the quartiles around it."""

    median: float
    low: float
    high: float

    @property
    def steady(self) -> bool:
        """Whether the quartiles lie within a fifth of the median: else something else had the machine."""
        return self.high - self.low <= 0.2 * self.median


def interleaved(
    calls: Mapping[Key, Callable[[], Any]], repeats: int, warmup: int = 2, patience: float = math.inf
) -> dict[Key, Timing]:
    """Time each call `repeats` times after `warmup` untimed ones, all calls taking turns in an order that rotates.

    A machine that slows down for a while thus slows everybody, and nobody always follows the same neighbour.
    Garbage is collected between the calls, so that none pays for another's; what lives before the first is set aside
    meanwhile, since looking through every imported library each time would take longer than the calls. Whoever has used
    up `patience` seconds, and has been timed three times, is called no more.

    Raises ValueError if repeats < 1 or warmup < 0.
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats must be >= 1 and warmup >= 0, got {repeats} and {warmup}")
    names = list(calls)
    seconds: dict[Key, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.freeze()
    try:
        for turn in range(warmup + repeats):
            first = turn % max(len(names), 1)
            for name in names[first:] + names[:first]:
                if len(seconds[name]) >= _FEWEST and sum(seconds[name]) >= patience:
                    continue
                spent = _seconds(calls[name])
                if turn >= warmup:
                    seconds[name].append(spent)
    finally:
        gc.unfreeze()
    return {name: _summary(values) for name, values in seconds.items()}


def _seconds(call: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _summary(values: list[float]) -> Timing:
    if len(values) == 1:
        return Timing(values[0], values[0], values[0])
    low, _, high = quantiles(values, n=4, method="inclusive")
    return Timing(median(values), low, high)


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, cores this process may use, threads, system, Python, torch, date."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
