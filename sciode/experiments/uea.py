"""Classification of the UEA and UCR archives' series with readings missing: models side by side, on the same splits.

    sciode train uea --device cuda
    sciode train uea --set 'sets=["BasicMotions"]' 'models=["lnsde","ncde","minirocket"]' epochs=40

The protocol of Oh, Lim and Kim (ICLR 2024): training and test sets pooled, a stratified 70/15/15 split a seed, a share
of the readings dropped, either of each channel by itself or whole time points (both are rows). All missing rates and
seeds of a row are members of one training in lockstep. What differs from the paper: scales are learnt from the training
part and laid on what every model reads; series of unequal length keep their own clocks.

Every model has the same trials (`TRIALS`): trained at 0 % missing, as in the paper, on all seeds; the one of highest
mean validation accuracy (ties: of lower loss) is taken for all rates and both ways of dropping. The test part is read
once, at the best validation epoch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from sciode.data import IrregularSeries, Split, drop, load, path, stratified
from sciode.experiments.ledger import finished_rows, named, stamped
from sciode.experiments.rocket import majority, minirocket
from sciode.experiments.uea_lines import LINES, line, single
from sciode.experiments.uea_tables import accuracy_tables, curves, summary
from sciode.lab.tables import show
from sciode.timeseries import MODELS, Case, IrregularClassifier, fit_together, predict_together
from sciode.training import choose_device, derive_seed
from sciode.training.checkpoint import write_atomically

__all__ = ["BASELINES", "IRREGULAR", "PAPER", "TRIALS", "Settings", "main"]

PAPER = (
    "ArrowHead", "Car", "Coffee", "GunPoint", "Herring", "Lightning2", "OliveOil", "Rock", "SmoothSubspace",
    "ToeSegmentation1", "Trace", "Wine", "BasicMotions", "Epilepsy", "ERing", "EyesOpenShut", "FingerMovements",
    "JapaneseVowels",
)  # fmt: skip
"""The sets of the paper's thirty that can be had."""

IRREGULAR = ("DodgerLoopDay", "DodgerLoopGame", "GesturePebbleZ1", "ShakeGestureWiimoteZ")
"""Sets that are irregular by nature: gaps, or lengths of their own."""

BASELINES = ("minirocket", "majority")

TRIALS: tuple[dict[str, Any], ...] = (
    {"hidden": 16, "lr": 8e-3},
    {"hidden": 16, "lr": 2e-3},
    {"hidden": 16, "lr": 2e-2},
    {"hidden": 32, "lr": 8e-3},
    {"hidden": 32, "lr": 2e-3},
    {"hidden": 32, "lr": 2e-2},
    {"hidden": 64, "lr": 8e-3},
    {"hidden": 64, "lr": 2e-3},
    {"hidden": 64, "lr": 2e-2},
)
"""What is tried for every model; those of one width are trained in lockstep."""

Mechanic = Literal["reading", "time"]


@dataclass(frozen=True)
class Settings:
    """What is compared, and how it is trained.

    sets: () = those of `PAPER` and `IRREGULAR` that are on this machine.
    models: names in `MODELS`, `LINES` and `BASELINES`.
    mechanics: "reading", each channel loses readings of its own, or "time", whole time points are lost.
    trials: how many of `TRIALS`, 1 = no choice; tuning_epochs: of each. slots: the most Euler steps a series; longer
    series are read at that many times. draws: noise draws of a prediction. kernels: of MiniRocket. engine: of `solve`.
    workers: rows that are made at a time, each in a process of its own, on the same device.

    Raises ValueError for an unknown name, a size below one, or a rate outside [0, 1).
    """

    sets: tuple[str, ...] = ()
    models: tuple[str, ...] = ("lnsde", "lsde", "gsde", "nsde", "node", "ncde", "odernn", *BASELINES)
    rates: tuple[float, ...] = (0.0, 0.3, 0.5, 0.7)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    mechanics: tuple[Mechanic, ...] = ("reading", "time")
    epochs: int = 100
    trials: int = 9
    tuning_epochs: int = 30
    patience: int = 20
    slots: int = 512
    draws: int = 8
    kernels: int = 10_000
    layers: int = 2
    engine: str = "auto"
    device: str = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        sizes = (self.epochs, self.trials, self.tuning_epochs, self.slots, self.draws, self.layers, self.workers)
        if min(*sizes, len(self.rates), len(self.seeds), len(self.models), len(self.mechanics)) < 1:
            raise ValueError("settings: sizes and numbers of rates, seeds, models and mechanics must be at least 1")
        if self.trials > len(TRIALS):
            raise ValueError(f"trials: there are {len(TRIALS)}, got {self.trials}")
        known = {
            "models": (*MODELS, *LINES, *BASELINES),
            "mechanics": ("reading", "time"),
            "sets": (*PAPER, *IRREGULAR),
        }
        for name, names in known.items():
            named(name, getattr(self, name), names)
        if not all(0 <= rate < 1 for rate in self.rates):
            raise ValueError(f"rates: each must be in [0, 1), got {self.rates}")


