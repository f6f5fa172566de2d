"""Six families of problems by physics-informed networks: one network, XPINN, cPINN, FBPINN, at equal cost.

    sciode train pinn_families
    sciode train pinn_families --set 'families=["heat","burgers"]' seconds=60

Every row has the same seconds: all of them for Adam, or the first half for Adam and the second for L-BFGS or
Levenberg-Marquardt. On a CPU these are seconds of the process's own time. Methods have about as many weights and points
in all: pieces of 2 x 20 neurons, one network of 2 x 30. Domains are cut as in Li et al. (ICML 2023); FBPINN has a
window for each connected piece. Nobody is told the solution at the last time unless `official_supervision` says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from sciode.experiments.ledger import finished_rows, named, stamped, write_table
from sciode.lab.figures import picture
from sciode.lab.tables import show, small_mean_sd, table
from sciode.pde import Box
from sciode.pinn import CPINN, FAMILIES, XPINN, Decomposition, Network, Numbers, Problem, single, solve, strips, windows
from sciode.pinn.solve import Stage
from sciode.training import LBFGS, Adam, LevenbergMarquardt, choose_device, threads

__all__ = ["METHODS", "STAGES", "Method", "Settings", "main"]

_MANY = 10**6
"""Iterations nobody reaches: time ends a stage."""


class Method(NamedTuple):
    """How the domain is cut ("none", "pieces" or "windows"), and what pieces have to agree in."""

    cut: str
    conditions: tuple[str, ...] = ()


METHODS: dict[str, Method] = {
    "single": Method("none"),
    "XPINN": Method("pieces", XPINN),
    "cPINN": Method("pieces", CPINN),
    "FBPINN": Method("windows"),
}
"""By the name that the table gives them."""

STAGES: dict[str, tuple[Stage, ...]] = {
    "Adam": (Adam(_MANY, lr=3e-3),),
    "Adam, L-BFGS": (Adam(_MANY, lr=3e-3), LBFGS(_MANY)),
    "Adam, LM": (Adam(_MANY, lr=3e-3), LevenbergMarquardt(_MANY, tolerance=0.0, damping=1e-3)),
}
"""By the name that the table gives them; each gets as much of the time as the others of its row."""


@dataclass(frozen=True)
class Settings:
    """families, methods, stages: names. seconds: of training, a row. width: of a piece's two layers. points: of the
    equation, in all. official_supervision: whether the solution at the last time is told. workers: rows made at a time.

    Raises ValueError for unknown names or a size below one.
    """

    families: tuple[str, ...] = tuple(FAMILIES)
    methods: tuple[str, ...] = tuple(METHODS)
    stages: tuple[str, ...] = tuple(STAGES)
    seeds: tuple[int, ...] = (0, 1, 2)
    seconds: float = 60.0
    width: int = 20
    points: int = 1600
    official_supervision: bool = False
    device: str = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        for name, known in (("families", FAMILIES), ("methods", METHODS), ("stages", STAGES)):
            named(name, getattr(self, name), known)
            if not getattr(self, name):
                raise ValueError(f"{name}: give at least one")
        if min(self.width, self.points, self.workers, len(self.seeds)) < 1 or not self.seconds > 0:
            raise ValueError("settings: sizes must be at least 1, and seconds positive")


@cache
def problem_of(family: str, official: bool) -> Problem:
    """The family's problem, with the parameter in the middle that its maker has by default."""
    return FAMILIES[family].make(official_supervision=official)


def pieces_of(family: str, method: str, problem: Problem) -> Decomposition:
    """How a method cuts a family's domain."""
    kind, box = METHODS[method].cut, problem.domain
    assert isinstance(box, Box)
    if kind == "none":
        return single(box)
    if kind == "pieces":
        return FAMILIES[family].cut(problem)
    if family == "burgers":
        return windows(strips(box, 0, [-0.1, 0.1]))
    return windows(strips(box, 1, [(box.low[1] + box.high[1]) / 2]))


