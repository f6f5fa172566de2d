"""Where a solve keeps its books: the per-sample numbers of control, as tensors, or on a CPU as NumPy arrays.

Arrays of a few hundred numbers cost NumPy a third of what they cost a tensor library, and reading them costs nothing;
the code that decides about steps is the same for both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Book", "like_status", "namespace", "on_host", "on_tensor", "rows", "sent", "whole_number"]

Book = Any
"""A tensor or an array [L]."""


def namespace(x: Book) -> Any:
    """The library whose `where`, `clip`, `maximum`, ... take this book."""
    return np if isinstance(x, np.ndarray) else torch


def on_host(x: Tensor) -> np.ndarray:
    """A CPU tensor's memory as an array."""
    return x.detach().numpy()


def on_tensor(x: Book) -> Tensor:
    """A book as a tensor, without a copy."""
    return torch.from_numpy(x) if isinstance(x, np.ndarray) else x


def sent(x: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on a device, without waiting for the device."""
    return torch.from_numpy(x).to(device, non_blocking=True)


def like_status(x: Book) -> Book:
    """As the status of samples, int8."""
    return x.astype(np.int8) if isinstance(x, np.ndarray) else x.to(torch.int8)


def whole_number(x: Book) -> Book:
    """Rounded towards 0, int64."""
    return x.astype(np.int64) if isinstance(x, np.ndarray) else x.to(torch.int64)


def rows(mask: Book, new: Book, old: Book) -> Book:
    """Row by row `new` where the mask [L] holds, else `old`; both [L, ...] or [B, ...], tensors or arrays."""
    if isinstance(new, np.ndarray):
        return np.where(on_host(mask) if isinstance(mask, Tensor) else mask, new, old)
    flags = on_tensor(mask)
    return torch.where(flags.reshape(flags.shape + (1,) * (new.ndim - 1)), new, old)
