"""Which adjoint `auto` means."""

from __future__ import annotations

import os

import torch

from ..transforms import transforming

__all__ = ["ADJOINTS", "choose_adjoint"]

ADJOINTS = ("auto", "direct", "recompute", "backsolve")
_ADAPTIVE_STEPS = 256
"""How many steps an adaptive solve is expected to take when its tape is sized up beforehand."""
_STATES_A_STAGE = 4
"""State-sized tensors that a stage keeps beside the field's own."""


def choose_adjoint(residuals: int, state_bytes: int, stages: int, steps: int | None, device: torch.device) -> str:
    """`direct` if the tape of the solve is likely to fit in a quarter of the free memory, else `recompute`.

    residuals: bytes autograd keeps of one evaluation of the field; steps: their number, None if not known beforehand.
    """
    if transforming():
        return "direct"
    per_step = stages * (residuals + _STATES_A_STAGE * state_bytes)
    return "direct" if per_step * (steps or _ADAPTIVE_STEPS) <= free_bytes(device) // 4 else "recompute"


def free_bytes(device: torch.device) -> int:
    """Free memory of a device; 4 GiB where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 4 * 2**30
