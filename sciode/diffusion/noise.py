"""Normal draws as a function of (seed, sample, number of the draw): a sample's noise never depends on its batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sciode.diffusion.schedules.base import Schedule
from sciode.solvers.brownian import sample_seeds
from sciode.solvers.brownian.draws import Cells, standard_normals

__all__ = ["Seed", "check_seed", "initial_noise", "normals_of", "seeds_for"]

Seed = int | Sequence[int] | torch.Generator | Sequence[torch.Generator] | Tensor | None
"""An int: sample b draws from stream b of it. A list, array or tensor of B ints, or a list of generators: one stream a
sample, which goes with it wherever it stands. A generator gives one number; None takes it from torch's default one."""


_STEPS, _START = 41, 42
"""Purposes of the hash: draws of samplers and initial noise never meet."""


def check_seed(seed: Seed, batch: int) -> None:
    """Raise ValueError for what is no seed of a batch; draws nothing."""
    if seed is None or isinstance(seed, Integral | torch.Generator):
        return
    if not isinstance(seed, Tensor | np.ndarray | Sequence) or isinstance(seed, str):
        raise ValueError(f"seed: got {seed!r}; give an int, a generator, a list of one a sample, or None")
    if isinstance(seed, Tensor | np.ndarray) and "int" not in str(seed.dtype):
        raise ValueError(f"seed: expected whole numbers, got {seed.dtype}; torch.randint(2**62, (B,)) gives some")
    if isinstance(seed, Sequence) and any(isinstance(s, Real | str) and not isinstance(s, Integral) for s in seed):
        raise ValueError(f"seed: expected whole numbers or generators, one a sample, got {seed!r}")
    count = seed.numel() if isinstance(seed, Tensor) else len(seed)
    if count != batch:
        raise ValueError(f"seed: {count} seeds for a batch of {batch}; give one a sample, or one int for all")


def seeds_for(seed: Seed, batch: int, device: torch.device) -> Tensor:
    """One int64 a sample [B]."""
    check_seed(seed, batch)
    if seed is None or isinstance(seed, torch.Generator):
        return sample_seeds(_drawn(seed), batch, device)
    if isinstance(seed, Integral):
        return sample_seeds(int(seed), batch, device)
    each = seed.tolist() if isinstance(seed, Tensor | np.ndarray) else [_one(s) for s in cast(Sequence[Any], seed)]
    return torch.tensor(each, dtype=torch.int64, device=device)


def _one(seed: Any) -> int:
    return _drawn(seed) if seed is None or isinstance(seed, torch.Generator) else int(seed)


def _drawn(generator: torch.Generator | None) -> int:
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, dtype=torch.int64, device=device))


def normals_of(seeds: Tensor, like: Tensor, purpose: int = _STEPS) -> Callable[[int], Tensor]:
    """The function n -> standard normals [B, ...] of the n-th draw, in the shape and dtype of `like`."""
    size = math.prod(like.shape[1:])
    dtype = like.dtype if like.dtype in (torch.float32, torch.float64) else torch.float32

    def draw(number: int) -> Tensor:
        return standard_normals(seeds, Cells(number, 1, 1), size, purpose, dtype)[0].view(like.shape).to(like.dtype)

    return draw


def initial_noise(
    schedule: Schedule,
    shape: Sequence[int],
    *,
    t_start: float | None = None,
    seed: Seed = None,
    dtype: Any = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """sigma(t_start) z, where sampling starts: [B, ...]; its draws are apart from those of samplers with the same seed.

    shape: [B, ...]; t_start: that of sampling, None = `schedule.t_max`; dtype: None = torch's default; seed: as in
    `sample`: with an int, sample b has its own stream, whatever the size of the batch. Raises ValueError for a shape
    without a batch, and for seeds that are not one a sample.
    """
    if not isinstance(shape, Sequence) or len(shape) < 2 or not all(isinstance(n, Integral) and n >= 0 for n in shape):
        raise ValueError(f"shape: expected that of a batch [B, ...], such as (64, 2), got {shape!r}")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype: expected one of torch's real ones, such as torch.float32, got {dtype!r}")
    like = torch.empty(*shape, dtype=dtype or torch.get_default_dtype(), device=device)
    draw = normals_of(seeds_for(seed, like.shape[0], like.device), like, _START)
    return draw(0) * float(schedule.sigma(schedule.t_max if t_start is None else t_start))
