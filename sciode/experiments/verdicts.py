"""Which strength of a penalty validation chooses, the table of what it came to, and the curve of all that was tried."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from sciode.experiments.recipes import RECIPES
from sciode.lab.tables import mean_sd, table

__all__ = ["chosen", "pareto", "result_table"]

_LOST = 0.005
"""Validation accuracy that may be lost against vanilla for fewer evaluations: half a point."""


def chosen(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each recipe: of the strengths that lose at most half a point of validation accuracy the cheapest.

    Where all lose more, the most accurate. The test part is not looked at.
    """
    vanilla = next(row for row in rows if row["recipe"] == "vanilla")
    least = fmean(vanilla["validation"]["accuracy"]) - _LOST
    best = []
    for recipe in RECIPES:
        tried = [row for row in rows if row["recipe"] == recipe.name]
        good = [row for row in tried if fmean(row["validation"]["accuracy"]) >= least]
        if good:
            best.append(min(good, key=lambda row: fmean(row["validation"]["nfe"])))
        elif tried:
            best.append(max(tried, key=lambda row: fmean(row["validation"]["accuracy"])))
    return best


def result_table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Test accuracy and evaluations over the seeds (mean ± sd), and what they cost, with vanilla's share."""
    vanilla = rows[0]
    lines = []
    for row in rows:
        test = row["test"]
        lines.append([
            row["recipe"],
            f"{row['factor']:g}",
            mean_sd([100 * a for a in test["accuracy"]], 2),
            mean_sd(test["nfe"], 1),
            f"{fmean(test['nfe']) / fmean(vanilla['test']['nfe']):.2f}",
            f"{test['calls']:.1f}",
            f"{row['train_seconds']:.1f} ({row['train_seconds'] / vanilla['train_seconds']:.2f})",
            f"{test['seconds']:.2f} ({test['seconds'] / vanilla['test']['seconds']:.2f})",
        ])  # fmt: skip
    columns = ["recipe", "strength", "test accuracy %", "NFE a sample", "of vanilla", "calls", "train s", "predict s"]
    settings = vanilla["settings"]
    caption = (
        f"{len(settings['seeds'])} seeds, {settings['steps']} steps of {settings['batch']}, tolerance "
        f"{settings['tolerance']:g}, {settings['device']}; strengths by validation: the cheapest that loses at most "
        "half a point of accuracy; in parentheses the share of vanilla's time"
    )
    return table(title, columns, lines, caption)


def pareto(rows: Sequence[dict[str, Any]], picture: Path) -> None:
    """Test accuracy over evaluations, all strengths of all recipes."""
    import matplotlib.style
    from matplotlib.figure import Figure

    from sciode.lab import plots

    with matplotlib.style.context(str(Path(plots.__file__).with_name("style.mplstyle"))):
        figure = Figure(figsize=(8.5, 4.6))
        axes = figure.subplots()
        for recipe in RECIPES:
            tried = [row["test"] for row in rows if row["recipe"] == recipe.name]
            points = sorted((fmean(test["nfe"]), 100 * fmean(test["accuracy"])) for test in tried)
            marker = {"vanilla": "*", "global": "o", "local": "^", "baseline": "s"}[recipe.kind]
            size = 13 if recipe.kind == "vanilla" else 6
            axes.plot(*zip(*points, strict=True), marker=marker, markersize=size, lw=1, label=recipe.name)
        axes.set(xlabel="evaluations of the field a sample (test)", ylabel="test accuracy (%)")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")
        picture.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(picture, bbox_inches="tight")
