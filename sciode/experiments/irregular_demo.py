"""The demo: a stable neural SDE learns real irregular series, with all readings and with half of them missing."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from sciode.data import IrregularSeries, Split, drop, load, manifest, official, stratified
from sciode.lab.figures import picture
from sciode.lab.progress import progress, say
from sciode.lab.tables import mean_sd, show, table
from sciode.timeseries import IrregularClassifier
from sciode.training import append_json, choose_device, read_json_lines
from sciode.training.checkpoint import write_atomically

DATASETS = ("BasicMotions", "JapaneseVowels")
MISSING = (0.0, 0.5)
SPLITS = ("pooled", "official")
REPETITIONS = 3
Job = tuple[str, float, str, int, str, Path | None]
PICTURED = ("BasicMotions", 0.5, "pooled")
# Chosen by sciode.experiments.demo_settings on validation parts of the official training sets. The pooled splits' test
# parts hold series from those sets, too, so only the official split's accuracy is free of the choice.
SETTINGS: dict[str, dict[str, Any]] = {
    "BasicMotions": {"batch_size": 32, "lr": 2e-3, "label_smoothing": 0.0, "epochs": 40},
    "JapaneseVowels": {"batch_size": 128, "lr": 4e-3, "label_smoothing": 0.1, "epochs": 40},
}


@dataclass(frozen=True)
class Row:
    """One training run: what was trained, and its test accuracy, mean field evaluations a series, and seconds."""

    dataset: str
    missing: float
    split: str
    seed: int
    accuracy: float
    nfe: float
    seconds: float

    @property
    def key(self) -> tuple[str, float, str, int]:
        """What identifies the run."""
        return (self.dataset, self.missing, self.split, self.seed)


def run_demo(seed: int = 0, device: str = "auto", out: Path = Path("sciode-demo")) -> int:
    """Train on two data sets at 0 % and 50 % missing readings; print the table, draw the figure, write metrics.json.

    Each row is three runs (seeds seed, seed + 1, seed + 2): another split, another mask, another network. "pooled" is
    the stratified 70/15/15 split of all series, "official" the archive's own test set. The validation part alone
    chooses the epoch.

    Parameters
    ----------
    seed: first of the three seeds, >= 0.
    device: "cpu", "cuda", ... ; "auto" is the CPU, where networks this small train 3 times as fast as on an H100.
    out: folder of metrics.json, demo.png, model.safetensors and rows.jsonl; finished runs found there are kept, so an
        interrupted demo goes on where it was.

    Returns 0. Raises ValueError for a negative seed or an unknown device, ImportError without matplotlib.
    """
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")
    if find_spec("matplotlib") is None:
        raise ImportError('the demo draws with matplotlib, which is missing: pip install "sciode[lab]"')
    place = str(choose_device("cpu" if device == "auto" else device))
    out = Path(out)
    wanted = [(*cell, seed + k) for cell in product(DATASETS, MISSING, SPLITS) for k in range(REPETITIONS)]
    rows = _finished(out / "rows.jsonl", place)
    missing_keys = [key for key in wanted if key not in rows]
    jobs: list[Job] = [
        (*key, place, out / "model.safetensors" if key == (*PICTURED, seed) else None) for key in missing_keys
    ]
    say(f"{len(jobs)} of {len(wanted)} training runs to go, some seconds each")
    with progress(total=len(wanted), description="training runs", unit="run") as bar:
        bar.update(len(wanted) - len(jobs))
        for row in _results(jobs, place):
            rows[row.key] = row
            append_json(out / "rows.jsonl", {"device": place, **_version(), **asdict(row)})
            bar.update()
    records = [_record([rows[key] for key in wanted if key[:3] == cell]) for cell in product(DATASETS, MISSING, SPLITS)]
    write_atomically(out / "metrics.json", (json.dumps(records, indent=2) + "\n").encode())
    show(_table([[rows[key] for key in wanted if key[:3] == cell] for cell in product(DATASETS, MISSING, SPLITS)]))
    draw(out / "model.safetensors", seed, out / "demo.png")
    print(f"figure: {out / 'demo.png'}\nnumbers: {out / 'metrics.json'}")
    return 0


def draw(model: Path, seed: int, file: Path) -> None:
    """Draw the saved classifier at work: a series and its control path, its latent fan, the confusion matrix."""
    from sciode.lab import plots

    classifier = IrregularClassifier.load(model, device="cpu")
    name, missing, split = PICTURED
    series, labels, parts = _data(name, missing, split, seed)
    test, truth = series[parts.test], labels[parts.test]
    one = test[int((truth == "Badminton").argmax())]
    control = classifier.grid_.controls(classifier.standardizer_.transform(one)).values[0].numpy()
    times, paths = classifier.latent_paths(one, n_samples=24)
    with picture(file, (13, 3.9)) as figure:
        left, middle, right = figure.subplots(1, 3, width_ratios=[1.2, 1.2, 1])
        shown = [0, 1, 2]
        standard = classifier.standardizer_.transform(one)
        names = [f"acceleration {axis}" for axis in "xyz"]
        readings = standard.values[0][:, shown]
        plots.series(left, one.times[0], readings, path=(times, control[:, shown]), names=names, unit="time (samples)")
        left.set(title=f"{name}, {missing:.0%} of the readings missing", ylabel="standardised reading")
        spread = paths[:, :, 0].std(0).mean(0)
        for latent in spread.argsort()[::-1][:3]:
            plots.fan(middle, times, paths[:, :, 0, latent], label=f"z, channel {latent}")
        middle.legend(loc="upper left")
        middle.set(title="latent state, 24 noise samples", xlabel="time (samples)", ylabel="z(t)")
        plots.confusion(right, truth, classifier.predict(test), classifier.classes_.tolist())
        right.set_title(f"{len(truth)} test series: accuracy {classifier.score(test, truth):.2f}")


def _data(dataset: str, missing: float, split: str, seed: int) -> tuple[IrregularSeries, Any, Split]:
    """Return the series with readings dropped, the labels and the split of one run."""
    series, labels = load(dataset)
    shape = manifest(dataset).shape
    parts = stratified(labels, seed) if split == "pooled" else official(labels, shape.train, seed)
    return drop(series, missing, seed, unit="reading"), labels, parts


def _results(jobs: Sequence[Job], device: str) -> Iterator[Row]:
    """Yield the finished runs: two at a time on a CPU, else one after another."""
    if device == "cpu":
        yield from in_parallel(_run_job, jobs)
    else:
        yield from map(_run_job, jobs)


def in_parallel(work: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
    """Yield work(job) as they finish, from two processes of one thread each (small nets gain from no more)."""
    workers = min(2, os.cpu_count() or 1, len(jobs))
    if workers < 2:
        yield from map(work, jobs)
        return
    with get_context("spawn").Pool(workers, initializer=_start_worker) as pool:  # leaving the block ends the workers
        yield from pool.imap_unordered(work, jobs)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent process, which ends its workers, and give the worker one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _run_job(job: Job) -> Row:
    return _run(*job)


def _run(dataset: str, missing: float, split: str, seed: int, device: str, keep: Path | None) -> Row:
    """Train and test once; save the classifier to `keep`."""
    series, labels, parts = _data(dataset, missing, split, seed)
    began = time.perf_counter()
    classifier = IrregularClassifier(random_state=seed, device=device, **SETTINGS[dataset])
    held = series[parts.validation], labels[parts.validation]
    classifier.fit(series[parts.train], labels[parts.train], held)
    draws = classifier.predict_draws(series[parts.test])
    predicted = classifier.classes_[draws.probabilities.mean(0).argmax(-1)]
    seconds = time.perf_counter() - began
    if keep is not None:
        classifier.save(keep)
    accuracy = float((predicted == labels[parts.test]).mean())
    return Row(dataset, missing, split, seed, accuracy, float(draws.nfe.mean()), seconds)


def _version() -> dict[str, str]:
    """Return what else a finished run depends on: another version or other settings train again."""
    return {"torch": metadata.version("torch"), "settings": json.dumps(SETTINGS, sort_keys=True)}


def _finished(path: Path, device: str) -> dict[tuple[str, float, str, int], Row]:
    """Return the runs that an earlier demo finished on the same device, version and settings."""
    rows: dict[tuple[str, float, str, int], Row] = {}
    stamp = {"device": device, **_version()}
    for record in read_json_lines(path):
        if all(record.pop(name, None) == value for name, value in stamp.items()):
            row = Row(**record)
            rows[row.key] = row
    return rows


def _record(rows: Sequence[Row]) -> dict[str, Any]:
    """Return one entry of metrics.json: seconds are those of all its runs together."""
    accuracies = [row.accuracy for row in rows]
    return {
        "dataset": rows[0].dataset,
        "missing": rows[0].missing,
        "split": rows[0].split,
        "seeds": [row.seed for row in rows],
        "accuracy_mean": fmean(accuracies),
        "accuracy_sd": stdev(accuracies),
        "nfe_mean": fmean(row.nfe for row in rows),
        "seconds": sum(row.seconds for row in rows),
    }


def _table(cells: Sequence[Sequence[Row]]) -> Any:
    """Return the rich table: one line a data set and missing rate, both splits side by side."""
    lines = []
    for pooled, archive in zip(cells[::2], cells[1::2], strict=True):
        both = [*pooled, *archive]
        lines.append(
            [
                pooled[0].dataset,
                f"{pooled[0].missing:.0%}",
                mean_sd([row.accuracy for row in pooled]),
                mean_sd([row.accuracy for row in archive]),
                fmean(row.nfe for row in both),
                fmean(row.seconds for row in both),
            ]
        )
    columns = ["data set", "missing", "accuracy, pooled 70/15/15", "accuracy, official split", "NFE", "s a run"]
    caption = f"Neural LNSDE, {REPETITIONS} seeds, mean ± sd; NFE = field evaluations a series"
    return table("Stable neural SDE on irregular series", columns, lines, caption)
