"""Predictor-based multi-stage search (S^3) for the recipe with the lowest score at so many evaluations."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sciode.diffusion.checks import check_kinds
from sciode.diffusion.guidance import Guidance
from sciode.diffusion.sample import sample
from sciode.diffusion.samplers.recipe import KINDS, Recipe
from sciode.diffusion.schedules.base import Schedule
from sciode.diffusion.search.predictor import Predictor
from sciode.diffusion.search.space import Space

__all__ = ["Found", "Search", "paired_error", "search"]

Objective = Callable[[Recipe], float]


class Found(NamedTuple):
    """The best recipe, its score, every recipe with its score in the order of evaluation, and of each stage the
    predictor's error in what it had not seen (root mean square of the log)."""

    recipe: Recipe
    score: float
    tried: list[tuple[Recipe, float]]
    surprises: list[float]


@dataclass(frozen=True)
class Search:
    """How to search.

    - stages: alternations of predicting and evaluating; population: evaluated in each; pool: proposals for each one
      evaluated, among which the predictor chooses.
    - parents: how many of the best so far are changed; the last third of the stages moves numbers alone, ever closer.
    """

    stages: int = 12
    population: int = 60
    pool: int = 20
    parents: int = 15

    def __post_init__(self) -> None:
        if min(self.stages, self.population, self.pool, self.parents) < 1:
            raise ValueError("Search: stages, population, pool and parents must be at least 1")


def paired_error(
    model: Callable[..., Tensor], x: Tensor, schedule: Schedule, *, reference: Tensor | None = None,
    prediction: str = "eps", t_start: float | None = None, t_end: float = 1e-3, guidance: Guidance | None = None,
    cond: Mapping[str, Any] | None = None, ems: Any = None,
) -> Objective:  # fmt: skip
    """The objective of `search`: root mean square of a recipe's samples from x [B, ...] against fine ones.

    reference [B, ...]: None = dpm++-3m with 400 steps from the same noise. Not a number counts as infinity. 128 to 512
    starts are enough in a few dimensions; a search overfits fewer. The others: as in `sample`. Raises ValueError for a
    reference of another shape.
    """
    common: dict[str, Any] = {"prediction": prediction, "guidance": guidance, "cond": cond}
    with torch.no_grad():
        fine = {"steps": 400, "t_start": t_start, "t_end": t_end}
        ends: Tensor = sample(model, x, schedule, **fine, **common) if reference is None else reference
    if ends.shape != x.shape:
        raise ValueError(f"reference: expected the shape of x, {tuple(x.shape)}, got {tuple(ends.shape)}")

    def score(recipe: Recipe) -> float:
        more = {"ems": ems} if recipe.needs_statistics else {}
        try:
            with torch.no_grad():
                found = sample(model, x, schedule, sampler=recipe, **common, **more)
        except ValueError as fault:
            # Statistics that overflow within a step make a bad recipe, not a bad search.
            if isinstance(fault.__cause__, FloatingPointError):
                return math.inf
            raise
        error = float((found - ends).square().mean().sqrt())
        return error if math.isfinite(error) else math.inf

    return score


def search(
    objective: Objective, schedule: Schedule, nfe: int, *, t_start: float | None = None, t_end: float = 1e-3,
    kinds: tuple[str, ...] = KINDS, mean: Any = None, settings: Search | None = None, seed: int = 0,
    file: File | None = None,
) -> Found:  # fmt: skip
    """The recipe of `nfe` evaluations with the lowest `objective(recipe)`, a positive number.

    First what recipes can say of named samplers (multistep in noise, data or v3's values, with and without correctors)
    is scored on five grids. Each stage then fits a Gaussian process to the logs of the best scores so far (a thousand
    at most), changes and crosses the best recipes into a large pool, and evaluates those of the pool that it predicts
    to be best. Scores are of what the objective was given: judge the result on other noise.

    - kinds: without "ems" no statistics are needed. mean: of the data (a number, or one sample), allows the analytic
      first step.
    - file: every score is a line of this file, and a search that was cut off goes on from there to the same result.

    Raises ValueError for a file of another search. Source: Liu et al. (2023), USF and S^3 (evolution by FID there).
    """
    settings = settings or Search()
    check_kinds(objective=objective, schedule=schedule, nfe=nfe)
    if not isinstance(settings, Search):
        raise ValueError(f"settings: got a {type(settings).__name__}; pass Search(stages=..., population=..., ...)")
    mean, file = None if mean is None else np.asarray(mean).tolist(), None if file is None else File(file)
    start = schedule.t_max if t_start is None else t_start
    space = Space(schedule, nfe, float(start), float(t_end), kinds, mean)
    ledger = _Ledger(file, objective, _header(space, settings, seed))
    surprises: list[float] = []
    for recipe in space.known():
        ledger.score(recipe)
    for stage in range(settings.stages):
        # A stage is a function of the scores before it and of its number.
        rng = np.random.default_rng([seed, stage])
        chosen, guess = _proposed(space, ledger.tried, settings, stage, rng)
        scores = np.array([ledger.score(recipe) for recipe in chosen])
        surprises.append(float(np.sqrt(np.mean((_logs(scores) - guess) ** 2))) if len(chosen) else math.nan)
    recipe, score = min(ledger.tried, key=lambda pair: pair[1])
    return Found(recipe, score, ledger.tried, surprises)