def made(settings: Settings, family: str, method: str, stages: str, seed: int) -> dict[str, Any]:
    """One row: the error, what became of the training, seconds."""
    _warm()
    problem = problem_of(family, settings.official_supervision)
    cut = pieces_of(family, method, problem)
    width = settings.width if cut.size > 1 else round(1.5 * settings.width)
    each = max(settings.points // cut.size, 1)
    with threads(1):
        found = solve(
            problem,
            cut,
            network=Network(width, 2),
            conditions=METHODS[method].conditions,
            stages=STAGES[stages],
            limits=[settings.seconds / len(STAGES[stages])] * len(STAGES[stages]),
            numbers=Numbers(each, max(each // 8, 1), max(each // 8, 1)),
            seed=seed,
            device=settings.device,
            log=_MANY,
        )
    return {
        "error": float(found.error[0]),
        "loss": found.history[-1].loss[0],
        "weights": found.theta.shape[1],
        "status": found.status[0],
        "iterations": [one.iteration for one in found.history if one.iteration],
        "seconds": list(found.seconds),
    }


@cache
def _warm() -> None:
    """Let torch load what its transforms need, seconds that are no row's."""
    problem = problem_of("heat", False)
    once = LevenbergMarquardt(1, damping=1e-3)
    solve(problem, network=Network(2, 1), stages=[Adam(1), LBFGS(1), once], numbers=Numbers(8, 4, 4))


def _cells(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Cells of the table, a line for each family and method."""
    lines = []
    for family in settings.families:
        for method in settings.methods:
            own = [row for row in rows if row["family"] == family and row["method"] == method]
            cells = [small_mean_sd([row["error"] for row in own if row["stages"] == name]) for name in settings.stages]
            lines.append([family, method, own[0]["weights"], *cells, f"{fmean(sum(r['seconds']) for r in own):.1f}"])
    return lines


def _figure(settings: Settings, rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """A panel a family: every seed's error, a column for each method and a mark for each way to optimise."""
    with picture(file, (2.6 * min(len(settings.families), 3), 2.6 * -(-len(settings.families) // 3))) as drawing:
        panels = drawing.subplots(-(-len(settings.families) // 3), min(len(settings.families), 3), squeeze=False)
        for axes, family in zip(panels.flat, settings.families, strict=False):
            for place, name in enumerate(settings.stages):
                own = [row for row in rows if row["family"] == family and row["stages"] == name]
                at = np.array([settings.methods.index(row["method"]) for row in own]) + 0.22 * (place - 1)
                axes.plot(at, [row["error"] for row in own], "os^"[place % 3], color=f"C{place}", ms=4, label=name)
            axes.set(yscale="log", title=family)
            axes.set_xticks(range(len(settings.methods)), settings.methods, rotation=30)
        for axes in list(panels.flat)[len(settings.families) :]:
            axes.set_visible(False)
        panels[0, 0].set_ylabel("relative L2 error")
        drawing.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`: rows.jsonl (it resumes), table.json, errors.png.

    device: as for `sciode.training.choose_device`. changes: fields of `Settings`. Returns 0.
    """
    out = Path(out)
    settings = Settings(**{**changes, "device": str(choose_device(device))})
    keys = [
        {"family": family, "method": method, "stages": stages, "seed": seed}
        for seed in settings.seeds
        for family in settings.families
        for method in settings.methods
        for stages in settings.stages
    ]
    rows = finished_rows(
        out,
        keys,
        stamped(settings, "families", "methods", "stages", "seeds"),
        partial(made, settings),
        settings.workers,
    )
    numbers = write_table(out, {"settings": settings, "rows": rows})
    columns = ["family", "method", "weights", *settings.stages, "seconds"]
    caption = (
        f"relative L2 error, mean ± sd over {len(settings.seeds)} seeds; {settings.seconds:g} s a row, one thread, "
        f"{settings.device}; {'told' if settings.official_supervision else 'not told'} the solution at the last time"
    )
    show(table("Families of problems by physics-informed networks", columns, _cells(settings, rows), caption))
    _figure(settings, rows, out / "errors.png")
    print(f"numbers: {numbers}\nfigure: {out / 'errors.png'}")
    return 0