class Pooled(NamedTuple):
    """A set, its training and test series together, and how many time points its longest series has."""

    series: IrregularSeries
    labels: NDArray[Any]
    length: int


class Part(NamedTuple):
    """What one member sees: the series with gaps, and its split."""

    series: IrregularSeries
    split: Split


@lru_cache(maxsize=2)
def pooled(name: str) -> Pooled:
    """Load a set."""
    series, labels = load(name)
    return Pooled(series, labels, int(series.lengths.max()))


@lru_cache(maxsize=64)
def part(name: str, seed: int, rate: float, mechanic: Mechanic) -> Part:
    """The split of a seed and the gaps of a seed and rate, the same for all models."""
    data = pooled(name)
    return Part(drop(data.series, rate, seed, mechanic), stratified(data.labels, seed))


def batch_size(count: int) -> int:
    """The paper's: the largest power of 2 that is at most half the number of series, in 16..128."""
    return min(max(1 << (count // 2).bit_length() - 1, 16), 128)


def classifier(name: str, model: str, settings: Settings, seed: int, epochs: int, **tried: Any) -> IrregularClassifier:
    """One member. No noise is laid on the path: a CDE would be driven by it."""
    data = pooled(name)
    return IrregularClassifier(
        layers=settings.layers,
        steps=min(data.length - 1, settings.slots),
        epochs=epochs,
        patience=settings.patience,
        batch_size=batch_size(len(data.labels)),
        jitter=0.0,
        n_samples=settings.draws,
        random_state=seed,
        engine=settings.engine,
        device=settings.device,
        **line(model).options,
        **tried,
    )


def _cases(name: str, parts: Sequence[Part]) -> list[Case]:
    labels = pooled(name).labels
    return [
        Case(p.series[p.split.train], labels[p.split.train], (p.series[p.split.validation], labels[p.split.validation]))
        for p in parts
    ]


def _accuracies(
    name: str, members: Sequence[IrregularClassifier], parts: Sequence[Part], of: str, together: int = 1
) -> Any:
    """(accuracy of each member on its validation or test part, mean evaluations a series).

    together: so many members in a row answer as one, by their mean probabilities.
    """
    rows = [getattr(p.split, of) for p in parts]
    draws = predict_together(members, [p.series[own] for p, own in zip(parts, rows, strict=True)])
    labels = pooled(name).labels
    chances = [np.nan_to_num(d.probabilities).mean(0) for d in draws]
    found = []
    for first in range(0, len(members), together):
        answer = sum(chances[first : first + together]).argmax(-1)  # type: ignore[union-attr]
        found.append(float((members[first].classes_[answer] == labels[rows[first]]).mean()))
    return found, together * fmean(float(d.nfe.mean()) for d in draws)


def tuned(settings: Settings, set: str, model: str) -> dict[str, Any]:
    """Try the trials of one model on one set; those of one width are one training."""
    tried, began, tried_at = TRIALS[: settings.trials], time.perf_counter(), []
    parts = [part(set, seed, 0.0, settings.mechanics[0]) for seed in settings.seeds]
    for hidden in dict.fromkeys(trial["hidden"] for trial in tried):
        trials = [trial for trial in tried if trial["hidden"] == hidden]
        members = [
            classifier(set, model, settings, seed, settings.tuning_epochs, **trial)
            for trial in trials
            for seed in settings.seeds
        ]
        histories = fit_together(members, _cases(set, parts) * len(trials))
        accuracy, _ = _accuracies(set, members, parts * len(trials), "validation")
        losses = [h.epochs[h.best_epoch].validation_loss if h.epochs else np.inf for h in histories]
        for k, trial in enumerate(trials):
            mine = slice(k * len(parts), (k + 1) * len(parts))
            tried_at.append({**trial, "accuracy": fmean(accuracy[mine]), "loss": fmean(losses[mine])})
    best = max(tried_at, key=lambda trial: (trial["accuracy"], -trial["loss"]))
    chosen = {name: best[name] for name in ("hidden", "lr")}
    return {"chosen": chosen, "tried": tried_at, "seconds": time.perf_counter() - began}


def made(settings: Settings, chosen: dict[str, Any], set: str, model: str, mechanic: Mechanic) -> dict[str, Any]:
    """One row: all rates and seeds of a model on a set."""
    cells = [(rate, seed) for rate in settings.rates for seed in settings.seeds]
    parts = [part(set, seed, rate, mechanic) for rate, seed in cells]
    if model in BASELINES:
        return _judged_baseline(settings, set, model, cells, parts)
    count = line(model).members
    seeds = [derive_seed(seed, 9, k) if k else seed for _, seed in cells for k in range(count)]
    members = [classifier(set, model, settings, seed, settings.epochs, **chosen) for seed in seeds]
    parts = [own for own in parts for _ in range(count)]
    cases, ticks = _cases(set, parts), [time.perf_counter()]
    histories = fit_together(members, cases, ticks.append)
    ended = time.perf_counter()
    accuracy, nfe = _accuracies(set, members, parts, "test", count)
    validation, _ = _accuracies(set, members, parts, "validation", count)
    paces = np.diff(ticks).tolist()
    compiling = max(paces[0] - median(paces[1:]), 0.0) if len(paces) > 1 else 0.0
    return {
        "accuracy": _by_rate(settings, accuracy),
        "validation": _by_rate(settings, validation),
        "epochs": _by_rate(settings, [float(len(h.epochs)) for h in histories[::count]]),
        "best_epoch": _by_rate(settings, [float(h.best_epoch) for h in histories[::count]]),
        "train_seconds": ended - ticks[0] - compiling,
        "compile_seconds": compiling,
        "test_seconds": time.perf_counter() - ended,
        "nfe": nfe,
        "diverged": sum(h.stopped.startswith("non-finite") for h in histories),
        "members": len(members),
        **chosen,
    }


def _row(settings: Settings, chosen: dict[Any, Any], set: str, model: str, mechanic: str) -> dict[str, Any]:
    """One row, with what its model's trials chose."""
    of = {} if model in BASELINES else chosen[set, single(model)]
    return made(settings, of, set, model, cast(Mechanic, mechanic))


def _judged_baseline(
    settings: Settings, name: str, model: str, cells: Sequence[tuple[float, int]], parts: Sequence[Part]
) -> dict[str, Any]:
    """A row of a baseline, on the same splits and gaps; it does not need the validation part."""
    data, began, accuracy = pooled(name), time.perf_counter(), []
    for (_, seed), p in zip(cells, parts, strict=True):
        train, test = p.split.train, p.split.test
        if model == "majority":
            answer = majority(data.labels[train], len(test))
        else:
            given = (p.series[train], data.labels[train], p.series[test])
            answer = minirocket(*given, data.length, seed, settings.kernels)
        accuracy.append(float((answer == data.labels[test]).mean()))
    seconds = time.perf_counter() - began
    found = _by_rate(settings, accuracy)
    return {"accuracy": found, "train_seconds": seconds, "compile_seconds": 0.0, "nfe": 0.0, "diverged": 0}


def _by_rate(settings: Settings, values: Sequence[float]) -> dict[str, list[float]]:
    """Values of the members, rate by rate, seeds in order."""
    count = len(settings.seeds)
    return {f"{rate:g}": list(values[k * count : (k + 1) * count]) for k, rate in enumerate(settings.rates)}


def _different(settings: Settings, name: str) -> Sequence[Mechanic]:
    """The ways of dropping that differ: with one channel, a reading is a time point, and one row serves for both."""
    return settings.mechanics[:1] if pooled(name).series.channels == 1 else settings.mechanics


def present(names: Sequence[str]) -> list[str]:
    """Those sets that are on this machine."""
    found = []
    for name in names:
        try:
            path(name)
        except FileNotFoundError:
            continue
        found.append(name)
    return found


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`: rows.jsonl and tuning/rows.jsonl (it resumes), table.json, accuracy.png.

    device: as for `sciode.training.choose_device`. changes: fields of `Settings`. Returns 0; raises ValueError for
    settings that make no sense, or if no set is here.
    """
    if "steps" in changes:
        raise ValueError("steps: this table counts epochs, e.g. --set epochs=50")
    settings = Settings(**{**changes, "device": str(choose_device(device))})
    sets = list(settings.sets) or present((*PAPER, *IRREGULAR))
    if not sets:
        raise ValueError("no set is on this machine: `sciode data get NAME` brings one")
    stamp = stamped(settings, "sets", "models", "mechanics", grid=TRIALS[: settings.trials])
    trained = dict.fromkeys(single(model) for model in settings.models if model not in BASELINES)
    pairs = [{"set": name, "model": model} for name in sets for model in trained]
    tuning = finished_rows(out / "tuning", pairs, stamp, partial(tuned, settings), settings.workers)
    chosen = {(row["set"], row["model"]): row["chosen"] for row in tuning}
    keys = [
        {"set": name, "model": model, "mechanic": mechanic}
        for name in sets
        for model in settings.models
        for mechanic in _different(settings, name)
    ]
    made_rows = finished_rows(out, keys, stamp, partial(_row, settings, chosen), settings.workers)
    rows = [
        {**row, "mechanic": mechanic}
        for row in made_rows
        for mechanic in (settings.mechanics if len(_different(settings, row["set"])) == 1 else (row["mechanic"],))
    ]
    blocks = {"regular sets": PAPER, "irregular by nature": IRREGULAR}
    found = summary(rows, tuning, blocks, settings.rates)
    record = {"settings": asdict(settings), "summary": found, "rows": rows, "tuning": tuning}
    write_atomically(out / "table.json", (json.dumps(record, indent=1) + "\n").encode())
    show(*accuracy_tables(found, settings))
    curves(found, out / "accuracy.png")
    print(f"numbers: {out / 'table.json'}\nfigure: {out / 'accuracy.png'}")
    return 0
