"""`sciode bench epoch`: one training epoch of a neural LNSDE on our backend and on torchsde, the same network.

Everything but the solve is shared: weights, minibatches, grid, read-out, loss, clipping, optimiser. torchsde's equation
is written as its users write it, term by term at each step, with the control's row looked up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciode.bench.timing import Timing, interleaved, machine
from sciode.lab.tables import show, table
from sciode.solvers import solve
from sciode.timeseries import Batch, StableFields, build
from sciode.timeseries.readout import PathClassifier
from sciode.training import isolated_rng, threads

__all__ = ["Row", "Workload", "main", "measure", "same_states", "workloads"]

BARS = {"eager": 2.0, "compiled": 5.0}
"""How many times as fast as torchsde each engine should be."""
_HIDDEN, _LAYERS = 32, 2
_STEP = 2.0**-4  # one a time slot; a power of two, because torchsde adds its steps up, and rounding would make one more


@dataclass(frozen=True)
class Workload:
    """Series of a known set's size, with random values: what an epoch costs does not depend on them."""

    name: str
    series: int
    length: int
    channels: int
    classes: int
    batch: int

    @property
    def title(self) -> str:
        """What is trained."""
        size = f"{self.series} series of {self.length} steps, {self.channels} channels, batch {self.batch}"
        return f"{self.name}: {size}; hidden {_HIDDEN}, {_LAYERS} layers"

    def batches(self) -> list[tuple[Batch, Tensor]]:
        """Return the minibatches with their labels."""
        draw = torch.Generator().manual_seed(0)
        values = torch.randn(self.series, self.length, self.channels, generator=draw).cumsum(1) / self.length**0.5
        labels = torch.randint(self.classes, (self.series,), generator=draw)
        times = torch.arange(self.length, dtype=torch.float64) * _STEP
        parts = torch.arange(self.series).tensor_split(-(-self.series // self.batch))
        return [
            (
                Batch(values[p], times.expand(len(p), -1), values[p], _STEP, times[-1:].expand(len(p)).clone()),
                labels[p],
            )
            for p in parts
        ]

    def network(self) -> PathClassifier:
        """Return the classifier, its weights from a seed."""
        with isolated_rng(0):
            return PathClassifier(build("lnsde", self.channels, _HIDDEN, _LAYERS), self.classes)


def workloads() -> tuple[Workload, ...]:
    """The sizes of BasicMotions and of GunPoint."""
    return Workload("BasicMotions", 80, 100, 6, 4, 32), Workload("GunPoint", 200, 150, 1, 2, 64)


class ForTorchsde(nn.Module):
    """The clipped linear-noise equation of `StableFields` with its very parameters, as torchsde takes one."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, fields: StableFields) -> None:
        super().__init__()
        self.fields = fields
        self.control, self.dt = torch.empty(0), 1.0

    def read(self, batch: Batch) -> Tensor:
        """Take up the control and return z(0) [B, H]."""
        self.control, self.dt = batch.path(), batch.dt
        return self.fields.initial(batch.first())

    def f(self, t: Tensor, z: Tensor) -> Tensor:
        """The drift at t, 0-d."""
        net = self.fields
        x = self.control[:, min(round(float(t) / self.dt), self.control.shape[1] - 1)]
        phase = torch.stack((t.sin(), t.cos())).to(z.dtype).expand(len(z), 2)
        z_in, x_in = net.embed_state(torch.cat((phase, z), -1)), net.embed_control(x)
        return net.gamma(net.embed_both(torch.cat((z_in, x_in), -1)).relu()).tanh()

    def g(self, t: Tensor, z: Tensor) -> Tensor:
        """The diffusion at t, 0-d."""
        level = self.fields.sigma(torch.stack((t.sin(), t.cos())).to(z.dtype))
        return (self.fields.gate.sigmoid() * level * z).tanh()


def torchsde_logits(network: PathClassifier, batch: Batch, seed: int) -> Tensor:
    """Return the logits of the network, its equation solved by torchsde's Euler method without adjoint."""
    import torchsde

    sde = ForTorchsde(network.backbone.fields)  # type: ignore[arg-type]
    start = sde.read(batch)
    ts = torch.tensor([0.0, float(batch.ends[0])], dtype=start.dtype)
    path = torchsde.BrownianInterval(0.0, float(ts[-1]), size=tuple(start.shape), dtype=start.dtype, entropy=seed)
    return network.head(torchsde.sdeint(sde, start, ts, bm=path, method="euler", dt=batch.dt)[-1])


def our_logits(engine: str) -> Callable[[PathClassifier, Batch, int], Tensor]:
    """Return what gives the logits by our backend."""
    return lambda network, batch, seed: network(batch, seed, engine=engine)[0]


def trainer(workload: Workload, logits: Callable[[PathClassifier, Batch, int], Tensor]) -> Callable[[], None]:
    """Return a call that trains one epoch more."""
    network, batches = workload.network().train(), workload.batches()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)

    def epoch() -> None:
        with isolated_rng(0):
            for step, (batch, labels) in enumerate(batches):
                optimizer.zero_grad()
                F.cross_entropy(logits(network, batch, step), labels).backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()

    return epoch


def same_states(workload: Workload) -> float:
    """Return the largest difference of our states and torchsde's at the end, in float64, on the same increments."""
    import torchsde

    batch, _ = workload.batches()[0]
    batch = batch._replace(control=batch.path().double(), values=batch.values.double())
    fields: Any = deepcopy(workload.network().backbone.fields).double()
    sde, steps = ForTorchsde(fields), workload.length - 1
    draw = torch.Generator().manual_seed(1)
    rows = torch.randn(steps, len(batch.ends), _HIDDEN, generator=draw, dtype=torch.float64) * _STEP**0.5

    class Given(torchsde.BaseBrownian):  # type: ignore[misc, name-defined]
        """Hands out given increments, found by the time a step begins."""

        dtype, device, shape = rows.dtype, rows.device, rows.shape[1:]
        levy_area_approximation = "none"  # type: ignore[assignment]

        def __repr__(self) -> str:
            return "Given()"

        def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Tensor:
            return rows[round(float(ta) / _STEP)]

    with torch.no_grad():
        start, ts = sde.read(batch), torch.tensor([0.0, steps * _STEP], dtype=torch.float64)
        theirs = torchsde.sdeint(sde, start, ts, bm=Given(), method="euler", dt=_STEP)[-1]
        tables = fields.tables(batch.path(), _STEP)
        how: dict[str, Any] = {"dt": _STEP, "method": "euler", "engine": "eager", "batch_dims": 1}
        ours = solve(fields.term(), start, ts, args=tables, noise=rows, **how).ys[-1]
    return float((ours - theirs).abs().max())


@dataclass(frozen=True)
class Row:
    """One way to train one workload: seconds an epoch (median, quartiles), ratio of torchsde's to it, the bar, whether
    it is met (None if a timing is unsteady), seconds of compilation; threads of torch; difference: of `same_states`."""

    workload: str
    threads: int
    way: str
    seconds: float
    low: float
    high: float
    ratio: float
    difference: float
    bar: float | None = None
    met: bool | None = None
    compile_seconds: float | None = None


def measure(workload: Workload, count: int, repeats: int = 9) -> list[Row]:
    """Return one row a way on `count` threads of torch, torchsde's first. Raises ImportError without torchsde."""
    difference = same_states(workload)
    ways = {"torchsde": torchsde_logits, "eager": our_logits("eager"), "compiled": our_logits("compiled")}
    with threads(count):
        epochs = {way: trainer(workload, logits) for way, logits in ways.items()}
        began = time.perf_counter()
        epochs["compiled"]()
        first = time.perf_counter() - began
        timings = interleaved(epochs, repeats)
    theirs = timings["torchsde"]
    rows = []
    for way, timing in timings.items():
        ratio = theirs.median / timing.median
        row = Row(workload.name, count, way, *timing, ratio=ratio, difference=difference)
        rows.append(_judged(row, timing, theirs) if way in BARS else row)
    return [replace(row, compile_seconds=first - row.seconds) if row.way == "compiled" else row for row in rows]


def _judged(row: Row, timing: Timing, theirs: Timing) -> Row:
    met = row.ratio >= BARS[row.way] if timing.steady and theirs.steady else None
    return replace(row, bar=BARS[row.way], met=met)


def main(out: Path | None = None) -> int:
    """Measure both workloads on one thread and on torch's own count, print tables; with `out` write epoch.json.

    Takes some minutes. Returns 0 whatever the ratios are: a timing is news, not a fault.
    """
    host = machine()
    counts = sorted({1, torch.get_num_threads()})
    caption = (
        f"{host['processor']}, {host['cores']} cores; torch {host['torch']}; {host['date']}. One epoch: forward, "
        "backward, clipping, Adam. unsteady: quartiles too far apart to judge. compile s: in the first epoch alone."
    )
    rows = [row for workload in workloads() for count in counts for row in measure(workload, count)]
    columns = ["threads", "way", "ms", "torchsde / it", "bar", "compile s", "difference"]
    verdicts = {True: "met", False: "missed", None: "unsteady"}
    for workload in workloads():
        cells = [
            (
                row.threads,
                row.way,
                f"{1e3 * row.seconds:.1f}",
                f"{row.ratio:.2f}",
                None if row.bar is None else f"{row.bar:g} {verdicts[row.met]}",
                None if row.compile_seconds is None else f"{row.compile_seconds:.1f}",
                f"{row.difference:.0e}",
            )
            for row in rows
            if row.workload == workload.name
        ]
        show(table(workload.title, columns, cells, caption))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        record = {"machine": host, "rows": [asdict(row) for row in rows]}
        (out / "epoch.json").write_text(json.dumps(record, indent=2) + "\n")
        print(f"numbers: {out / 'epoch.json'}")
    return 0
