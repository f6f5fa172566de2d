"""What a comparison is made of: a library, how it is made to solve a problem, and how its result is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Answer", "Contestant", "FellBack", "Peer", "prepare_ours", "read_torch", "torch_call"]


class FellBack(RuntimeError):
    """Another engine than the one that was asked for did the work: its time would stand under the wrong name."""


@dataclass(frozen=True)
class Answer:
    """A result in NumPy: ys [T, B, D]; gradients like (y0, *weights), () in forward mode; a sample's most steps."""

    ys: np.ndarray
    gradients: tuple[np.ndarray, ...]
    steps: int | None


@dataclass(frozen=True)
class Contestant:
    """What is timed (`call`), and how its result is read.

    compiles: whether the first call also compiles. memory: bytes the call needs beside its arguments, where PyTorch's
    allocator, which is asked otherwise, knows nothing of them.
    """

    call: Callable[[], Any]
    read: Callable[[Any], Answer]
    compiles: bool = False
    memory: Callable[[], int | None] | None = None


@dataclass(frozen=True)
class Peer:
    """A library: the module that must be importable, and how it is made to solve a problem.

    joint, separate: how it then steps the batch, in words, when the problem is coupled and when it is not. count: how
    it is made to call the field from Python, where `prepare` compiles the calls away.
    """

    library: str
    prepare: Callable[[Any, str], Contestant]
    joint: str = "joint"
    separate: str = "per sample"
    torch_field: bool = True
    count: Callable[[Any, str], Contestant] | None = None

    def how(self, problem: Any, mode: str) -> str:
        """How the library is called here, e.g. "jit, vmap"."""
        batch = self.joint if problem.coupled else self.separate
        return f"adjoint, {batch}" if mode == "adjoint" else batch

    @property
    def version(self) -> str | None:
        """The installed version, None if there is none."""
        if find_spec(self.library) is None:
            return None
        try:
            return metadata.version(self.library)
        except metadata.PackageNotFoundError:
            # A checkout on the path, not an installed distribution.
            return "source tree"


def torch_call(
    problem: Any, mode: str, run: Callable[[Tensor], Any], ys: Callable[[Any], Tensor] = lambda x: x
) -> Callable[[], tuple[Any, tuple[Tensor, ...]]]:
    """A call that solves, takes the gradient of sum(ys^2) unless the mode is forward, and waits for the device."""
    parameters = tuple(problem.field.parameters()) if isinstance(problem.field, nn.Module) else ()

    def forward() -> tuple[Any, tuple[Tensor, ...]]:
        with torch.no_grad():
            return run(problem.y0), ()

    def backward() -> tuple[Any, tuple[Tensor, ...]]:
        y0 = problem.y0.detach().requires_grad_()
        out = run(y0)
        return out, torch.autograd.grad(ys(out).square().sum(), (y0, *parameters))

    timed = forward if mode == "forward" else backward
    if not problem.y0.is_cuda:
        return timed

    def waited() -> tuple[Any, tuple[Tensor, ...]]:
        found = timed()
        torch.cuda.synchronize()
        return found

    return waited


def read_torch(
    found: tuple[Any, tuple[Tensor, ...]], ys: Callable[[Any], Tensor], steps: Callable[[Any], int | None]
) -> Answer:
    """What a `torch_call` returned, on the host."""
    out, gradients = found
    return Answer(ys(out).detach().cpu().numpy(), tuple(g.cpu().numpy() for g in gradients), steps(out))


def prepare_ours(problem: Any, mode: str, engine: str, run: Callable[[Tensor], Any]) -> Contestant:
    """Our solve run(y0) on an engine, outputs and gradients read; FellBack where another engine did the work."""

    def checked(y0: Tensor) -> Any:
        solution = run(y0)
        if solution.stats.engine != engine:
            raise FellBack(f"fell back on {solution.stats.engine}")
        return solution

    read = partial(read_torch, ys=lambda found: found.ys, steps=lambda found: int(found.stats.steps.max()))
    return Contestant(torch_call(problem, mode, checked, lambda found: found.ys), read, compiles=engine != "eager")
