"""Borrow torch's global switches and give them back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated_rng(seed: int, *path: int) -> Iterator[None]:
    """Run the block with torch's generators seeded by (seed, *path), then restore their states.

    For code that can only draw from the default generators (initial weights, dropout). `path` separates uses of one
    seed, e.g. (epoch, step): equal tuples give equal draws, whatever ran before, so a resumed run goes on identically.

    Parameters
    ----------
    seed, path: integers >= 0. Zeros at the end of a tuple do not count (`derive_seed`): isolated_rng(5) draws what
        isolated_rng(5, 0, 0) draws. Keep uses of one seed apart by a first entry >= 1, or by paths of one length.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        # Seeding devices that nobody has started keeps a traceback for each of them, for ever, and takes half a ms.
        draw = torch.manual_seed if devices else torch.default_generator.manual_seed
        draw(derive_seed(seed, *path))
        yield


def derive_seed(seed: int, *path: int) -> int:
    """Return one 63-bit seed for the tuple (seed, *path) of integers >= 0 (numpy's SeedSequence hash).

    SeedSequence fills its pool of four 32-bit words with zeros, so zeros at the end of a short tuple do not count:
    derive_seed(5), derive_seed(5, 0) and derive_seed(5, 0, 0) are one seed (every published table hangs on these
    values, so they stay). Tuples of one length, of integers below 2^32, all differ. Keep uses of one seed apart by a
    first entry of the path that is >= 1 and belongs to that use alone, or by paths of one length.
    """
    if min(seed, *path, 0) < 0:
        raise ValueError(f"seeds must be >= 0, got {(seed, *path)}")
    return int(np.random.SeedSequence((seed, *path)).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def threads(count: int = 1) -> Iterator[None]:
    """Run the block with `count` threads in a torch operation, then restore the number.

    Networks of some 10⁴ parameters are slower with two threads than with one: the threads wait for one another longer
    than they work, and under a competing load 40 times slower was measured. The setting belongs to the process, so do
    not nest blocks of different counts in parallel Python threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
