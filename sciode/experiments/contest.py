"""A contest of sequence models: each at every rate and with every seed, tuned alike, beside rivals that learn little.

An experiment declares a `Contest`: its data, what its models are asked, how an answer is judged. The rest is here: a
grid of settings that validation alone chooses from, rows that outlive an interruption, runs that diverge and are said
to, the ratio to the best model that is no SDE, the table and the figure. The seeds of a model train side by side, in
one solve, and so do the settings that it tries, where they are learning rates.

Parts and drops are the same for all models and seeds: a spread over the seeds is that of training. Each model's setting
is chosen by the validation part at the first rate with the first seed, and kept for all others.
"""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import fmean, stdev
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from rich.table import Table

from sciode.experiments.ledger import Built, finished_groups
from sciode.lab.figures import picture
from sciode.lab.tables import mean_sd, show, table
from sciode.solvers import SolveError
from sciode.timeseries import MODELS, Case, fit_together
from sciode.timeseries.regression import Anchor
from sciode.training import choose_device
from sciode.training.checkpoint import write_atomically

__all__ = ["GRID", "SDES", "Anchored", "Contest", "Entry", "Measure", "Run", "Settings", "Standing", "run", "standings"]

GRID: tuple[Mapping[str, Any], ...] = ({"lr": 1e-2}, {"lr": 3e-3}, {"lr": 1e-3})
"""The settings that a sequence model may try, in this order."""
SDES = tuple(name for name, kind in MODELS.items() if kind.sde)
"""Models that are SDEs: the others are the baselines that these are held against."""
BAR_MEAN, BAR_EACH = 0.85, 1.0
"""What a stable neural SDE should reach: its error over the best baseline's, in the mean over rates and at each."""
_MAGNITUDES = 10.0
"""How many times the best figure a line may lie above it and still be drawn."""
Part = Literal["validation", "test"]


class Measure(NamedTuple):
    """A figure of a row: its name, the label of column and axis, which way is better, and how it is printed."""

    name: str
    label: str
    better: Literal["lower", "higher"] = "lower"
    scale: float = 1.0
    digits: int = 2


class Entry(NamedTuple):
    """Who takes part: a model or a rival, and the `anchor` of its estimator, None where estimators have none."""

    model: str
    anchor: str | None = None

    @property
    def label(self) -> str:
        """What the table calls it."""
        return self.model if self.anchor in (None, "line") else f"{self.model}, anchor {self.anchor}"


class Run(NamedTuple):
    """One training: its seed, and parameters of the estimator."""

    seed: int
    setting: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Settings:
    """What the rows of a table share; an experiment adds its own and sets its own defaults.

    models: names in `sciode.timeseries.MODELS`; the experiment's rivals always run. rates: what the experiment says
    they are. trials: how many settings of its grid each model tries. epochs, patience, batch, hidden, samples, engine,
    device: of the estimators. euler: control rows of the longest training series, and so the steps of an SDE. workers:
    trainings at a time, each in a process of its own, on the same device.

    Raises ValueError for unknown models, repeated or missing names, rates or seeds, and sizes below one.
    """

    models: tuple[str, ...] = tuple(MODELS)
    rates: tuple[float, ...] = (0.0,)
    seeds: tuple[int, ...] = (0, 1, 2)
    trials: int = 3
    epochs: int = 40
    patience: int = 10
    batch: int = 64
    hidden: int = 32
    euler: int = 48
    samples: int = 16
    device: str = "cpu"
    engine: str = "auto"
    workers: int = 1

    def __post_init__(self) -> None:
        for name, kind in (("models", str), ("rates", float), ("seeds", int)):
            given = getattr(self, name)
            several = tuple(kind(x) for x in (given if isinstance(given, tuple | list) else (given,)))
            object.__setattr__(self, name, several)
            if len(set(several)) != len(several) or (name != "models" and not several):
                raise ValueError(f"{name}: give some, each once, got {several}")
        if unknown := [name for name in self.models if name not in MODELS]:
            raise ValueError(f"models: there is no {', '.join(unknown)}; there are {', '.join(MODELS)}")
        sizes = {f.name: getattr(self, f.name) for f in fields(self) if type(getattr(self, f.name)) is int}
        if low := [name for name, size in sizes.items() if size < (0 if name == "patience" else 1)]:
            raise ValueError(f"settings: {', '.join(low)} must be at least 1, got {[sizes[name] for name in low]}")

    def entries(self, rivals: Iterable[str]) -> list[Entry]:
        """Who takes part, in the order of the table."""
        return [Entry(name) for name in (*rivals, *self.models)]

    def parameters(self, model: str, run: Run) -> dict[str, Any]:
        """Parameters of `sciode.timeseries` estimators for one run."""
        own = {"model": model, "random_state": run.seed, "batch_size": self.batch, "steps": self.euler}
        names = ("hidden", "epochs", "patience", "device", "engine")
        return {**own, "n_samples": self.samples, **{name: getattr(self, name) for name in names}, **run.setting}


