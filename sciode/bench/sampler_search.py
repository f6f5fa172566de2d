"""`sciode bench sampler_search`: solver search at 5, 7 and 10 evaluations, beside every named sampler on every grid.

A search sees 256 starts of a mixture; it and its rivals are judged on starts that it never saw (3 x 512). Nothing is
timed. The bar: at least 20 % below the best of all rivals, who are chosen on the very starts that they are judged on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from sciode.bench.samplers import END, MIXTURES, SCHEDULE, START, Case
from sciode.bench.timing import machine
from sciode.diffusion import Recipe, sample, samplers
from sciode.diffusion.samplers.registry import catalogue
from sciode.diffusion.search import Search, paired_error, search
from sciode.lab.tables import show, table

__all__ = ["BUDGETS", "GRIDS", "WAYS", "Line", "bar", "lines", "main", "record", "show_lines", "where"]

GRIDS = ("uniform", "quadratic", "log-snr", "karras", "beta", "trailing", "middle")
KINDS = ("smooth 3-D", "sharp 3-D", "smooth 16-D")
SEEDS = (0, 1, 2)
BUDGETS = (5, 7, 10)
"""Evaluations."""
_SEEN, _UNSEEN = 256, (512, 512, 512)
_SETTINGS = Search()
WAYS: dict[str, dict[str, Any]] = {
    "searched": {},
    "without the analytic first step": {"mean": None},
    "without statistics": {"kinds": ("noise", "data")},
    "without the predictor": {"settings": Search(pool=1)},
}
"""Searches that are compared; the last proposes by evolution alone, as the released code of the paper does."""


@dataclass(frozen=True)
class Line:
    """Of one way on one mixture with one budget (`mixture` names both): errors on the starts it saw (None: rivals saw
    none) and on three sets it did not."""

    mixture: str
    seed: int
    name: str
    seen: float | None
    unseen: tuple[float, ...]
    recipe: dict[str, Any] | None = None

    @property
    def mean(self) -> float:
        """Root mean square over the unseen sets."""
        return math.sqrt(fmean(e**2 for e in self.unseen))


class _Trial:
    """A mixture, the starts a search sees, and those it does not, with the ends of all."""

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.seed = kind, seed
        self.case = Case(MIXTURES[kind], seed, batch=_SEEN)
        self.sets = [self._set(n, 5000 + 10 * seed + i) for i, n in enumerate(_UNSEEN)]
        self.mean = self.case.mixture.moments()[0].tolist()

    def _set(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(count, self.case.mixture.dim, generator=generator, dtype=torch.float64)
        return x, self.case.mixture.end_of_ode(x, SCHEDULE, START, END, 1e-10)

    def searched(self, nfe: int, name: str, file: Path | None) -> Line:
        """One search."""
        case = self.case
        seen = paired_error(case.model, case.x, SCHEDULE, reference=case.exact, ems=case.ems)
        options = {"mean": self.mean, "settings": _SETTINGS} | WAYS[name]
        found = search(seen, SCHEDULE, nfe, t_end=END, seed=self.seed, file=file, **options)
        errors, recipe = self._judged(found.recipe), json.loads(found.recipe.to_json())
        return Line(where(self.kind, nfe), self.seed, name, found.score, errors, recipe)

    def named(self, nfe: int, name: str, grid: str) -> Line | None:
        """One rival; None where a step takes more evaluations."""
        if catalogue()[name].evaluations(1) > nfe:  # type: ignore[union-attr]
            return None
        errors = self._judged(name, grid=grid, nfe=nfe)
        return Line(where(self.kind, nfe), self.seed, f"{name}, {grid}", None, errors)

    def _judged(self, sampler: str | Recipe, **more: Any) -> tuple[float, ...]:
        wants = sampler.needs_statistics if isinstance(sampler, Recipe) else sampler.startswith("dpm-v3")
        if wants:
            more["ems"] = self.case.ems
        return tuple(
            float((sample(self.case.model, x, SCHEDULE, sampler=sampler, t_end=END, **more) - y).square().mean().sqrt())
            for x, y in self.sets
        )


def where(kind: str, nfe: int) -> str:
    """What a line's `mixture` says."""
    return f"{kind}, {nfe} evaluations"


