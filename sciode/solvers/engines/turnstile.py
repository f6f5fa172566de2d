"""One thread at a time: what was compiled has buffers of its own, and tracing has switches of the whole process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

__all__ = ["alone"]

_lock = RLock()
_last: dict[torch.device, tuple[int, torch.cuda.Stream]] = {}
"""The stream that last worked on the buffers of a device, and its address, which is asked for in no time."""


@contextmanager
def alone(device: torch.device) -> Iterator[None]:
    """Inside, this thread alone traces, compiles and runs loops; what another stream left to do is done first.

    Nothing inside may wait for a backward pass through a solve: on a GPU that runs in a thread of autograd's.
    """
    with _lock:
        if device.type == "cuda":
            address = torch._C._cuda_getCurrentRawStream(device.index)
            before = _last.get(device)
            if before is None or before[0] != address:
                stream = torch.cuda.current_stream(device)
                if before is not None:
                    stream.wait_stream(before[1])
                _last[device] = address, stream
        yield
