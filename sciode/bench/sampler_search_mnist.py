"""`sciode bench sampler_search_mnist`: solver search on the MNIST U-Net, beside every named sampler on every grid.

As `sampler_search`, on a network: errors are root mean squares over pixels from the end of 400 steps of unipc-2 from
the same noise, with digits drawn at random. A search sees 256 starts; it and its rivals are judged on starts that it
never saw (2 x 256), from which the best rival is chosen, too. DPM-Solver-v3 and searched steps of its kind have
statistics of training images. The bar: at least 20 % below the best rival. Nothing is timed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciode.bench.sampler_search import BUDGETS, GRIDS, Line, record, show_lines, where
from sciode.bench.samplers_mnist import END, SCHEDULE, START, Bench, Settings
from sciode.diffusion import Recipe, initial_noise, sample, samplers
from sciode.diffusion.samplers.registry import catalogue
from sciode.diffusion.search import Search, paired_error, search
from sciode.lab.progress import say
from sciode.training import append_json, choose_device, read_json_lines

__all__ = ["BUDGETS", "SEEDS", "WAYS", "main"]

SEEDS = (0, 1, 2)
WAYS: dict[str, dict[str, Any]] = {
    "searched": {},
    "without the analytic first step": {"mean": None},
    "without statistics": {"kinds": ("noise", "data")},
}
_NAME = "MNIST U-Net"
_SEEN, _UNSEEN, _REFERENCE = 256, (256, 256), 400
_SETTINGS = Search()


class _Trial:
    """The network with a seed's starts, seen and unseen, their digits and their ends."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench, self.seed = bench, seed
        self.seen = self._set(_SEEN, 7000 + 10 * seed)
        self.unseen = [self._set(n, 7001 + 10 * seed + i) for i, n in enumerate(_UNSEEN)]
        # Three digits: the recipe keeps a number a pixel.
        self.mean = [[[round(v, 3) for v in row] for row in plane] for plane in bench.train.mean(0).tolist()]

    def _set(self, count: int, seed: int) -> tuple[Any, Tensor, Tensor]:
        """The network told the digits, starts, ends."""
        device = self.bench.settings.device
        label = torch.randint(10, (count,), generator=torch.Generator().manual_seed(seed)).to(device)
        x = initial_noise(SCHEDULE, (count, 1, 28, 28), t_start=START, seed=seed).to(device)
        model = partial(self.bench.model, label=label)
        return model, x, sample(model, x, SCHEDULE, sampler="unipc-2", steps=_REFERENCE, t_start=START, t_end=END)

    def named(self, nfe: int, name: str, grid: str) -> Line:
        """One rival."""
        more = {"ems": self.bench.ems} if name.startswith("dpm-v3") else {}
        return self._line(nfe, f"{name}, {grid}", None, sampler=name, grid=grid, nfe=nfe, **more)

    def searched(self, nfe: int, way: str, file: Path) -> Line:
        """One search."""
        model, x, ends = self.seen
        score = paired_error(model, x, SCHEDULE, reference=ends, ems=self.bench.ems)
        options: dict[str, Any] = {"mean": self.mean, "settings": _SETTINGS} | WAYS[way]
        found = search(score, SCHEDULE, nfe, t_start=START, t_end=END, seed=self.seed, file=file, **options)
        more = {"ems": self.bench.ems} if found.recipe.needs_statistics else {}
        return self._line(nfe, way, found.recipe, found.score, sampler=found.recipe, **more)

    def _line(self, budget: int, name: str, recipe: Recipe | None, seen: float | None = None, **options: Any) -> Line:
        errors = []
        for model, x, ends in self.unseen:
            made = sample(model, x, SCHEDULE, t_start=START if recipe is None else None, t_end=END, **options)
            error = float((made - ends).double().square().mean().sqrt())
            # JSON knows no infinity.
            errors.append(error if math.isfinite(error) else 1e30)
        kept = None if recipe is None else json.loads(recipe.to_json())
        return Line(where(_NAME, budget), self.seed, name, seen, tuple(errors), kept)


def _rivals(nfe: int) -> Iterator[tuple[str, str]]:
    for name, info in samplers().items():
        if info.kind == "ode" and info.evaluations is not None and catalogue()[name].evaluations(1) <= nfe:  # type: ignore[union-attr]
            yield from ((name, grid) for grid in GRIDS)


def _measured(bench: Bench, budgets: Sequence[int], out: Path) -> Iterator[list[Line]]:
    """All lines so far, after each seed; those that are in <out>/lines.jsonl are not made again."""
    file = out / "lines.jsonl"
    stored: list[dict[str, Any]] = read_json_lines(file)
    rows = [Line(**{**row, "unseen": tuple(row["unseen"])}) for row in stored]
    known = {(line.mixture, line.seed, line.name): line for line in rows}
    wanted: list[Line] = []

    def keep(line: Line) -> None:
        known[line.mixture, line.seed, line.name] = line
        append_json(file, asdict(line))

    def made(nfe: int, seed: int, names: Sequence[str]) -> list[Line]:
        missing = [name for name in names if (where(_NAME, nfe), seed, name) not in known]
        trial = _Trial(bench, seed) if missing else None
        for name in missing:
            assert trial is not None
            if name in WAYS:
                keep(trial.searched(nfe, name, out / "searches" / f"{nfe} {seed} {name}.jsonl".replace(" ", "_")))
                say(f"{nfe} evaluations, seed {seed}: {name}")
            else:
                keep(trial.named(nfe, *name.rsplit(", ", 1)))
        return [known[where(_NAME, nfe), seed, name] for name in names]

    best, *others = WAYS
    for nfe in budgets:
        for seed in SEEDS:
            wanted += made(nfe, seed, [best, *(f"{name}, {grid}" for name, grid in _rivals(nfe))])
            yield wanted
    for name in others:
        wanted += made(budgets[0], SEEDS[0], [name])
        yield wanted


def main(
    out: Path | None = None, device: str | None = None, only: str | None = None, *, checkpoint: Path | None = None,
    **changes: Any,
) -> int:  # fmt: skip
    """Measure, print the tables; lines, searches to go on from, and sampler_search_mnist.json go to `out`
    (sciode-sampler-search-mnist).

    only: the one budget, such as "5"; checkpoint: another model than the shipped one.
    """
    budgets = [n for n in BUDGETS if only in (None, str(n))]
    if not budgets:
        raise ValueError(f"only: expected one of the budgets {', '.join(map(str, BUDGETS))}, got {only!r}")
    settings = Settings(device=str(choose_device(device or "auto")), judge_steps=0, **changes)
    out = out or Path("sciode-sampler-search-mnist")
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(settings, checkpoint, out)
    found: list[Line] = []
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        for found in _measured(bench, budgets, out):
            told = {
                "date": date.today().isoformat(), "torch": torch.__version__, "model": bench.record, "grids": GRIDS,
                "device": torch.cuda.get_device_name() if settings.device.startswith("cuda") else settings.device,
                "seen": _SEEN, "unseen": _UNSEEN, "reference": _REFERENCE, **record(found),
            }  # fmt: skip
            (out / "sampler_search_mnist.json").write_text(json.dumps(told, indent=1) + "\n")
    show_lines(found)
    return 0