@dataclass(frozen=True)
class Anchored(Settings):
    """Settings of a table of forecasters or interpolators.

    anchors: of these estimators; each model takes part with each of them and is held against those of the same, and
    against the rivals unless it is told nothing ("none").
    """

    anchors: tuple[str, ...] = get_args(Anchor)

    def __post_init__(self) -> None:
        super().__post_init__()
        several = (self.anchors,) if isinstance(self.anchors, str) else tuple(self.anchors)
        object.__setattr__(self, "anchors", several)
        if not several or len(set(several)) != len(several) or set(several) - set(get_args(Anchor)):
            raise ValueError(f"anchors: give some of {', '.join(get_args(Anchor))}, each once, got {several}")

    def entries(self, rivals: Iterable[str]) -> list[Entry]:
        """Rivals, then the models, anchor by anchor."""
        models = [Entry(model, anchor) for anchor in self.anchors for model in self.models]
        return [*(Entry(name) for name in rivals), *models]


class Contest(ABC):
    """One experiment: what is trained and how it is judged.

    title: of the table. rate: what a rate is, for column and axis. measures: the first one decides. rivals: what runs
    beside the sequence models (all of `MODELS`, unless the settings name some), each with its own grid of settings.
    """

    title: ClassVar[str]
    rate: ClassVar[str]
    measures: ClassVar[tuple[Measure, ...]]
    rivals: ClassVar[Mapping[str, Sequence[Mapping[str, Any]]]]

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @abstractmethod
    def case(self, rate: float) -> Case:
        """What is learnt from at a rate, and what validates: the same object whenever it is asked for."""

    @abstractmethod
    def estimator(self, model: str, run: Run) -> Any:
        """A new estimator of a model in `MODELS` or of a rival."""

    @abstractmethod
    def judge(self, fitted: Any, rate: float, part: Part) -> dict[str, float]:
        """Return the value of every measure on a part."""

    @abstractmethod
    def facts(self) -> str:
        """The sentence below the table on sizes and parts."""

    def grid(self, model: str) -> list[dict[str, Any]]:
        """The settings that a model tries."""
        offered = self.rivals.get(model, GRID)
        return [dict(setting) for setting in offered[: self.settings.trials]]

    def fit(self, model: str, rate: float, runs: Sequence[Run]) -> list[Any]:
        """Train a model once a run, on the same data, in one solve where it can be; validation chooses the epochs."""
        case, estimators = self.case(rate), [self.estimator(model, run) for run in runs]
        if model in self.rivals:
            return [rival.fit(*case) for rival in estimators]
        fit_together(estimators, [case] * len(runs))
        return estimators

    def made(self, entry: Entry, rate: float, runs: Sequence[Run]) -> list[dict[str, Any]]:
        """Train and judge; {"note": "diverged: ..."} where a training, a solve or a figure is not finite."""
        began = time.perf_counter()
        told = {} if entry.anchor is None else {"anchor": entry.anchor}
        try:
            fitted = self.fit(entry.model, rate, [Run(run.seed, {**run.setting, **told}) for run in runs])
        except (FloatingPointError, SolveError) as fault:
            if len(runs) > 1:
                return [row for run in runs for row in self.made(entry, rate, [run])]
            return [{"note": f"diverged: {fault}", "train_seconds": time.perf_counter() - began}]
        share = (time.perf_counter() - began) / len(runs)
        return [{"train_seconds": share, **self._judged(one, rate)} for one in fitted]

    def _judged(self, fitted: Any, rate: float) -> dict[str, Any]:
        history, began = getattr(fitted, "histories_", [None])[0], time.perf_counter()
        if history is not None and history.best_epoch < 0:
            return {"note": f"diverged: {history.stopped}"}
        try:
            judged = {part: self.judge(fitted, rate, part) for part in ("validation", "test")}
        except (FloatingPointError, SolveError) as fault:
            return {"note": f"diverged: {fault}"}
        seconds = {"predict_seconds": time.perf_counter() - began}
        if not all(math.isfinite(value) for part in judged.values() for value in part.values()):
            return {"note": "diverged: a figure is not finite", **seconds}
        ended = {} if history is None else {"best_epoch": history.best_epoch, "stopped": history.stopped}
        return {**judged, **seconds, **ended}


