"""DeepXDE and PINA beside ours: seconds to the same error on the same problem, network, points and first weights.

    sciode train pinn_rivals
    sciode train pinn_rivals --device cuda --set families='["burgers"]' seconds=30 trial=10

Poisson's equation with a sharp source and Burgers' equation at viscosity 0.01/pi. All lines minimise one loss (Adam
moves all of them to the same weights, to rounding), and each chooses dtype, rate and length of Adam by the error on
points for validation, from as many trials as the others; the table is made on other points. "L-BFGS" is the peers'
recipe, "LM" our best. Rivals need the extra "rivals"; their rows are made in processes of their own.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import metadata, util
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from sciode.experiments import pinn_deepxde, pinn_pina
from sciode.experiments.curves import Entry, duel, pace, together
from sciode.experiments.ledger import finished_rows, named, stamped, write_table
from sciode.experiments.pinn_contest import DTYPES, PARAMETERS, Recipe, Task, by_least_squares, by_quasi_newton
from sciode.lab.figures import picture
from sciode.lab.tables import show, small_mean_sd, table
from sciode.training import choose_device

__all__ = ["LINES", "Line", "Settings", "main"]

BAR = 0.5
"""Ours over a rival's seconds, which we aim to stay below."""
LEVELS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
_TRIAL = 1000
"""The seed of trials, which is none of the table's."""


class Line(NamedTuple):
    """train: (task, recipe) -> its curve. module, package: what a rival is imported and installed as."""

    train: Callable[[Task, Recipe], list[Entry]]
    module: str = ""
    package: str = "sciode"


LINES: dict[str, Line] = {
    "DeepXDE": Line(pinn_deepxde.train, "deepxde", "deepxde"),
    "PINA": Line(pinn_pina.train, "pina", "pina-mathlab"),
    "ours, L-BFGS": Line(by_quasi_newton),
    "ours, LM": Line(by_least_squares),
}
"""By the name that the table gives them."""


@dataclass(frozen=True)
class Settings:
    """families, lines: names. seconds, trial: of training, a row of the table and one of validation. width, hidden: of
    the network. points, data: of the equation and of each condition. every: iterations between looks at the error.
    dtypes, rates, warmups: what a line may choose from (a single choice needs no trials). workers: rows made at a time.

    The network is that of DeepXDE's own example for Burgers' equation, and so is about the number of points. Raises
    ValueError for unknown names or a size below one.
    """

    families: tuple[str, ...] = tuple(PARAMETERS)
    lines: tuple[str, ...] = tuple(LINES)
    seeds: tuple[int, ...] = (0, 1, 2)
    seconds: float = 60.0
    trial: float = 15.0
    width: int = 20
    hidden: int = 3
    points: int = 2500
    data: int = 120
    every: int = 100
    dtypes: tuple[str, ...] = ("float32", "float64")
    rates: tuple[float, ...] = (1e-3, 5e-3)
    warmups: tuple[int, ...] = (100, 1000)
    device: str = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        for name, known in (("families", PARAMETERS), ("lines", LINES), ("dtypes", DTYPES)):
            named(name, getattr(self, name), known)
        for name in ("families", "lines", "seeds", "dtypes", "rates", "warmups"):
            if not getattr(self, name):
                raise ValueError(f"{name}: give at least one")
        sizes = (self.width, self.hidden, self.points, self.data, self.every, self.workers, *self.warmups)
        if min(sizes) < 1 or not min(self.seconds, self.trial, *self.rates) > 0:
            raise ValueError("settings: sizes must be at least 1, seconds, trial and rates positive")

    @property
    def recipes(self) -> list[Recipe]:
        """What a line may choose from."""
        return [Recipe(*each) for each in product(self.dtypes, self.rates, self.warmups)]


def made(
    settings: Settings, family: str, line: str, part: str, seed: int, dtype: str, lr: float, warmup: int
) -> dict[str, Any]:
    """One row: the curve, and whose version made it."""
    own = LINES[line]
    task = Task(
        family, settings.width, settings.hidden, settings.points, settings.data,
        settings.trial if part == "validation" else settings.seconds, settings.every, seed, part, settings.device,
    )  # fmt: skip
    train = partial(_alone, own.train) if own.module else own.train
    return {"curve": train(task, Recipe(dtype, lr, warmup)), "version": metadata.version(own.package)}


def _alone(train: Callable[[Task, Recipe], list[Entry]], task: Task, recipe: Recipe) -> list[Entry]:
    """Train in a process of its own, whose dtype, device and random streams end with it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(train, task, recipe).result()


def chosen(settings: Settings, trials: Sequence[Mapping[str, Any]], family: str, line: str) -> Recipe:
    """The recipe whose trial ended with the least error on points for validation."""
    own = [row for row in trials if (row["family"], row["line"]) == (family, line)]
    if not own:
        return settings.recipes[0]
    best = min(own, key=lambda row: last if math.isfinite(last := row["curve"][-1][3]) else math.inf)
    return Recipe(best["dtype"], best["lr"], best["warmup"])


def curves(rows: Sequence[Mapping[str, Any]], family: str, line: str) -> list[list[Entry]]:
    """Of every seed of a line."""
    own = [row for row in rows if (row["family"], row["line"]) == (family, line)]
    return [[Entry(*one) for one in row["curve"]] for row in own]


def _lines(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Cells of the table of errors and seconds."""
    lines = []
    for family, name in product(settings.families, settings.lines):
        row = next(row for row in rows if (row["family"], row["line"]) == (family, name))
        own = curves(rows, family, name)
        paces = [[found for curve in own if (found := pace(curve, stage)) is not None] for stage in (0, 1)]
        cells = [f"{1e3 * fmean(each):.1f}" if each else None for each in paces]
        times = [together(own, level) for level in LEVELS]
        lines.append(
            [family, name, row["dtype"], f"{row['lr']:g}", row["warmup"], *cells,
             small_mean_sd([curve[-1].error for curve in own]),
             *(None if each is None else f"{each:.1f}" for each in times)]
        )  # fmt: skip
    return lines


