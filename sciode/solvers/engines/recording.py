"""Recording work on a card as a CUDA graph, undisturbed by Python's garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["recording"]


@contextmanager
def recording(graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream | None = None) -> Iterator[None]:
    """Record into `graph` what is launched inside; other threads of the process may do as they please meanwhile.

    stream: to record on, one of PyTorch's own by default. Gradients of weights want the stream of earlier steps.

    A graph that is destroyed in the middle of it spoils it ("operation failed due to a previous error during capture"),
    and graphs often lie in cycles, which Python takes away when it likes: so that is done before, and not inside.
    """
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            yield
    finally:
        if collects:
            gc.enable()