def _proposed(
    space: Space, tried: list[tuple[Recipe, float]], settings: Search, stage: int, rng: np.random.Generator
) -> tuple[list[Recipe], np.ndarray]:
    """A stage's recipes to evaluate, and what is predicted of them."""
    ranked = sorted(tried, key=lambda pair: pair[1])
    parents = [recipe for recipe, _ in ranked[: settings.parents]]
    late = stage >= settings.stages - max(1, settings.stages // 3)
    narrow = 0.7**stage
    pool = [
        _offspring(space, parents, rng, narrow, decide=not late) for _ in range(settings.pool * settings.population)
    ]
    # Of bad recipes it has to know no more than that they are bad.
    kept = ranked[: 40 * max(10, settings.population // 4)][:1000]
    values = _logs(np.array([score for _, score in kept]))
    predict = Predictor.fitted(space.features([recipe for recipe, _ in kept]), values)
    guesses = predict(space.features(pool))
    order = np.argsort(guesses, kind="stable")[: settings.population]
    return [pool[i] for i in order], guesses[order]


def _offspring(space: Space, parents: list[Recipe], rng: np.random.Generator, narrow: float, decide: bool) -> Recipe:
    # The best most often: the rank is exponential.
    ranks = np.minimum(rng.exponential(len(parents) / 3, 2).astype(int), len(parents) - 1)
    one, other = (parents[r] for r in ranks)
    if decide and rng.random() < 0.05:
        return space.random(rng)
    if rng.random() < 0.3:
        one = space.crossed(one, other, rng)
    return space.mutated(one, rng, narrow, decide)


def _logs(scores: np.ndarray) -> np.ndarray:
    """Logs, with what did not work at all as bad as the worst that did, and what hardly did no worse than 10 times the
    median."""
    finite = scores[np.isfinite(scores)]
    ceiling = 10 * float(np.median(finite)) if len(finite) else 1.0
    return np.log(np.clip(np.where(np.isfinite(scores), scores, ceiling), 1e-300, ceiling))


def _header(space: Space, settings: Search, seed: int) -> dict[str, Any]:
    return {
        "search": [seed, settings.stages, settings.population, settings.pool, settings.parents],
        "space": [type(space.schedule).__name__, space.evaluations, space.t_start, space.t_end, *space.kinds],
        "mean": space.mean,
    }


def _number(score: Any) -> float:
    """A score, infinity where it is no number (NaN compares with nothing); ValueError for what is none."""
    try:
        value = float(score)
    except (TypeError, ValueError, RuntimeError):
        value = -1.0
    if value < 0:
        raise ValueError(f"objective: expected one number >= 0, the lower the better, got {score!r}")
    return math.inf if math.isnan(value) else value


class _Ledger:
    """Scores in the order in which they were asked for; those in the file are not computed again."""

    def __init__(self, file: File | None, objective: Objective, header: dict[str, Any]) -> None:
        self.file, self.objective = file, objective
        self.tried: list[tuple[Recipe, float]] = []
        self._stored: list[tuple[str, float]] = []
        if file is None:
            return
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        if not lines:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(header) + "\n", encoding="utf-8")
            return
        if json.loads(lines[0]) != json.loads(json.dumps(header)):
            raise ValueError(f"file: {file} belongs to another search; give another name or remove it")
        for line in lines[1:]:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                # A line that was cut off is scored again.
                break
            self._stored.append((row["recipe"], math.inf if row["score"] is None else row["score"]))
        whole = [json.dumps(header), *(self._line(text, score) for text, score in self._stored)]
        file.write_text("\n".join(whole) + "\n", encoding="utf-8")

    @staticmethod
    def _line(text: str, score: float) -> str:
        return json.dumps({"score": score if math.isfinite(score) else None, "recipe": text})

    def score(self, recipe: Recipe) -> float:
        """The recipe's score, from the file where it has it."""
        place, text = len(self.tried), recipe.to_json()
        if place < len(self._stored):
            stored, value = self._stored[place]
            if stored != text:
                raise ValueError(f"file: {self.file} belongs to another search; give another name or remove it")
        else:
            value = _number(self.objective(recipe))
            if self.file is not None:
                with self.file.open("a", encoding="utf-8") as out:
                    out.write(self._line(text, value) + "\n")
        self.tried.append((recipe, value))
        return value
