"""Where a network trains."""

from __future__ import annotations

import torch


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device of a name; "auto" is the first CUDA GPU, else the CPU. ValueError for one that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as fault:
        raise ValueError(f"device {str(name)!r} is not available here: use 'auto' or 'cpu'") from fault
