"""`sciode bench arms`: what an iteration costs with one set of interface conditions, and with 64 and all 512 at once.

A pair of networks on Poisson's square, at the sizes of Li et al. (ICML 2023): 2 x 20 neurons a piece, 1000 points in
each, 100 of each condition and on the interface. Losses and gradients include all nine interface conditions, whichever
the arms use, so that one arm does the work of a 512th.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sciode.bench.timing import Timing, interleaved, machine
from sciode.lab.tables import show, table
from sciode.pinn import CONDITIONS, FAMILIES, Network, Numbers
from sciode.pinn.engines import engine_of
from sciode.pinn.loss import Loss
from sciode.pinn.metalic.arms import arms_of
from sciode.pinn.representation import representation_of
from sciode.pinn.terms import groups_of
from sciode.pinn.training import Target
from sciode.training import LBFGS, Adam, Minimiser, choose_device

__all__ = ["Row", "Task", "main", "measure"]

BAR = 4.0
"""How many times one arm's step a step of 512 may take."""
COUNTS = (1, 64, 512)
STAGES: Mapping[str, Minimiser] = {"Adam": Adam(10_000), "L-BFGS": LBFGS(10_000)}
_REPEATS, _ITERATIONS = 7, 20
_WEIGHT = 5.0


@dataclass(frozen=True)
class Task:
    """How much there is to do. dtype: "float32" or "float64"."""

    numbers: Numbers = field(default_factory=Numbers)
    network: Network = field(default_factory=Network)
    dtype: str = "float32"

    def trainer(self, stage: Minimiser, arms: int, engine: str, device: torch.device) -> Callable[[int], None]:
        """Return what goes on by some iterations and waits for the device."""
        problem = FAMILIES["poisson"].make(20.0)
        like = torch.zeros((), dtype=getattr(torch, self.dtype), device=device)
        representation = representation_of(problem, FAMILIES["poisson"].cut(problem), self.network, like)
        loss = Loss(groups_of(representation, tuple(CONDITIONS)), engine=engine_of(engine, device))
        theta = representation.initial(list(range(arms)), like)
        sets = arms_of(tuple(CONDITIONS), redundant=True)
        own = sets[-1:] if arms == 1 else sets[torch.arange(arms) % len(sets)]
        known = torch.full((arms, len(loss.names) - len(CONDITIONS)), 1.0, dtype=own.dtype)
        weights: Tensor = torch.cat((known, _WEIGHT * own), 1).to(like)
        target = Target(loss, loss.draw(self.numbers, 0, theta), weights)
        memory, done = stage.begin(theta), 0

        def go(iterations: int) -> None:
            nonlocal memory, done
            for _ in range(iterations):
                memory = target.advanced(stage, memory, done)
                done += 1
            if device.type == "cuda":
                torch.cuda.synchronize()

        return go


@dataclass(frozen=True)
class Row:
    """Of one way to evaluate the loss: seconds an iteration (median, quartiles), the ratio to one arm's, whether it is
    within `BAR` (None: not judged, or a timing is unsteady), seconds of the first iteration, and peak bytes."""

    stage: str
    engine: str
    arms: int
    seconds: float
    low: float
    high: float
    ratio: float | None
    met: bool | None
    first: float
    bytes: int | None


def measure(task: Task, stage: str, engine: str, device: torch.device, counts: tuple[int, ...] = COUNTS) -> list[Row]:
    """Return one row a number of arms; they take turns."""
    first, peak, calls = {}, {}, {}
    for arms in counts:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        go, began = task.trainer(STAGES[stage], arms, engine, device), time.perf_counter()
        go(1)
        first[arms] = time.perf_counter() - began
        # A history that is full costs what it costs from then on.
        go(_ITERATIONS)
        peak[arms] = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
        calls[arms] = lambda go=go: go(_ITERATIONS)
    found = interleaved(calls, _REPEATS, warmup=1, patience=20.0)
    each = {arms: Timing(*(part / _ITERATIONS for part in timing)) for arms, timing in found.items()}
    return [
        Row(stage, engine, arms, *timing, *_judged(each, arms), first=first[arms], bytes=peak[arms])
        for arms, timing in each.items()
    ]


def _judged(timings: Mapping[int, Timing], arms: int) -> tuple[float | None, bool | None]:
    """A number of arms' time over one's, and whether 512 are within the bar."""
    if 1 not in timings or arms == 1:
        return None, None
    ratio = timings[arms].median / timings[1].median
    steady = timings[arms].steady and timings[1].steady
    return ratio, (ratio <= BAR if steady else None) if arms == max(COUNTS) else None


def main(out: Path | None = None, device: str | None = None) -> int:
    """Time Adam's and L-BFGS's iterations on each engine, print a table; with `out` write arms.json.

    device: "cuda" where there is one. Takes some minutes. Returns 0 whatever the ratios are.
    """
    where, host, task = choose_device(device or "auto"), machine(), Task()
    engines = ("eager", "capture", "compile") if where.type == "cuda" else ("eager", "compile")
    rows = [row for stage in STAGES for engine in engines for row in measure(task, stage, engine, where)]
    verdicts = {True: "met", False: "missed", None: None}
    cells = [
        (
            row.stage,
            row.engine,
            row.arms,
            f"{1e3 * row.seconds:.2f}",
            None if row.ratio is None else f"{row.ratio:.2f}",
            verdicts[row.met],
            f"{row.first:.1f}",
            None if row.bytes is None else f"{row.bytes / 2**20:.0f}",
        )
        for row in rows
    ]
    card = torch.cuda.get_device_name() if where.type == "cuda" else host["processor"]
    caption = f"{card}; torch {host['torch']}; {host['date']}; {task.dtype}. bar: 512 arms within {BAR:g} of one."
    columns = ["stage", "engine", "arms", "ms", "of one arm's", "bar", "first s", "MiB"]
    show(table("An iteration of arms", columns, cells, caption))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        record = {"machine": host, "card": card, "task": asdict(task), "rows": [asdict(row) for row in rows]}
        (out / "arms.json").write_text(json.dumps(record, indent=2) + "\n")
        print(f"numbers: {out / 'arms.json'}")
    return 0
