"""A progress bar over the time that every sample has reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from .problem import Problem

__all__ = ["watcher"]


@contextmanager
def watcher(show: bool, problem: Problem) -> Iterator[Callable[[Tensor], None] | None]:
    """A function that is told the times [L] reached after each step, or None."""
    if not show:
        yield None
        return
    from tqdm.auto import tqdm

    start, end = float(problem.s0.min()), float(problem.s1.max())
    with tqdm(total=1.0, desc="solve", bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}") as bar:

        def watch(reached: Tensor) -> None:
            part = (float(reached.min()) - start) / (end - start)
            bar.update(max(min(part, 1.0) - bar.n, 0.0))

        yield watch
