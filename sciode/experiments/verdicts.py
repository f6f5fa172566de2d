"""Which strength of a penalty validation chooses, the table of what it came to, and the curve of all that was tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from rich.table import Table

from sciode.experiments.recipes import Recipe
from sciode.lab.figures import picture
from sciode.lab.tables import mean_sd, table

__all__ = ["Score", "chosen", "pareto", "result_table"]


_MAGNITUDES = 10.0
"""How far apart losses lie that are drawn by their logarithms."""


@dataclass(frozen=True)
class Score:
    """What a table judges by, and how much of it may be given up for fewer evaluations.

    name: the key in a row; label: of the column and the axis; better: "higher" or "lower"; loses: how much worse than
    vanilla's validation score a recipe may be, as a share of it where relative, else in the score's own unit; scale,
    unit, digits: how it is printed.
    """

    name: str
    label: str
    better: Literal["higher", "lower"]
    loses: float
    relative: bool = False
    scale: float = 1.0
    unit: str = ""
    digits: int = 2

    @property
    def rule(self) -> str:
        """The sentence below the table."""
        much = f"{100 * self.loses:g} %" if self.relative else f"{self.scale * self.loses:g} {self.unit}"
        return f"strengths by validation: the cheapest that is at most {much} worse than vanilla"

    def badness(self, row: dict[str, Any]) -> float:
        """The mean validation score of a row, turned so that lower is better."""
        mean = fmean(row["validation"][self.name])
        return -mean if self.better == "higher" else mean

    def limit(self, vanilla: dict[str, Any]) -> float:
        """The highest badness that is still good enough."""
        worst = self.badness(vanilla)
        return worst + self.loses * (abs(worst) if self.relative else 1.0)


def chosen(rows: Sequence[dict[str, Any]], recipes: Sequence[Recipe], score: Score) -> list[dict[str, Any]]:
    """One row for each recipe: of the strengths that lose no more than the score allows the cheapest.

    Where all lose more, the best. The test part is not looked at. A recipe that was never tried, or failed at every
    strength, has a row with the reason under "note". Raises ValueError if vanilla failed.
    """
    vanilla = next(row for row in rows if row["recipe"] == "vanilla")
    if "note" in vanilla:
        raise ValueError(f"vanilla {vanilla['note']}: there is nothing to compare with; try another lr or tolerance")
    limit, best = score.limit(vanilla), []
    for recipe in recipes:
        mine = [row for row in rows if row["recipe"] == recipe.name]
        tried = [row for row in mine if "note" not in row]
        good = [row for row in tried if score.badness(row) <= limit]
        if good:
            best.append(min(good, key=lambda row: fmean(row["validation"]["nfe"])))
        elif tried:
            best.append(min(tried, key=score.badness))
        elif mine:
            best.append(mine[0])
    return best


def result_table(title: str, rows: Sequence[dict[str, Any]], score: Score) -> Table:
    """Test score and evaluations over the seeds (mean ± sd), and what they cost, with vanilla's share.

    What could not be tried, or failed, stands below, with the reason.
    """
    vanilla = rows[0]
    lines, notes = [], {}
    for row in rows:
        if "note" in row:
            notes.setdefault(row["note"], []).append(row["recipe"])
            continue
        test = row["test"]
        lines.append([
            row["recipe"],
            f"{row['factor']:g}",
            mean_sd([score.scale * value for value in test[score.name]], score.digits),
            mean_sd(test["nfe"], 1),
            f"{fmean(test['nfe']) / fmean(vanilla['test']['nfe']):.2f}",
            f"{test['calls']:.1f}",
            f"{row['train_seconds']:.1f} ({row['train_seconds'] / vanilla['train_seconds']:.2f})",
            f"{test['seconds']:.2f} ({test['seconds'] / vanilla['test']['seconds']:.2f})",
        ])  # fmt: skip
    columns = [
        "recipe",
        "strength",
        f"test {score.label}",
        "NFE a sample",
        "of vanilla",
        "calls",
        "train s",
        "predict s",
    ]
    settings = vanilla["settings"]
    caption = (
        f"{len(settings['seeds'])} seeds, {settings['steps']} steps of {settings['batch']}, tolerance "
        f"{settings['tolerance']:g}, {settings['device']}; {score.rule}; in parentheses the share of vanilla's time"
    )
    below = [f"{', '.join(names)}: {note}" for note, names in notes.items()]
    if shared := [row["recipe"] for row in rows if row.get("workers", 1) > 1]:
        below.append(f"made beside other rows, so their seconds mean little: {', '.join(shared)}")
    return table(title, columns, lines, "\n".join([caption, *below]))


def pareto(rows: Sequence[dict[str, Any]], recipes: Sequence[Recipe], score: Score, file: Path) -> None:
    """Test score over evaluations, all strengths of all recipes, mean and one sd over the seeds.

    Losses orders of magnitude apart are drawn by logarithms.
    """
    with picture(file, (8.5, 4.6)) as figure:
        axes = figure.subplots()
        scores = []
        for recipe in recipes:
            tried = [row["test"] for row in rows if row["recipe"] == recipe.name and "note" not in row]
            if not tried:
                continue
            seeds = [(test["nfe"], [score.scale * value for value in test[score.name]]) for test in tried]
            points = sorted(tuple((fmean(v), stdev(v) if len(v) > 1 else 0.0) for v in pair) for pair in seeds)
            (x, across), (y, along) = (zip(*column, strict=True) for column in zip(*points, strict=True))
            marker = {"vanilla": "*", "global": "o", "local": "^", "baseline": "s"}[recipe.kind]
            size = 13 if recipe.kind == "vanilla" else 6
            (line,) = axes.plot(x, y, marker=marker, markersize=size, lw=1, label=recipe.name)
            # One sd over the seeds: without it, an axis that shows noise alone looks like a result.
            axes.errorbar(x, y, along, across, fmt="none", ecolor=line.get_color(), elinewidth=0.8, alpha=0.4)
            scores += y
        if score.better == "lower" and min(scores) > 0 and max(scores) > _MAGNITUDES * min(scores):
            axes.set_yscale("log")
        axes.set(xlabel="evaluations of the field a sample (test)", ylabel=f"test {score.label}")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")
