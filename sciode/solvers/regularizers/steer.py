"""Random end times in training: a field that has to be right a little earlier and later becomes a smoother one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..suggest import choose

__all__ = ["steer"]


def steer(
    ts: Tensor | Sequence[float], spread: float, seed: int | torch.Generator, which: Literal["end", "gaps"] = "end"
) -> Tensor:
    """Times for one training step: the last one, or all but the first, moved at random.

    - ts [T]: increasing or decreasing. Returns float64 [T] on the device of ts; the first time stays.
    - which="end": t_T ~ U(t_T - spread, t_T + spread), spread in units of time; good: half the interval.
    - which="gaps": t_i ~ U(t_i - spread gap, t_i + spread gap), where gap is the smaller of the two beside t_i (the
      last has one); spread at most 0.5 keeps the order.
    - seed: another one for each training step, or a torch.Generator that goes on.
    Raises ValueError where times could change their order. Leave it out of test runs.

    Source: Ghosh, Behl, Dupont, Torr, Namboodiri: STEER, simple temporal regularization for neural ODEs (NeurIPS 2020).
    """
    choose("which", which, ("end", "gaps"))
    given = torch.as_tensor(ts, dtype=torch.float64)
    times = given.cpu()
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"ts: expected at least two times [T], got {[*times.shape]}")
    gaps = times.diff().abs()
    limit = float(gaps[-1]) if which == "end" else 0.5
    if not 0 <= spread <= limit:
        raise ValueError(f"spread: {spread:g} could change the order of the times; at most {limit:g}")
    draw = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    shifts = (2 * torch.rand(len(times), dtype=torch.float64, generator=draw, device=draw.device).cpu() - 1) * spread
    shifts[0] = 0.0
    if which == "end":
        shifts[:-1] = 0.0
    else:
        shifts[1:-1] *= torch.minimum(gaps[:-1], gaps[1:])
        shifts[-1] *= gaps[-1]
    return (times + shifts).to(given.device)