def verdicts(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Ours against each rival, at the least error that all seeds of both reach."""
    found = []
    for family, rival, ours in product(settings.families, settings.lines, settings.lines):
        if not LINES[rival].module or LINES[ours].module:
            continue
        met = duel(curves(rows, family, ours), curves(rows, family, rival))
        entry: dict[str, Any] = {"family": family, "ours": ours, "rival": rival}
        if met is not None:
            entry |= {"level": met.level, "seconds": met.ours, "rival_seconds": met.rival}
            entry |= {"ratio": met.ratio, "met": met.ratio <= BAR}
        found.append(entry)
    return found


def _errors_table(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> Any:
    """A line each: what it chose, milliseconds an iteration of both stages, the error, seconds to errors."""
    columns = ["family", "line", "dtype", "lr", "Adam", "ms", "ms then", "error", *(f"{level:g}" for level in LEVELS)]
    caption = (
        f"relative L2 error at the end, mean ± sd over {len(settings.seeds)} seeds, and mean seconds to errors; "
        f"{settings.seconds:g} s a row, {settings.hidden} x {settings.width}, one thread, {settings.device}"
    )
    return table("The same problem by three packages", columns, _lines(settings, rows), caption)


def _verdicts_table(against: Sequence[Mapping[str, Any]]) -> Any:
    """A line for each of ours and each rival."""
    columns = ["family", "ours", "rival", "error", "ours, s", "rival, s", "ratio", f"<= {BAR}"]
    lines = []
    for one in against:
        cells: list[Any] = [None] * 5
        if "level" in one:
            seconds = (f"{one['seconds']:.1f}", f"{one['rival_seconds']:.1f}")
            cells = [f"{one['level']:.2e}", *seconds, one["ratio"], "met" if one["met"] else "missed"]
        lines.append([one["family"], one["ours"], one["rival"], *cells])
    return table("Seconds to the least error that all seeds of both reach", columns, lines)


def _figure(settings: Settings, rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """A panel a family: the error of every seed over its seconds."""
    with picture(file, (4.4 * len(settings.families), 3.8)) as drawing:
        panels = drawing.subplots(1, len(settings.families), squeeze=False)[0]
        for axes, family in zip(panels, settings.families, strict=True):
            for place, name in enumerate(settings.lines):
                for number, curve in enumerate(curves(rows, family, name)):
                    x, y = [one.seconds for one in curve[1:]], [one.error for one in curve[1:]]
                    style = "--" if LINES[name].module else "-"
                    axes.plot(x, y, style, color=f"C{place}", lw=1.2, label=None if number else name)
            axes.set(xscale="log", yscale="log", xlabel="seconds of training", title=family)
        panels[0].set_ylabel("relative L2 error")
        drawing.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")


def _present(settings: Settings) -> None:
    """Raise ImportError for rivals that are not installed."""
    lacking = [
        LINES[name].package for name in settings.lines if (one := LINES[name].module) and not util.find_spec(one)
    ]
    if lacking:
        raise ImportError(
            f'{" and ".join(lacking)} not found: pip install "sciode[rivals]", or leave them out by --set lines=[...]'
        )


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`: rows.jsonl (it resumes), table.json, errors.png.

    device: as for `sciode.training.choose_device`. changes: fields of `Settings`. Returns 0. Raises ImportError for
    rivals that are not installed.
    """
    out = Path(out)
    settings = Settings(**{**changes, "device": str(choose_device(device))})
    _present(settings)
    free = ("families", "lines", "seeds", "dtypes", "rates", "warmups")
    make = partial(made, settings)
    pairs = list(product(settings.families, settings.lines))
    keys = [
        {"family": family, "line": line, "part": "validation", "seed": _TRIAL, **recipe._asdict()}
        for family, line in pairs
        for recipe in settings.recipes
    ]
    tried = keys if len(settings.recipes) > 1 else []
    trials = finished_rows(out, tried, stamped(settings, *free, "seconds"), make, settings.workers)
    best = {pair: chosen(settings, trials, *pair)._asdict() for pair in pairs}
    keys = [
        {"family": family, "line": line, "part": "test", "seed": seed, **best[family, line]}
        for seed in settings.seeds
        for family, line in pairs
    ]
    rows = finished_rows(out, keys, stamped(settings, *free, "trial"), make, settings.workers)
    against = verdicts(settings, rows)
    numbers = write_table(out, {"settings": settings, "verdicts": against, "rows": rows, "trials": _short(trials)})
    show(_errors_table(settings, rows), _verdicts_table(against))
    _figure(settings, rows, out / "errors.png")
    print(f"numbers: {numbers}\nfigure: {out / 'errors.png'}")
    return 0


def _short(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Trials without their curves."""
    kept = ("family", "line", *Recipe._fields)
    return [{**{name: row[name] for name in kept}, "error": row["curve"][-1][3]} for row in trials]
