"""The frame of the tables of `sciode train`: one task, trained in every way of `recipes`, at every strength.

An experiment declares a `Task`: its data, its model, the loss of a training step, how a part of the data is judged.
The rest is here: seeds side by side in one solve, weighted penalties, timing, rows that outlive an interruption,
strengths chosen by validation, the table and the curve.
"""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from sciode.experiments.ledger import Built, finished_rows
from sciode.experiments.recipes import RECIPES, Recipe
from sciode.experiments.verdicts import Score, chosen, pareto, result_table
from sciode.lab.tables import show
from sciode.solvers import Solution, SolveError, solve
from sciode.training import choose_device, derive_seed
from sciode.training.checkpoint import write_atomically

__all__ = ["Judged", "Settings", "Solver", "Task", "run"]

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Settings:
    """What all rows of a table share; an experiment adds its own and sets its own defaults.

    steps, batch: of training, for each seed; tolerance: relative and absolute, in training and in tests; strengths:
    those that are tried instead of the recipes' own, () = theirs; device; engine, adjoint: see `solve`; dtype:
    "float32", or "float64" for tolerances below 1e-6. workers: rows that are made at a time, each in a process of its
    own, on the same device. Raises ValueError for a size below one, no seed or another dtype.
    """

    steps: int = 1000
    batch: int = 128
    seeds: tuple[int, ...] = (0, 1, 2)
    lr: float = 1e-3
    tolerance: float = 1e-5
    strengths: tuple[float, ...] = ()
    device: str = "cpu"
    engine: str = "auto"
    adjoint: str = "auto"
    dtype: str = "float32"
    workers: int = 1

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype: one of {', '.join(_DTYPES)}, got {self.dtype!r}")
        sizes = [getattr(self, f.name) for f in fields(self) if type(getattr(self, f.name)) is int]
        if min(*sizes, len(self.seeds), 1) < 1:
            raise ValueError(f"settings: sizes must be at least 1, and so must the number of seeds, got {self}")

    @property
    def real(self) -> torch.dtype:
        """Of weights, data and states."""
        return _DTYPES[self.dtype]


class Judged(NamedTuple):
    """What a model made of a batch: for each seed the sum of its score [S] over `weight` units, and its solve."""

    total: Tensor
    weight: float | Tensor
    found: Solution


@dataclass(frozen=True)
class Solver:
    """`solve` as a row asks for it: (field, y0 [models, batch, *state], ts, **options) -> Solution.

    A training step brings its recipe's regularizers and random times; a test goes without. options win.
    """

    settings: Settings
    recipe: Recipe
    seed: int

    def __call__(self, field: Any, y0: Any, ts: Tensor, **options: Any) -> Solution:
        """Solve for all models at once, each sample with its own steps."""
        settings = self.settings
        asked = {
            "batch_dims": 2,
            "rtol": settings.tolerance,
            "atol": settings.tolerance,
            "engine": settings.engine,
            "adjoint": settings.adjoint,
            "seed": self.seed,
            "regularize": self.recipe.regularize,
        }
        return solve(field, y0, self.recipe.times(ts, self.seed), **{**asked, **options})


class Task(ABC):
    """One experiment: data in parts "train", "validation", "test", a model of all seeds, a loss and a score.

    The models of all seeds are one module, whose parameters have the seeds as their first axis (`stacked`).

    title: of the table. score: what is judged. unit: by what a recipe's weights are multiplied, for a loss of another
    size than a cross-entropy's. recipes: the ways that are compared, vanilla first. inapplicable: name of a recipe ->
    the reason why it is not; the table says so.
    """

    title: str
    score: ClassVar[Score]
    unit: ClassVar[float] = 1.0
    recipes: ClassVar[Sequence[Recipe]] = RECIPES
    inapplicable: ClassVar[Mapping[str, str]] = {}

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @abstractmethod
    def model(self) -> nn.Module:
        """Fresh weights, from the seeds."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Adam, or another elementwise one, so that each seed is trained as if it were alone."""
        return torch.optim.Adam(model.parameters(), self.settings.lr)

    @abstractmethod
    def loss(self, model: Any, step: int, solver: Solver) -> tuple[Tensor, Solution]:
        """The loss of a training step, summed over the seeds, and the solve whose penalties are added to it."""

    @abstractmethod
    def size(self, part: str) -> int:
        """How many samples a part has."""

    @abstractmethod
    def judge(self, model: Any, part: str, rows: slice, solver: Solver) -> Judged:
        """Test some samples of a part, for every seed."""


