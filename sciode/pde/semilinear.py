"""Fixed steps for u' = L u + N(t, u) with a diagonal L, one after another or as a CUDA graph of many."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sciode.solvers.engines.recording import recording
from sciode.solvers.suggest import choose

__all__ = ["SCHEMES", "march"]

Rate = Callable[[Tensor, Tensor], Tensor]
"""N: (t, a 0-d float64 tensor; u) -> a tensor like u."""
Step = Callable[[Tensor, Tensor], Tensor]


def _ifrk4(decay: Tensor, rate: Rate, h: float) -> Step:
    """Classical Runge-Kutta for v = exp(-L t) u, whose equation has no L left."""
    half = (0.5 * h * decay).exp()
    whole = h / 6.0 * half * half
    middle, end = h / 3.0 * half, h / 6.0
    # What a step changes is added to u: a factor exp(L h) near 1 would lose the same bits in every step.
    lost = (h * decay).expm1()

    def step(t: Tensor, u: Tensor) -> Tensor:
        first = rate(t, u)
        second = rate(t + 0.5 * h, half * (u + 0.5 * h * first))
        moved = half * u
        third = rate(t + 0.5 * h, moved + 0.5 * h * second)
        fourth = rate(t + h, half * (moved + h * third))
        return u + (lost * u + whole * first + middle * (second + third) + end * fourth)

    return step


def _cn(decay: Tensor, rate: Rate, h: float) -> Step:
    """Euler for N, the trapezoidal rule for L."""
    weight = h / (1.0 - 0.5 * h * decay)
    lost = weight * decay

    def step(t: Tensor, u: Tensor) -> Tensor:
        return u + (lost * u + weight * rate(t, u))

    return step


SCHEMES: dict[str, tuple[int, Callable[[Tensor, Rate, float], Step]]] = {"ifrk4": (4, _ifrk4), "cn": (1, _cn)}
"""By name: the order, and what makes a step of size h.

"ifrk4" solves L exactly (Lawson's Runge-Kutta of order 4); "cn" is Euler for N and Crank-Nicolson for L, the recipe of
the neural operators' vorticity sets, at a quarter of the cost a step. Source: Lawson (1967), SIAM J. Numer. Anal. 4.
"""


@torch.no_grad()
def march(
    decay: Tensor,
    rate: Rate,
    start: Tensor,
    ts: Sequence[float],
    dt: float,
    *,
    scheme: str = "ifrk4",
    capture: int = 0,
) -> Iterator[Tensor]:
    """Yield u at each of ts, from u(ts[0]) = start on, in steps of dt or a little less that end at each time.

    - `decay`: L, real or complex (what disperses), broadcasts against `start`. `rate`: N(t, u), without a look at
      values of tensors.
    - `capture`: on CUDA, so many steps at a time are one CUDA graph, captured once a step size and replayed; what is
      left of a gap runs step by step. On other devices, and with 0, all do: the same steps, one code. 20 to 200 are
      good where a step is many small kernels.

    No result aliases another. No gradients. Raises ValueError for an unknown scheme, times that don't increase, a dt
    that isn't positive, a negative capture, or a complex decay of a real state.
    """
    _, make = SCHEMES[choose("scheme", scheme, SCHEMES)]
    _check(ts, dt, capture)
    if decay.is_complex() and not start.is_complex():
        raise ValueError("decay is complex and start real: give start as complex, or decay's real part")
    yield start
    runs: dict[float, _Run] = {}
    state = start
    for begin, end in pairwise(ts):
        gap = end - begin
        count = max(1, math.ceil(gap / dt - 1e-9))
        # Gaps of a uniform grid differ by rounding: they share coefficients and graphs.
        size = float(f"{gap / count:.13g}")
        if size not in runs:
            kind = start.dtype if decay.is_complex() else start.real.dtype
            runs[size] = _Run(make(decay.to(kind), rate, size), size, capture if start.is_cuda else 0)
        state = runs[size](begin, state, count)
        yield state


def _check(ts: Sequence[float], dt: float, capture: int) -> None:
    if not ts or not all(map(math.isfinite, ts)) or any(b <= a for a, b in pairwise(ts)):
        raise ValueError(f"ts must be finite times, increasing, the initial time first, got {list(ts)[:5]} ...")
    if not 0.0 < dt < math.inf:
        raise ValueError(f"dt is {dt}; it must be positive")
    if capture < 0:
        raise ValueError(f"capture is {capture}; give the number of steps of a graph, or 0 for none")


class _Run:
    """Repeats steps of one size; in blocks of `capture` steps, each the replay of one graph, where that is not 0."""

    def __init__(self, step: Step, size: float, capture: int) -> None:
        self.step, self.size, self.capture = step, size, capture
        self.graph: _Graph | None = None

    def __call__(self, begin: float, u: Tensor, count: int) -> Tensor:
        origin = torch.full((), begin, dtype=torch.float64, device=u.device)
        done = 0
        if 0 < self.capture <= count:
            self.graph = self.graph or _Graph(self.step, self.size, self.capture, u)
            blocks = count // self.capture
            u, done = self.graph(origin, u, blocks), blocks * self.capture
        # Counted, not accumulated: rounding does not grow with the steps.
        for k in range(done, count):
            u = self.step(origin + k * self.size, u)
        return u


class _Graph:
    """Many steps as one CUDA graph, which reads its state and its clock from buffers and leaves them there."""

    def __init__(self, step: Step, size: float, length: int, like: Tensor) -> None:
        self.step, self.size, self.length = step, size, length
        self.state = like.clone()
        self.origin = torch.zeros((), dtype=torch.float64, device=like.device)
        # Not an integer: times a number of Python, that would be a clock in torch's default dtype.
        self.count = torch.zeros((), dtype=torch.float64, device=like.device)
        # Before a capture, libraries make their plans and workspaces: on a stream of its own, as torch wants it.
        aside = torch.cuda.Stream(like.device)
        aside.wait_stream(torch.cuda.current_stream(like.device))
        with torch.cuda.stream(aside):
            for _ in range(2):
                step(self.origin, self.state)
        torch.cuda.current_stream(like.device).wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with recording(self.graph):
            self._record()

    def _record(self) -> None:
        u = self.state
        for k in range(self.length):
            u = self.step(self.origin + (self.count + k) * self.size, u)
        self.state.copy_(u)
        self.count.add_(self.length)

    def __call__(self, origin: Tensor, u: Tensor, blocks: int) -> Tensor:
        self.state.copy_(u)
        self.origin.copy_(origin)
        self.count.zero_()
        for _ in range(blocks):
            self.graph.replay()
        return self.state.clone()
