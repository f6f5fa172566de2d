"""What `sciode bench samplers_mnist` prints and draws, of its record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from sciode.lab.figures import picture
from sciode.lab.tables import show, table

__all__ = ["draw", "over_seeds", "show_tables"]

MEASURES = {
    "error": "RMS distance from 1,000 steps",
    "sliced_wasserstein": "sliced Wasserstein",
    "mmd": "MMD^2",
    "classifier_frechet": "Frechet distance of classifier features",
    "label_accuracy": "digits recognised as what was asked for",
}
_DRAWN = (
    "ddim", "dpm++-2m", "dpm++-3m", "deis-tab-3", "dpm-v3", "dpm-v3 lowered, middle", "unipc-asinh-2 lowered, middle",
    "diffusers: dpmsolver++ 3, lowered", "diffusers: unipc 3 bh2, lowered",
)  # fmt: skip


def over_seeds(rows: Sequence[Mapping[str, Any]], name: str, measure: str, budget: int) -> list[float]:
    """One value a seed; [] where the budget is too small for the sampler or nothing was measured."""
    found = []
    for row in rows:
        if row["name"] == name and "budgets" in row:
            cell = row["budgets"].get(str(budget))
            if cell is not None and measure in cell:
                found.append(cell[measure])
    return found


def show_tables(record: Mapping[str, Any]) -> None:
    """A table a measure: means over the seeds, and their standard deviation."""
    rows, budgets = record["rows"], record["settings"]["budgets"]
    names = list(dict.fromkeys(row["name"] for row in rows if "budgets" in row))
    where = f"{record['device']}, {record['date']}, {len(record['settings']['seeds'])} seeds, mean (standard deviation)"
    for measure, title in MEASURES.items():
        cells = [(name, *(_cell(over_seeds(rows, name, measure, n)) for n in budgets)) for name in names]
        show(table(title, ["sampler", *map(str, budgets)], cells, where))
    plain = [
        (row["name"], row["seed"], *(_number(row.get(m)) for m in MEASURES)) for row in rows if "budgets" not in row
    ]
    show(table("What it is held against", ["", "seed", *MEASURES], plain))
    print(f"judge: {100 * record['judge_accuracy']:.2f} % of the test images")


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g}"


def _cell(values: Sequence[float]) -> str | None:
    if not values:
        return None
    spread = f" ({stdev(values):.1g})" if len(values) > 1 else ""
    return f"{fmean(values):.3g}{spread}"


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Errors and distances over evaluations, with the floor of training images."""
    if find_spec("matplotlib") is None:
        print("matplotlib is not installed: the curves are in the JSON only")
        return
    rows, budgets = record["rows"], record["settings"]["budgets"]
    shown = ("error", "sliced_wasserstein", "classifier_frechet")
    with picture(path, (12, 3.8)) as figure:
        panels = figure.subplots(1, len(shown))
        for panel, measure in zip(panels, shown, strict=True):
            # What diverged, or has hardly begun, would flatten all others.
            worst = 1e3 if measure == "classifier_frechet" else 1.0
            for i, name in enumerate(_DRAWN):
                points = [(n, over_seeds(rows, name, measure, n)) for n in budgets]
                points = [
                    (n, math.exp(fmean(map(math.log, v)))) for n, v in points if v and min(v) > 0 and max(v) < worst
                ]
                if points:
                    panel.plot(*zip(*points, strict=True), color=f"C{i}", marker=".", label=name,
                               linestyle="--" if name.startswith("diffusers") else "-")  # fmt: skip
            floor = [row[measure] for row in rows if row["name"] == "held-out images" and measure in row]
            if floor:
                panel.axhline(fmean(floor), color="0.5", linewidth=1, linestyle=":", label="held-out images")
            panel.set(xscale="log", yscale="log", xlabel="evaluations", title=MEASURES[measure])
            panel.set_xticks(list(budgets), [str(n) for n in budgets], minor=False)
            panel.minorticks_off()
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    print(f"curves: {path}")
