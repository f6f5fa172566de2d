"""How a turn on a CUDA device is compiled, by how much arithmetic its matrix products are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from .lift import by_inductor, own_code
from .repeat import Part, beginning

__all__ = ["LONG", "compiled", "flops_of"]

LONG = 1e10
"""Floating point operations of a turn from which on it takes the device longer than the host takes to launch it."""
_SMALL = 2e9
"""The same, up to which products are tuned: beyond, the library was always the faster (neural ODE 16384 x 128, 1024
hidden), and finding that out took four minutes."""
_TUNED: dict[str, Any] = {
    "max_autotune_gemm": True,
    "max_autotune_gemm_backends": "ATEN,TRITON",
    "max_autotune_prune_choices_based_on_shared_mem": True,
    "max_autotune_report_choices_stats": False,
    "autotune_num_choices_displayed": 0,
}
"""Matrix products by whichever is faster with what surrounds it, a library or a generated kernel: for the small ones of
a neural field the library splits sums over several launches (a neural ODE of 128 x 16 takes 2.0 ms instead of 3.3)."""


def compiled(function: Any, flops: float) -> Any:
    """`function`, which is or holds a turn of so many floating point operations (0: not to be tuned), by Inductor."""
    from torch._inductor import config

    options = {name: value for name, value in _TUNED.items() if hasattr(config, name)}
    tuned = 0 < flops <= _SMALL
    return torch.compile(
        own_code(function), backend=by_inductor(options if tuned else {}), fullgraph=True, dynamic=False
    )


def flops_of(once: Part, first: Part | None, others: Sequence[Tensor], state: Sequence[Tensor] | None) -> float:
    """Floating point operations of a turn's matrix products, counted without doing any; on a CPU nobody asks: 0."""
    if not others[0].is_cuda:
        return 0.0
    from torch.utils.flop_counter import FlopCounterMode

    with FakeTensorMode(allow_non_fake_inputs=True) as fakes, FlopCounterMode(display=False) as counter:
        given = [fakes.from_tensor(x.detach()) for x in others]
        now = beginning(first, given) if state is None else [fakes.from_tensor(x.detach()) for x in state]
        before = counter.get_total_flops()
        once(now, given)
        return float(counter.get_total_flops() - before)
