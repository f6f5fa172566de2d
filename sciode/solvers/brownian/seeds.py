"""One stream of randomness a sample, derived from one number."""

from __future__ import annotations

import torch
from torch import Tensor

from .draws import kernels_for
from .philox import philox, words

__all__ = ["sample_seeds"]


def sample_seeds(seed: int | Tensor, samples: int, device: torch.device | str = "cpu") -> Tensor:
    """The seeds [samples] (int64) that an integer seed stands for: entry i depends on (seed, i) alone.

    `solve(..., seed=7)` with a batch of 1,000 uses `sample_seeds(7, 1000)`; solving sample 5 by itself with
    `seed=sample_seeds(7, 6)[5:]` gives the same path.
    """
    kernels = kernels_for(torch.device(device))
    if kernels is not None and isinstance(seed, int):
        return kernels.seeds(seed, samples, torch.device(device))
    base = torch.as_tensor(seed, dtype=torch.int64, device=device)
    low, high = words(torch.arange(samples, dtype=torch.int64, device=device))
    w0, w1, _, _ = philox(words(base), (low, high, 0, 0))
    return w0 | (w1 << 32)
