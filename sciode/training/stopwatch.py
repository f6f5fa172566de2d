"""Seconds of work, without those of looking at it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import torch

__all__ = ["Stopwatch"]


@final
class Stopwatch:
    """Seconds since it was made, pauses left out: of this process on a CPU, which others may share; else of the wall.

    before: seconds to begin with, of a run that goes on. A look at it waits for what a CUDA device has to do.
    """

    def __init__(self, device: torch.device | str = "cpu", before: float = 0.0) -> None:
        self.device = torch.device(device)
        self._began = self._now() - before

    def spent(self) -> float:
        """Seconds."""
        return self._now() - self._began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what the block takes, also if it fails."""
        at = self._now()
        try:
            yield
        finally:
            self._began += self._now() - at

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.process_time() if self.device.type == "cpu" else time.perf_counter()