def train(task: Task, model: nn.Module, recipe: Recipe, factor: float) -> float:
    """Train; seconds of it, the first tenth (compilation) counted at the pace of the rest."""
    settings = task.settings
    optimizer = task.optimizer(model)
    warm, began = settings.steps // 10, 0.0
    for step in range(settings.steps):
        if step == warm:
            began = _clock(settings.device)
        loss, found = task.loss(model, step, Solver(settings, recipe, derive_seed(settings.seeds[0], 1, step)))
        loss = loss + recipe.loss(found, task.unit * factor, step, settings.steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (_clock(settings.device) - began) * settings.steps / (settings.steps - warm)


@torch.no_grad()
def tested(task: Task, model: nn.Module, part: str) -> dict[str, Any]:
    """Score and evaluations of every seed, batched evaluations, and seconds of the second of two predictions."""
    settings, seeds = task.settings, len(task.settings.seeds)
    totals, weights, nfe, calls, seconds = [], [], [], [], 0.0
    for start in range(0, task.size(part), settings.batch):
        rows = slice(start, min(start + settings.batch, task.size(part)))
        solver = Solver(settings, task.recipes[0], derive_seed(settings.seeds[0], 3, start))
        for again in (False, True):
            began = _clock(settings.device)
            judged = task.judge(model, part, rows, solver)
            seconds += (_clock(settings.device) - began) * again
        totals.append(judged.total.double())
        weights.append(float(judged.weight))
        nfe.append(judged.found.stats.nfe.double().reshape(seeds, -1))
        calls.append(judged.found.stats.calls)
    return {
        task.score.name: (torch.stack(totals).sum(0) / sum(weights)).tolist(),
        "nfe": torch.cat(nfe, 1).mean(1).tolist(),
        "calls": fmean(calls),
        "seconds": seconds,
    }


def made(task: Task, recipe: Recipe, factor: float) -> dict[str, Any]:
    """What one recipe at one strength comes to; {"note": "failed: ..."} if a solve or a score breaks down."""
    model = task.model().to(task.settings.device, task.settings.real)
    try:
        seconds = train(task, model, recipe, factor)
        judged = {part: tested(task, model, part) for part in ("validation", "test")}
    except SolveError as fault:
        return {"note": f"failed: {fault}"}
    if not all(math.isfinite(value) for part in judged.values() for value in part[task.score.name]):
        return {"note": "failed: the score is not finite"}
    return {"train_seconds": seconds, **judged}


def run(kind: type[Task], settings: type[Settings], out: Path, device: str, changes: Mapping[str, Any]) -> int:
    """Train all recipes at all strengths, print the table, draw the Pareto curve; <out>/rows.jsonl resumes.

    kind, settings: the experiment's own classes. out: folder of rows.jsonl, table.json, pareto.png. device: as for
    `sciode.training.choose_device`. changes: fields of the settings. Returns 0. Raises ValueError for settings that
    make no sense, or if vanilla itself failed.
    """
    built = Built(kind, settings(**{**changes, "device": str(choose_device(device))}))
    task = built.value
    named = {recipe.name: recipe for recipe in task.recipes}
    if unknown := task.inapplicable.keys() - named.keys():
        raise ValueError(f"inapplicable: there is no recipe {', '.join(sorted(unknown))}; there are {', '.join(named)}")
    tried = [recipe for recipe in task.recipes if recipe.name not in task.inapplicable]
    keys = [
        {"recipe": recipe.name, "factor": factor, "penalties": recipe.said}
        for recipe in tried
        for factor in ((task.settings.strengths if recipe.penalties else ()) or recipe.weights)
    ]
    stamp = json.loads(json.dumps(asdict(task.settings)))
    del stamp["strengths"], stamp["workers"]  # a row has its own, and stays good when others are tried
    rows = finished_rows(out, keys, stamp, partial(_made, built), task.settings.workers)
    rows += [{"recipe": name, "note": f"not applicable: {reason}"} for name, reason in task.inapplicable.items()]
    best = chosen(rows, task.recipes, task.score)
    write_atomically(out / "table.json", (json.dumps(best, indent=2) + "\n").encode())
    show(result_table(task.title, best, task.score))
    pareto(rows, task.recipes, task.score, out / "pareto.png")
    print(f"numbers: {out / 'table.json'}\nfigure: {out / 'pareto.png'}")
    return 0


def _made(built: Built[Task], recipe: str, factor: float, penalties: Sequence[str]) -> dict[str, Any]:
    """The row of a key."""
    task = built.value
    return made(task, next(own for own in task.recipes if own.name == recipe), factor)


def _clock(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()
