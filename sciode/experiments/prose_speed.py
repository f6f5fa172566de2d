"""How fast transformers and their rivals train, beside the rate at which the device multiplies matrices.

    sciode train prose_speed --set 'presets=["mini","small","paper"]' 'engines=["eager","capture","compile"]'

Steps (a batch drawn, forward, backward, AdamW, averaging) of random trajectories, which cost what real ones cost. FLOP
are those of matrix products and attention, forward and backward, padding included; their rate is compared to that of
products of square bfloat16 matrices (float32 ones on a CPU) on the same device. "pool": the trajectories of a table of
`sciode train prose`, drawn and solved.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sciode.experiments.ledger import finished_rows, named, stamped, write_table
from sciode.experiments.prose import MODELS, drawing
from sciode.experiments.prose import Settings as TableSettings
from sciode.lab.tables import show, table
from sciode.prose import PRESETS, SYSTEMS, Vocabulary, filled, of_dimension
from sciode.prose.guesses import guesses_of, padded
from sciode.prose.objective import losses
from sciode.prose.pool import Pool, Reading
from sciode.prose.samples import Drawing, numbers_of
from sciode.prose.training import ENGINES, PRECISIONS, Course, Pupil
from sciode.training import choose_device, derive_seed, isolated_rng

__all__ = ["LINES", "Settings", "main", "matrix_rate", "random_pool"]

LINES = (*MODELS, "pool")

_COUNTED = 8
"""Samples whose FLOP are counted; a batch has as many times more as it is larger."""


@dataclass(frozen=True)
class Settings:
    """lines: models of `sciode train prose`, or its "pool". presets: of `sciode.prose.PRESETS`. engines and precisions:
    see `Course`. batches: samples a step. steps: that are timed. equations, starts: of the pool.

    Raises ValueError for unknown names or sizes below one.
    """

    lines: tuple[str, ...] = ("full",)
    presets: tuple[str, ...] = ("tiny",)
    engines: tuple[str, ...] = ("eager",)
    precisions: tuple[str, ...] = ("mixed",)
    batches: tuple[int, ...] = (64,)
    steps: int = 20
    equations: int = 2134
    starts: int = 20
    device: str = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        named("lines", self.lines, LINES)
        named("presets", self.presets, PRESETS)
        named("engines", self.engines, ENGINES)
        named("precisions", self.precisions, PRECISIONS)
        if min(self.steps, self.workers, self.equations, self.starts, *self.batches) < 1:
            raise ValueError("settings: sizes must be at least 1")


def made(settings: Settings, **key: Any) -> dict[str, Any]:
    """One row: seconds of a step and rates, or those of drawing the pool."""
    if key["line"] == "pool":
        return _pool_row(settings)
    _fresh(settings.device)
    dimension = PRESETS[key["preset"]].dimension
    own = TableSettings(preset=key["preset"], dimension=dimension, device=settings.device)
    pool = random_pool(dimension, settings.device)
    with isolated_rng(0):
        model = MODELS[key["line"]](own).to(settings.device)
    flop = _flop(model, pool, key["batch"])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        course = Course(batch=key["batch"], lr=1e-5, engine=key["engine"], precision=key["precision"])
        row = _timed(model, pool, course, settings.steps)
    rate = flop / row["step_seconds"]
    best = _matrix_rate(settings.device)
    row |= {"flop": flop, "flop_rate": rate, "matrix_rate": best, "of_matrix_rate": rate / best}
    return {
        **row,
        "weights": sum(one.numel() for one in model.parameters()),
        "said": [str(one.message) for one in said],
    }


def _fresh(device: str) -> None:
    """Nothing of the row before is left: no graphs and their memory, no compiled layers."""
    torch.compiler.reset()
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _pool_row(settings: Settings) -> dict[str, Any]:
    own = TableSettings(equations=settings.equations, starts=settings.starts, device=settings.device)
    began = _now(settings.device)
    pool = filled(drawing(own, own.seen, own.equations, own.starts), derive_seed(1, 0), own.dimension, own.device)
    seconds = _now(settings.device) - began
    drawn = len(pool) + pool.left_out
    return {"drawn": drawn, "kept": len(pool), "seconds": seconds, "per_second": drawn / seconds}


def random_pool(dimension: int, device: torch.device | str, count: int = 4096) -> Pool:
    """Trajectories of white noise, with the equations and guesses of the systems of at most so many components."""
    how = Drawing(of_dimension(dimension))
    vocabulary, draw = Vocabulary(dimension), torch.Generator().manual_seed(0)
    rows: list[list[int]] = []
    for system in how.chosen:
        for numbers in numbers_of(system.nominal, system.spread, 16, 0).tolist():
            bound = dict(zip(system.nominal, numbers, strict=True))
            rows.append(vocabulary.encoded([one.bound(bound) for one in system.equations]))
    owner = torch.randint(len(rows), (count,), generator=draw)
    components = torch.tensor([SYSTEMS[name].dimension for name in how.names])
    values = torch.randn(count, how.frames, dimension, generator=draw)
    return Pool(
        how.times.to(device), values.to(device), (owner // 16).to(device), owner.to(device),
        padded(rows, vocabulary, device), components.to(device), guesses_of(how.chosen, vocabulary, device), how.names,
        vocabulary, 0,
    )  # fmt: skip


def _flop(model: nn.Module, pool: Pool, batch: int) -> float:
    """Of a step. Counted of a copy, for what counting leaves behind belongs to the stream that it ran on."""
    own = deepcopy(model)
    few = pool.batch(_COUNTED, Reading(), torch.Generator(pool.values.device).manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        found = losses(own, few)
        (found.data + found.symbols).backward()
    return counter.get_total_flops() * batch / _COUNTED


def _timed(model: nn.Module, pool: Pool, course: Course, steps: int) -> dict[str, Any]:
    device = pool.values.device
    generator = torch.Generator(device).manual_seed(derive_seed(0, 1))
    pupil = Pupil(model, course)

    def run(count: int, first: int) -> float:
        began = _now(device)
        for number in range(first, first + count):
            pupil.step(pool.batch(course.batch, Reading(), generator), course.lr, number)
        return _now(device) - began

    ready = run(6, 0)
    seconds = run(steps, 6) / steps
    card = device.type == "cuda"
    return {
        "step_seconds": seconds,
        "samples_per_second": course.batch / seconds,
        "made": pupil.engine,
        "ready_seconds": ready,
        "memory": torch.cuda.max_memory_allocated(device) if card else None,
    }


def matrix_rate(device: torch.device | str, size: int = 8192, repeats: int = 20) -> float:
    """FLOP a second of products of square bfloat16 matrices; float32 ones of 512 on a CPU."""
    card = torch.device(device).type == "cuda"
    size, kind = (size, torch.bfloat16) if card else (512, torch.float32)
    # Of zeros or ones a card makes more than of numbers, for it gets less warm.
    draw = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, device=device, generator=draw).to(kind) for _ in range(2))
    for _ in range(3):
        torch.mm(a, b)
    began = _now(device)
    for _ in range(repeats):
        torch.mm(a, b)
    return 2 * size**3 * repeats / (_now(device) - began)


@cache
def _matrix_rate(device: str) -> float:
    return matrix_rate(device)


def _now(device: torch.device | str) -> float:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _keys(settings: Settings) -> list[dict[str, Any]]:
    nets = [line for line in settings.lines if line != "pool"]
    keys: list[dict[str, Any]] = [
        {"line": line, "preset": preset, "engine": engine, "precision": precision, "batch": batch}
        for preset in settings.presets
        for line in nets
        for engine in settings.engines
        for precision in settings.precisions
        for batch in settings.batches
    ]
    return keys + [{"line": "pool"} for line in settings.lines if line == "pool"]


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`: rows.jsonl (it resumes), table.json.

    device: as for `sciode.training.choose_device`. changes: fields of `Settings`. Returns 0.
    """
    out = Path(out)
    settings = Settings(**{**changes, "device": str(choose_device(device))})
    stamp = stamped(settings, "lines", "presets", "engines", "precisions", "batches")
    rows = finished_rows(out, _keys(settings), stamp, partial(made, settings), settings.workers)
    numbers = write_table(out, {"settings": settings, "rows": rows})
    show(_shown(rows, settings.device))
    print(f"numbers: {numbers}")
    return 0


def _shown(rows: Sequence[dict[str, Any]], device: str) -> Any:
    cells = [
        [row["line"], row["preset"], row["made"], row["precision"], row["batch"], f"{1e3 * row['step_seconds']:.2f}",
         f"{row['samples_per_second']:.0f}", f"{row['of_matrix_rate']:.1%}"]
        for row in rows if "step_seconds" in row
    ]  # fmt: skip
    pools = [row for row in rows if row["line"] == "pool"]
    more = [f"{row['drawn']} trajectories drawn in {row['seconds']:.1f} s" for row in pools]
    columns = ("line", "preset", "steps", "precision", "batch", "ms a step", "samples a second", "of the matrix rate")
    return table("Training steps", columns, cells, "; ".join([device, *more]))
