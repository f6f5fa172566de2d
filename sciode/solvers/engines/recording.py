"""Recording work on a card as a CUDA graph, undisturbed by Python's garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

__all__ = ["end_capture", "recording"]


@contextmanager
def recording(graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream | None = None, pool: Any = None) -> Iterator[None]:
    """Record into `graph` what is launched inside; other threads of the process may do as they please meanwhile.

    stream: to record on, one of PyTorch's own by default; gradients of weights want the stream of earlier steps. pool:
    memory that it shares with other graphs (`CUDAGraph.pool`).

    A graph that is destroyed in the middle of it spoils it ("operation failed due to a previous error during capture"),
    and graphs often lie in cycles, which Python takes away when it likes: so that is done before, and not inside.
    """
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
            yield
    finally:
        if collects:
            gc.enable()


def end_capture() -> None:
    """A capture that failed leaves torch's random numbers in the middle of it; one that does not fail ends that."""
    with suppress(RuntimeError), recording(torch.cuda.CUDAGraph()):
        torch.zeros((), device="cuda")
