"""Whether a `torch.func` transform is running: tensors then have no memory to share, custom backwards are refused."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C import _functorch  # type: ignore[attr-defined]
from torch.autograd import forward_ad

__all__ = ["forward_mode", "mapped", "transforming"]


def transforming() -> bool:
    """True inside `torch.func.grad`, `vjp`, `jvp`, `jacrev`, `jacfwd`, `vmap`."""
    return torch._C._are_functorch_transforms_active()


def mapped(x: Tensor) -> bool:
    """Whether `torch.func.vmap` maps over an axis of this tensor."""
    return _functorch.is_batchedtensor(x)


def forward_mode() -> bool:
    """Inside `torch.autograd.forward_ad.dual_level`, where any tensor may have a tangent that `detach` would lose."""
    return forward_ad._current_level >= 0
