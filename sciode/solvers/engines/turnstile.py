"""One thread at a time: what was compiled has buffers of its own, and tracing has switches of the whole process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

__all__ = ["alone"]

_lock = RLock()
_last: dict[torch.device, torch.cuda.Stream] = {}
"""The stream that last worked on the buffers of a device."""


@contextmanager
def alone(device: torch.device) -> Iterator[None]:
    """Inside, this thread alone traces, compiles and runs loops; what another stream left to do is done first.

    Nothing inside may wait for a backward pass through a solve: on a GPU that runs in a thread of autograd's.
    """
    with _lock:
        if device.type == "cuda":
            stream = torch.cuda.current_stream(device)
            before = _last.get(stream.device)
            if before is not None and before != stream:
                stream.wait_stream(before)
            _last[stream.device] = stream
        yield
