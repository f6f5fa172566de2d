"""`sciode bench sampling`: what a loop costs over its network's own evaluations, and what gradients of a sample keep.

The network is a small convolutional U-Net of images 28 x 28, randomly initialised: neither time nor memory depends on
what it has learnt. Bars: at most 5 % over the bare network; through exact inversion, the peak of 100 steps at most 1.15
of that of 10, and gradients within 1e-5 of the tape's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sciode.bench.timing import interleaved, machine
from sciode.diffusion import Adjoint, Checkpoint, VPLinear, prepare, sample
from sciode.solvers.engines.recording import recording
from sciode.testing import PeakMemory
from sciode.training import isolated_rng

__all__ = ["Overhead", "Route", "SmallUnet", "bars", "main", "overheads", "routes"]

SCHEDULE = VPLinear()
SAMPLERS = ("ddim", "dpm++-3m", "unipc-3", "dpm++-3m-sde", "bdia")
ROUTES: dict[str, tuple[str, Any]] = {
    "direct": ("bdia", "direct"),
    "checkpoint": ("bdia", "checkpoint"),
    "checkpoint, 10 a segment": ("bdia", Checkpoint(10)),
    "reversible (bdia)": ("bdia", "reversible"),
    "adjoint, rtol 1e-3": ("bdia", Adjoint(rtol=1e-3, atol=1e-5)),
}
"""Rows of the table: sampler and gradient."""


class _Block(nn.Module):
    """Two convolutions with the time between them, and a way past both."""

    def __init__(self, before: int, after: int, time: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        self.norms = nn.ModuleList([nn.GroupNorm(8, after), nn.GroupNorm(8, after)])
        self.time, self.past = nn.Linear(time, after), nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = nn.functional.silu(self.norms[0](self.first(x))) + self.time(t)[:, :, None, None]
        return nn.functional.silu(self.norms[1](self.second(h))) + self.past(x)


class SmallUnet(nn.Module):
    """eps(x [B, 1, 28, 28], t [B]): that of unit normal data, sigma x, and what three levels of blocks add to it.

    Without the first part samples of random weights would grow like 1 / alpha, which no trained network's do.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(32, 128), nn.SiLU(), nn.Linear(128, 128))
        self.enter = nn.Conv2d(1, width, 3, padding=1)
        self.down = nn.ModuleList([_Block(width, width, 128), _Block(width, 2 * width, 128)])
        self.middle = _Block(2 * width, 2 * width, 128)
        self.up = nn.ModuleList([_Block(4 * width, width, 128), _Block(2 * width, width, 128)])
        self.leave = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.arange(1, 17, device=t.device, dtype=t.dtype)
        time = self.embed(torch.cat((angles.sin(), angles.cos()), 1).to(x.dtype))
        h, kept = self.enter(x), []
        for block in self.down:
            h = block(h, time)
            kept.append(h)
            h = nn.functional.avg_pool2d(h, 2)
        h = self.middle(h, time)
        for block, skip in zip(self.up, reversed(kept), strict=True):
            h = block(torch.cat((nn.functional.interpolate(h, scale_factor=2.0), skip), 1), time)
        return SCHEDULE.sigma(t).to(x.dtype)[:, None, None, None] * x + 0.2 * self.leave(h)


@dataclass(frozen=True)
class Overhead:
    """Seconds of `steps` bare evaluations and of a whole sample with as many; kind: "sample" (the public call),
    "prepared", or "graph" (one CUDA graph, over a graph of the bare evaluations)."""

    sampler: str
    kind: str
    batch: int
    steps: int
    bare: float
    seconds: float

    @property
    def share(self) -> float:
        """Seconds over the bare ones."""
        return self.seconds / self.bare


def overheads(
    device: str, batch: int, steps: int, repeats: int, width: int = 64, samplers: Sequence[str] = SAMPLERS
) -> Iterator[Overhead]:
    """Whole calls beside bare evaluations, all taking turns."""
    net, x = _network(device, width), _noise(device, batch)
    times = [torch.full((batch,), float(t), device=device) for t in torch.linspace(1.0, 1e-3, steps)]

    def bare() -> None:
        with torch.no_grad():
            for t in times:
                net(x, t)

    kinds = ("sample", "prepared", "graph") if device == "cuda" else ("sample", "prepared")
    calls: dict[tuple[str, str], Callable[[], Any]] = {("bare", "sample"): bare}
    if device == "cuda":
        calls["bare", "graph"] = _captured(bare)
    for name in samplers:
        calls[name, "sample"] = lambda name=name: _plain(net, x, name, steps)
        for kind in kinds[1:]:
            loop = prepare(net, x, SCHEDULE, sampler=name, nfe=steps, graph=kind == "graph")
            calls[name, kind] = lambda loop=loop: loop(x, seed=0)
    found = interleaved({key: _waited(call, device) for key, call in calls.items()}, repeats)
    for name in samplers:
        for kind in kinds:
            beside = found["bare", "graph" if kind == "graph" else "sample"]
            yield Overhead(name, kind, batch, steps, beside.median, found[name, kind].median)


def _plain(net: nn.Module, x: Tensor, name: str, steps: int) -> Tensor:
    with torch.no_grad():
        return sample(net, x, SCHEDULE, sampler=name, nfe=steps, seed=0)


def _captured(call: Callable[[], None]) -> Callable[[], None]:
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with recording(graph):
        call()
    return graph.replay