def badness(row: Mapping[str, Any], measure: Measure) -> float:
    """What validation says of a row, turned so that lower is better; inf for a run that diverged."""
    if "note" in row:
        return math.inf
    value = row["validation"][measure.name]
    return value if measure.better == "lower" else -value


class Standing(NamedTuple):
    """One model's lines of the table: test figures [rate][seed] of the runs that ended well, and what they cost.

    diverged: how many runs did not end well. mean: of each measure, over the rates, for each seed that ended well at
    all rates. ratio, worst: of errors to the best baseline's, in the mean over rates and at the worst rate; for a
    measure of which more is better the difference to it. None where a run diverged.
    """

    model: str
    anchor: str | None
    setting: Mapping[str, Any]
    figures: list[list[float]]
    mean: dict[str, list[float]]
    diverged: int
    seconds: float
    ratio: float | None = None
    worst: float | None = None

    @property
    def label(self) -> str:
        """What the table calls it."""
        return Entry(self.model, self.anchor).label


def standings(rows: Sequence[Mapping[str, Any]], measures: Sequence[Measure], rates: Sequence[float]) -> list[Standing]:
    """One standing an entry, in the order of the rows.

    The best baseline of an entry is that of the best mean among those of its anchor that are no SDE; rivals, which have
    no anchor, are baselines to all that are told something.
    """
    first = measures[0]
    found = []
    for entry in dict.fromkeys(entry_of(row) for row in rows):
        mine = [row for row in rows if entry_of(row) == entry]
        well = [row for row in mine if "note" not in row]
        at = [[row["test"][first.name] for row in well if row["rate"] == rate] for rate in rates]
        whole = [seed for seed in dict.fromkeys(row["seed"] for row in mine)
                 if sum(row["seed"] == seed for row in well) == len(rates)]  # fmt: skip
        mean = {m.name: [fmean(r["test"][m.name] for r in well if r["seed"] == seed) for seed in whole]
                for m in measures}  # fmt: skip
        seconds = fmean(row["train_seconds"] for row in mine)
        found.append(Standing(*entry, mine[0]["setting"], at, mean, len(mine) - len(well), seconds))
    sign = 1.0 if first.better == "lower" else -1.0
    compared = []
    for s in found:
        groups = {s.anchor} if s.anchor == "none" else {s.anchor, None}
        able = [x for x in found if x.anchor in groups and x.model not in SDES and not x.diverged]
        if able and not s.diverged:
            best = min(able, key=lambda standing: sign * fmean(standing.mean[first.name]))
            s = _compared(s, able, best, first)
        compared.append(s)
    return compared


def entry_of(row: Mapping[str, Any]) -> Entry:
    """Whose row it is."""
    return Entry(row["model"], row.get("anchor"))


def _compared(own: Standing, able: Sequence[Standing], best: Standing, measure: Measure) -> Standing:
    """Ratios to the baseline of the best mean and, rate by rate, to the best baseline there; or differences."""
    means = fmean(own.mean[measure.name]), fmean(best.mean[measure.name])
    each = [
        (fmean(own.figures[k]), [fmean(s.figures[k]) for s in able if s.model != own.model] or [math.nan])
        for k in range(len(own.figures))
    ]
    if measure.better == "higher":
        return own._replace(ratio=means[0] - means[1], worst=min(mine - max(others) for mine, others in each))
    return own._replace(ratio=means[0] / means[1], worst=max(mine / min(others) for mine, others in each))


