"""Points spread over processes: every rank draws its own, and gradients are averaged, so that all hold one network.

    # torchrun --nproc-per-node 4 mine.py
    torch.distributed.init_process_group()
    solve(problem, ..., share=averaged())

Arms need no word between processes: give rank r of R `conditions=masks[r::R]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
import torch.distributed as dist

from sciode.pinn.loss import Measured

__all__ = ["Averaged", "averaged"]


@final
@dataclass(frozen=True)
class Averaged:
    """Means over ranks of losses, gradients and terms; rank: which points a process draws."""

    rank: int
    size: int

    def __call__(self, measured: Measured) -> Measured:
        """Return the mean of what all ranks measured, the same on each."""
        flat = torch.cat([part.reshape(-1) for part in measured])
        dist.all_reduce(flat)
        parts = (flat / self.size).split([part.numel() for part in measured])
        return Measured(*(new.reshape(old.shape) for new, old in zip(parts, measured, strict=True)))


def averaged() -> Averaged:
    """Return the means over the process group that was started. ValueError without one."""
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError("averaged() needs a process group: call torch.distributed.init_process_group() under torchrun")
    return Averaged(dist.get_rank(), dist.get_world_size())
