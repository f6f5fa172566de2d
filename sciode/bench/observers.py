"""A million queries of an observer: seconds and memory of each way to read the sensors; and what training steps take.

    sciode bench observers
    sciode bench observers --out results --device cuda

An untrained observer of the default design stands on random sensors of a periodic box; what is timed is `asked`, all
queries at random places and times of the horizon, in chunks that stream through the card, answers kept there. Bars: the
ways of linear cost, "nearest" and "linear", answer a million queries in a second and 4 GiB on an H100. Training steps
(`sciode.bench.observer_steps`) are timed one by one and, on a card, recorded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from sciode.bench.observer_steps import steps
from sciode.bench.timing import interleaved, machine
from sciode.data.flow import Space
from sciode.lab.tables import show, table
from sciode.observers import Design, ObserverModel, Scene, Wiring, network
from sciode.observers.attention import WAYS
from sciode.observers.windows import layout_of
from sciode.observers.wiring import wired
from sciode.training import choose_device, isolated_rng

__all__ = ["Row", "main", "measure"]

QUERIES, SENSORS, STEPS = 1_000_000, (1024,), 10
CHUNK = 8192
SECONDS, BYTES = 1.0, 4 * 2**30
_REPEATS = 3
_BOX = Space("periodic", (0.0, 0.0), (1.0, 1.0))


@dataclass(frozen=True)
class Row:
    """One way's cost: seconds are the median and the quartiles; bytes the peak of the card's memory, weights and
    answers with it, None on a CPU; met: both bars, None where there is none."""

    attention: str
    base: str
    sensors: int
    queries: int
    seconds: float
    low: float
    high: float
    bytes: int | None
    met: bool | None


def observed(attention: str, base: str, sensors: int, device: torch.device) -> tuple[ObserverModel, Scene]:
    """An untrained observer and what it reads."""
    design = Design(attention=attention, base=base, waves=6 if base != "none" else 0, horizon=float(STEPS))  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(0)
    points = torch.rand(sensors, 2, generator=draw)
    readings = torch.randn(sensors, 1, generator=draw).to(device)
    clock = torch.arange(STEPS + 1, dtype=torch.float64, device=device).unsqueeze(0)
    wiring = Wiring(waves=design.waves, surface=base != "none")
    with isolated_rng(0):
        model = network(1, _BOX, design).to(device).eval()
    return model, wired([layout_of(points)], [torch.arange(sensors)], [readings], clock, wiring, _BOX)


def asking(model: ObserverModel, scene: Scene, queries: int, chunk: int) -> Callable[[], Tensor]:
    """A call that simulates the sensors and answers all queries, chunk by chunk."""
    device = scene.points.device
    draw = torch.Generator().manual_seed(1)
    x = torch.rand(queries, 2, generator=draw).to(device)
    t = (STEPS * torch.rand(queries, generator=draw, dtype=torch.float64)).to(device)

    def call() -> Tensor:
        with torch.inference_mode():
            simulated = model.simulated(scene)
            parts = [model.asked(simulated, scene, a.unsqueeze(0), b.unsqueeze(0))
                     for a, b in zip(x.split(chunk), t.split(chunk), strict=True)]  # fmt: skip
            found = torch.cat(parts, 1)
            if device.type == "cuda":
                torch.cuda.synchronize()
            return found

    return call


def measure(device: torch.device, queries: int = QUERIES, chunk: int = CHUNK) -> list[Row]:
    """Time all ways in turns, with and without a surface."""
    rows = []
    for sensors in SENSORS:
        calls, peak = {}, {}
        for base in ("none", "cubic"):
            for way in WAYS:
                calls[way, base] = call = asking(*observed(way, base, sensors, device), queries, chunk)
                peak[way, base] = _peak(call, device)
        for (way, base), timing in interleaved(calls, _REPEATS, warmup=1, patience=10.0).items():
            peaked = peak[way, base]
            met = timing.median <= SECONDS and peaked <= BYTES if peaked is not None and queries >= QUERIES else None
            rows.append(Row(way, base, sensors, queries, *timing, peaked, met))
    return rows


def _peak(call: Callable[[], Tensor], device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    call()
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated()


def main(out: Path | None = None, device: str | None = None) -> int:
    """Time the ways, print a table; with `out` write observers.json.

    device: "cuda" where there is one; on a CPU a thousandth of the queries is asked. Returns 0 whatever is found.
    """
    where, host = choose_device(device or "auto"), machine()
    rows = measure(where, QUERIES if where.type == "cuda" else QUERIES // 1000)
    card = torch.cuda.get_device_name() if where.type == "cuda" else host["processor"]
    verdicts = {True: "met", False: "missed", None: None}
    cells = [
        (row.attention, row.base, row.sensors, f"{row.seconds:.3f}",
         None if row.bytes is None else f"{row.bytes / 2**30:.2f}", verdicts[row.met])
        for row in rows
    ]  # fmt: skip
    caption = (
        f"{card}; torch {host['torch']}; {host['date']}; chunks of {CHUNK}. bar: {SECONDS:g} s and "
        f"{BYTES / 2**30:g} GiB for the ways of linear cost, nearest and linear."
    )
    columns = ["attention", "base", "sensors", "s", "GiB", "bar"]
    show(table(f"{rows[0].queries:,} queries of an observer", columns, cells, caption))
    trained = steps(where, ("eager", "capture") if where.type == "cuda" else ("eager",))
    told = [(one.who, one.sensors, one.engine, f"{one.milliseconds:.1f}") for one in trained]
    show(table("A training step", ["who", "sensors", "engine", "ms"], told, f"{card}; batches of {trained[0].batch}"))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        record = {
            "machine": host, "card": card, "chunk": CHUNK, "rows": [asdict(row) for row in rows],
            "steps": [asdict(one) for one in trained],
        }  # fmt: skip
        (out / "observers.json").write_text(json.dumps(record, indent=2) + "\n")
        print(f"numbers: {out / 'observers.json'}")
    return 0