def result_table(contest: Contest, found: Sequence[Standing]) -> Table:
    """Test figures over the seeds (mean ± sd) at every rate and over the rates, against the best baseline."""
    first, *others = contest.measures
    settings, lines = contest.settings, []
    for s in found:
        cells = [_cell(values, first) for values in s.figures]
        over = [_cell(s.mean[m.name], m) for m in contest.measures]
        against = [None if x is None else f"{x:.{2 if first.better == 'lower' else 3}f}" for x in (s.ratio, s.worst)]
        seconds = f"{s.seconds:.1f}"
        lines.append([s.label, *cells, *(over if len(settings.rates) > 1 else over[1:]), *against, seconds])
    means = [f"mean {m.label}" if m is not first else "mean" for m in contest.measures]
    what = "of" if first.better == "lower" else "over"
    columns = [
        "model",
        *(f"{rate:.0%} {contest.rate}" for rate in settings.rates),
        *(means if len(settings.rates) > 1 else [m.label for m in others]),
        f"{what} best non-SDE",
        "at worst rate",
        "train s",
    ]
    caption = (
        f"test {first.label}, {len(settings.seeds)} seeds, mean ± sd over them; {contest.facts()}; at most "
        f"{settings.epochs} epochs of batches of {settings.batch}; settings by validation out of {settings.trials}"
    )
    runs = len(settings.rates) * len(settings.seeds)
    lost = [
        f"{s.label}: {s.diverged} of {runs} runs diverged, its figures are of the others" for s in found if s.diverged
    ]
    return table(contest.title, columns, lines, "\n".join([caption, *lost]))


def _cell(values: Sequence[float], measure: Measure) -> str | None:
    return mean_sd([measure.scale * value for value in values], measure.digits) if values else None


def figure(contest: Contest, found: Sequence[Standing], file: Path) -> None:
    """Draw the test figure, one panel an anchor, with the rivals in all but "none"; see `_panel`."""
    anchors = list(dict.fromkeys(s.anchor for s in found if s.model not in contest.rivals))
    # A model keeps its colour from panel to panel.
    colours = {model: f"C{number}" for number, model in enumerate(dict.fromkeys(s.model for s in found))}
    with picture(file, (8.5, 4.6 * max(len(anchors), 1))) as drawing:
        panels = drawing.subplots(max(len(anchors), 1), squeeze=False)[:, 0]
        for axes, anchor in zip(panels, anchors or [None], strict=True):
            rivals = [s for s in found if s.model in contest.rivals and anchor != "none"]
            own = [*rivals, *(s for s in found if s.anchor == anchor and s not in rivals)]
            _panel(contest, own, colours, axes)
            if anchor is not None:
                axes.set_title(f"anchor {anchor}", fontsize="medium")


def _panel(contest: Contest, found: Sequence[Standing], colours: Mapping[str, str], axes: Any) -> None:
    """Draw one line a model over the rates, bands of one sd over the seeds; one rate: points."""
    measure, rates = contest.measures[0], contest.settings.rates
    finished = [s for s in found if any(s.figures)]
    typical = {s.label: measure.scale * fmean(v for values in s.figures for v in values) for s in finished}
    far = _MAGNITUDES * min(typical.values(), default=0.0) if measure.better == "lower" else math.inf
    shown = [s for s in finished if typical[s.label] <= far]
    for number, s in enumerate(shown):
        scaled = [[measure.scale * v for v in values] for values in s.figures]
        points = [
            (100 * rate, fmean(v), stdev(v) if len(v) > 1 else 0.0) for rate, v in zip(rates, scaled, strict=True) if v
        ]
        look: dict[str, Any] = {"color": colours[s.model], "lw": 1.6 if s.model in SDES else 1.0}
        look["linestyle"] = "-" if s.model in SDES else ("--" if s.model in MODELS else ":")
        if len(rates) == 1:
            axes.errorbar([number], [points[0][1]], [points[0][2]], marker="o", capsize=3, **look)
            continue
        x, middle, spread = zip(*points, strict=True)
        axes.plot(x, middle, marker="o" if number < 10 else "s", markersize=4, label=s.model, **look)
        low, high = ([m + way * d for m, d in zip(middle, spread, strict=True)] for way in (-1, 1))
        axes.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0)
    for s in finished:
        if s not in shown:
            axes.plot([], [], color="none", label=f"{s.model}: {typical[s.label]:.3g}, off the scale")
    axes.set(ylabel=f"test {measure.label}")
    if len(rates) == 1:
        axes.set_xticks(range(len(shown)), [s.model for s in shown], rotation=30, ha="right")
    else:
        axes.set_xlabel(f"% {contest.rate}")
    if len(rates) > 1 or len(shown) < len(finished):
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")