def lines(
    wanted: Sequence[tuple[str, int]], seeds: Sequence[int] = SEEDS, folder: Path | None = None
) -> Iterator[Line]:
    """All rivals and all searches of each (kind, evaluations); of the ablations those of the first seed and budget.

    folder: where searches can go on.
    """
    for kind in dict.fromkeys(kind for kind, _ in wanted):
        for seed in seeds:
            trial = _Trial(kind, seed)
            for nfe in [nfe for known, nfe in wanted if known == kind]:
                for name, info in samplers().items():
                    if info.kind == "ode" and info.evaluations is not None:
                        yield from filter(None, (trial.named(nfe, name, grid) for grid in GRIDS))
                for way in WAYS if (seed, nfe) == (seeds[0], BUDGETS[0]) else list(WAYS)[:1]:
                    file = f"{kind} {seed} {nfe} {way}.jsonl".replace(" ", "_")
                    yield trial.searched(nfe, way, None if folder is None else folder / file)


def bar(found: Sequence[Line]) -> list[tuple[str, str, float, bool]]:
    """(mixture and seed, best rival, the search's error over the rival's, whether the bar is met)."""
    verdicts = []
    for mixture, seed in dict.fromkeys((line.mixture, line.seed) for line in found):
        here = [line for line in found if (line.mixture, line.seed) == (mixture, seed)]
        rival = min((line for line in here if line.recipe is None), key=lambda line: line.mean)
        for line in here:
            if line.name == "searched":
                share = line.mean / rival.mean
                verdicts.append((f"{mixture}, seed {seed}", rival.name, share, share <= 0.8))
    return verdicts


def main(out: Path | None = None, only: str | None = None) -> int:
    """Measure, print the table; with `out` write sampler_search.json there, and searches, to go on from, beside it.

    only: mixtures and budgets that have it in their name, such as "sharp" or "7 evaluations". All take an hour.
    """
    every = [(kind, nfe) for kind in KINDS for nfe in BUDGETS]
    wanted = [pair for pair in every if (only or "") in where(*pair)]
    if not wanted:
        raise ValueError(f"only: {only!r} is in no name; there are {', '.join(where(*pair) for pair in every)}")
    folder = None if out is None else out / "sampler_search"
    found: list[Line] = []
    for line in lines(wanted, folder=folder):
        found.append(line)
        if line.recipe is not None:
            print(f"{line.mixture}, seed {line.seed}, {line.name}: {line.mean:.4f}", flush=True)
    show_lines(found)
    if out is not None:
        told = {"machine": machine(), "grids": GRIDS} | record(found)
        (out / "sampler_search.json").write_text(json.dumps(told, indent=1) + "\n")
        print(f"numbers: {out / 'sampler_search.json'}")
    return 0


def record(found: Sequence[Line]) -> dict[str, Any]:
    """Searches, of the rivals the ten best of each that matter to the verdicts, and these."""
    kept = [line for line in found if line.recipe is not None]
    rivals = sorted((line for line in found if line.recipe is None), key=lambda line: line.mean)
    for mixture, seed in dict.fromkeys((line.mixture, line.seed) for line in kept):
        kept += [line for line in rivals if (line.mixture, line.seed) == (mixture, seed)][:10]
    return {
        "lines": [asdict(line) | {"mean": line.mean} for line in kept],
        "bars": [dict(zip(("where", "rival", "ratio", "met"), row, strict=True)) for row in bar(found)],
    }


def show_lines(found: Sequence[Line]) -> None:
    """The tables: what searches found, and the bar."""
    rows = []
    for line in found:
        if line.recipe is not None:
            low, high = min(line.unseen), max(line.unseen)
            rows.append(
                (line.mixture, line.seed, line.name, f"{line.seen:.4f}", f"{line.mean:.4f}", f"{low:.4f} to {high:.4f}")
            )
    show(table("Searches", ["mixture", "seed", "way", "error, seen", "unseen", "of each set"], rows))
    met = {True: "met", False: "missed"}
    cells = [(where, rival, f"{share:.2f}", met[ok]) for where, rival, share, ok in bar(found)]
    show(table("Against the best named sampler", ["mixture", "best rival", "ratio", "<= 0.8"], cells))