def _waited(call: Callable[[], Any], device: str) -> Callable[[], None]:
    def whole() -> None:
        call()
        if device == "cuda":
            torch.cuda.synchronize()

    return whole


def _network(device: str, width: int) -> SmallUnet:
    with isolated_rng(0):
        network = SmallUnet(width)
    return network.to(device)


def _noise(device: str, batch: int, seed: int = 1) -> Tensor:
    return torch.randn(batch, 1, 28, 28, generator=torch.Generator().manual_seed(seed)).to(device)


@dataclass(frozen=True)
class Route:
    """Of one way to differentiate: steps, the most bytes alive (weights and start left out), the largest relative
    difference of a gradient from the tape's, and what `SampleResult.gradient` said."""

    name: str
    steps: int
    peak: int
    gap: float
    said: str | None


def routes(device: str, batch: int, steps: Sequence[int] = (10, 100), width: int = 64) -> Iterator[Route]:
    """Gradients of a loss on the sample with respect to the noise and every weight."""
    net, x = _network(device, width), _noise(device, batch)
    aim = _noise(device, batch, seed=2)
    for n in steps:
        tape: list[Tensor] = []
        for name, (sampler, gradient) in ROUTES.items():
            peak, said, grads = _gradients(net, x, aim, n, sampler, gradient)
            tape = tape or grads
            gap = max(float((g - w).norm() / w.norm()) for g, w in zip(grads, tape, strict=True) if float(w.norm()))
            yield Route(name, n, peak, gap, said)


def _gradients(
    net: nn.Module, x: Tensor, aim: Tensor, steps: int, sampler: str, gradient: Any
) -> tuple[int, str | None, list[Tensor]]:
    def grads() -> tuple[str | None, list[Tensor]]:
        start = x.clone().requires_grad_()
        found = sample(net, start, SCHEDULE, sampler=sampler, steps=steps, gradient=gradient, return_info=True)
        loss = (found.x - aim).square().mean()
        return found.gradient, list(torch.autograd.grad(loss, [start, *net.parameters()]))

    if x.is_cuda:
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        with _full_precision():
            said, found = grads()
        return torch.cuda.max_memory_allocated() - before, said, found
    with PeakMemory() as peak:
        said, found = grads()
    return peak.bytes, said, found


@contextmanager
def _full_precision() -> Iterator[None]:
    """Convolutions in float32 proper: TF32, the default on CUDA, is wrong by 1e-3 and would drown every gap."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def bars(costs: Sequence[Overhead], kept: Sequence[Route]) -> list[tuple[str, str, float, bool]]:
    """What is asked for: (bar, where, value, whether it is met)."""
    found = [
        (
            "a sample takes at most 1.05 of the bare network",
            f"{c.sampler}, {c.kind}, batch {c.batch}",
            c.share,
            c.share <= 1.05,
        )
        for c in costs
    ]
    name = "reversible (bdia)"
    mine = {row.steps: row for row in kept if row.name == name}
    if {10, 100} <= set(mine):
        growth = mine[100].peak / mine[10].peak
        found.append(("peak memory of 100 steps at most 1.15 of that of 10", name, growth, growth <= 1.15))
    for steps, row in mine.items():
        found.append(("gradients within 1e-5 of the tape's", f"{name}, {steps} steps", row.gap, row.gap <= 1e-5))
    return found


def main(out: Path | None = None, device: str | None = None) -> int:
    """Measure, print the tables; with `out` write sampling_DEVICE.json there.

    device: "cpu" (small sizes, some two minutes) or "cuda"; by default CUDA where there is one.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device: expected cpu or cuda, got {device!r}")
    large = device == "cuda"
    # Where launches bind, where they hardly do, and where the network fills the card.
    sizes = (8, 64, 256) if large else (8,)
    costs = [c for batch in sizes for c in overheads(device, batch, 20, 15 if large else 5, 64 if large else 32)]
    kept = list(routes(device, 16 if large else 1, width=64 if large else 16))
    verdicts = bars(costs, kept)
    _print(costs, kept, verdicts)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        record = {
            "machine": machine(),
            "overheads": [asdict(row) | {"share": row.share} for row in costs],
            "gradients": [asdict(row) for row in kept],
            "bars": [dict(zip(("bar", "where", "value", "met"), row, strict=True)) for row in verdicts],
        }
        (out / f"sampling_{device}.json").write_text(json.dumps(record, indent=1) + "\n")
        print(f"numbers: {out / f'sampling_{device}.json'}")
    return 0


def _print(costs: Sequence[Overhead], kept: Sequence[Route], verdicts: list[tuple[str, str, float, bool]]) -> None:
    from sciode.lab.tables import show, table

    rows = [(c.sampler, c.kind, c.batch, c.steps, f"{c.bare:.4f}", f"{c.seconds:.4f}", f"{c.share:.3f}") for c in costs]
    show(table("Overhead", ["sampler", "kind", "batch", "steps", "bare, s", "sample, s", "ratio"], rows))
    memory = [(r.name, r.steps, f"{r.peak / 2**20:.1f}", f"{r.gap:.1e}", r.said) for r in kept]
    show(table("Gradients", ["way", "steps", "peak, MiB", "gap to the tape", "said"], memory))
    met = {True: "met", False: "missed"}
    show(table("Bars", ["bar", "where", "value", ""], [(b, w, f"{v:.3g}", met[ok]) for b, w, v, ok in verdicts]))