def rows_of(built: Built[Contest], out: Path) -> list[dict[str, Any]]:
    """Every run of the table: first the trials, of which validation chooses one a model, then all rates and seeds."""
    contest, settings = built.value, built.settings
    stamp = json.loads(json.dumps(asdict(settings)))
    for name in ("models", "anchors", "rates", "seeds", "trials", "workers"):
        stamp.pop(name, None)  # a row has its own, and stays good when others are tried
    everyone = settings.entries(contest.rivals)
    start = {"rate": settings.rates[0], "seed": settings.seeds[0]}
    make = partial(_made, built)
    tried = [
        [{**entry._asdict(), **start, "setting": setting} for setting in alike]
        for entry in everyone
        for alike in _in_lockstep(contest.grid(entry.model))
    ]
    trials, groups = finished_groups(out, tried, stamp, make, settings.workers), []
    for entry in everyone:
        own = [row for row in trials if entry_of(row) == entry]
        best = min(own, key=lambda row: badness(row, contest.measures[0]))
        for rate in settings.rates:
            key = {**entry._asdict(), "rate": rate, "setting": best["setting"]}
            groups.append([{**key, "seed": seed} for seed in settings.seeds])
    return finished_groups(out, groups, stamp, make, settings.workers)


def _made(built: Built[Contest], keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of keys that differ in what may be trained in one solve."""
    runs = [Run(key["seed"], key["setting"]) for key in keys]
    return built.value.made(entry_of(keys[0]), keys[0]["rate"], runs)


def _in_lockstep(grid: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Settings in groups that may train in lockstep: those of a group differ in their learning rates alone."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for setting in grid:
        rest = json.dumps({name: value for name, value in setting.items() if name != "lr"}, sort_keys=True)
        groups.setdefault(rest, []).append(setting)
    return list(groups.values())


def run(kind: type[Contest], settings: type[Settings], out: Path, device: str, changes: Mapping[str, Any]) -> int:
    """Make all rows, print the table, draw the figure; <out>/rows.jsonl resumes.

    out: folder of rows.jsonl, table.json and rates.png. device: as for `sciode.training.choose_device`. changes: fields
    of the settings. Returns 0. Raises ValueError for settings that make no sense.
    """
    out = Path(out)
    built = Built(kind, settings(**{**changes, "device": str(choose_device(device))}))
    contest, rows = built.value, rows_of(built, out)
    found = standings(rows, contest.measures, contest.settings.rates)
    record = {
        "title": contest.title,
        "date": datetime.now(UTC).date().isoformat(),
        "device": contest.settings.device,
        "torch": metadata.version("torch"),
        "settings": asdict(contest.settings),
        "measures": [measure._asdict() for measure in contest.measures],
        "standings": [standing._asdict() for standing in found],
        "rows": [{name: value for name, value in row.items() if name != "settings"} for row in rows],
    }
    write_atomically(out / "table.json", (json.dumps(record, indent=1) + "\n").encode())
    show(result_table(contest, found))
    for standing in found:
        stable = standing.model in MODELS and MODELS[standing.model].family == "stable SDE"
        if stable and contest.measures[0].better == "lower":
            print(_verdict(standing))
    figure(contest, found, out / "rates.png")
    print(f"numbers: {out / 'table.json'}\nfigure: {out / 'rates.png'}")
    return 0


def _verdict(standing: Standing) -> str:
    """Whether a stable SDE reaches the bar."""
    if standing.ratio is None or standing.worst is None:
        return f"{standing.label}: not comparable, {standing.diverged} runs diverged"
    reached = standing.ratio <= BAR_MEAN and standing.worst <= BAR_EACH
    return (
        f"{standing.label}: {standing.ratio:.2f} of the best non-SDE baseline in the mean (bar {BAR_MEAN:g}), "
        f"{standing.worst:.2f} at the worst rate (bar {BAR_EACH:g}): {'reached' if reached else 'not reached'}"
    )
