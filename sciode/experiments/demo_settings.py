"""How the demo's settings are chosen: on validation parts of the archives' own training sets, never on test series.

    python -m sciode.experiments.demo_settings --out notebooks/results/demo_settings.jsonl

The grid is `GRID`; a setting is scored by its mean validation accuracy over missing rates and seeds, ties go to the
lower validation log loss. Finished runs in the file are kept, so an interrupted search goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import tyro

from sciode.data import drop, load, stratified
from sciode.experiments.irregular_demo import DATASETS, MISSING, in_parallel
from sciode.lab.progress import progress
from sciode.lab.tables import show, table
from sciode.timeseries import IrregularClassifier
from sciode.training import append_json, read_json_lines

GRID: dict[str, tuple[Any, ...]] = {
    "lr": (2e-3, 4e-3, 8e-3),
    "horizon": (1.0, 10.0),
    "label_smoothing": (0.0, 0.1),
}
BATCH_SIZE = {"BasicMotions": 32, "JapaneseVowels": 128}
SEEDS = (0, 1, 2)
EPOCHS = 40


@dataclass(frozen=True)
class Trial:
    """One training run of the search."""

    dataset: str
    missing: float
    seed: int
    lr: float
    horizon: float
    label_smoothing: float


def trials() -> list[Trial]:
    """Every run of the search: data sets x missing rates x seeds x the grid."""
    runs = product(DATASETS, MISSING, SEEDS, product(*GRID.values()))
    return [Trial(name, rate, seed, **dict(zip(GRID, values, strict=True))) for name, rate, seed, values in runs]


def score(trial: Trial) -> dict[str, Any]:
    """Train on 70 % of the official training set and score on the other 30 %: accuracy and log loss."""
    series, labels = load(trial.dataset, split="train")
    parts = stratified(labels, trial.seed, fractions=(0.7, 0.3, 0.0))
    series = drop(series, trial.missing, trial.seed, unit="reading")
    held = series[parts.validation], labels[parts.validation]
    settings = {name: getattr(trial, name) for name in GRID}
    batch = BATCH_SIZE[trial.dataset]
    classifier = IrregularClassifier(
        random_state=trial.seed, device="cpu", epochs=EPOCHS, batch_size=batch, n_samples=8, **settings
    )
    classifier.fit(series[parts.train], labels[parts.train], held)
    probability = np.asarray(classifier.predict_proba(held[0]))
    truth = np.searchsorted(classifier.classes_, held[1])
    right = probability[np.arange(len(truth)), truth]
    return {
        **vars(trial),
        "accuracy": float((probability.argmax(1) == truth).mean()),
        "log_loss": float(-np.log(np.maximum(right, 1e-12)).mean()),
    }


def ranking(records: Sequence[dict[str, Any]], dataset: str) -> list[tuple[tuple[Any, ...], float, float, float]]:
    """Settings of one data set, best first: (values in the grid's order, mean accuracy, its sd, mean log loss)."""
    ranked = []
    for values in product(*GRID.values()):
        mine = [r for r in records if r["dataset"] == dataset and tuple(r[name] for name in GRID) == values]
        accuracies = [r["accuracy"] for r in mine]
        ranked.append((values, fmean(accuracies), stdev(accuracies), fmean(r["log_loss"] for r in mine)))
    return sorted(ranked, key=lambda row: (-row[1], row[3]))


def main(out: Path = Path("demo_settings.jsonl")) -> None:
    """Run the search and print every setting's validation scores, best first."""
    done = {tuple(r[name] for name in Trial.__dataclass_fields__): r for r in read_json_lines(out)}
    wanted = trials()
    missing = [trial for trial in wanted if tuple(vars(trial).values()) not in done]
    with progress(total=len(wanted), description="validation runs", unit="run") as bar:
        bar.update(len(wanted) - len(missing))
        for record in in_parallel(score, missing):
            append_json(out, record)
            bar.update()
    records = read_json_lines(out)
    for dataset in DATASETS:
        lines = [[*values, acc, sd, loss] for values, acc, sd, loss in ranking(records, dataset)]
        columns = [*GRID, "validation accuracy", "sd over runs", "log loss"]
        show(table(f"{dataset}: settings by validation", columns, lines, f"{len(MISSING) * len(SEEDS)} runs a line"))


if __name__ == "__main__":
    tyro.cli(main)
