"""What the rows of `observer_flows` say: tables, the bars, and a picture of errors over rates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np

from sciode.lab.figures import picture
from sciode.lab.tables import mean_sd, small_mean_sd, table

__all__ = ["Verdict", "figure", "tables", "together", "verdicts"]

Row = Mapping[str, Any]
COLUMNS = ("line", "In-X", "Ext-X", "In-X Ext-T", "Ext-X Ext-T", "twice", "unseen", "drift", "fit s")
OURS, CUBIC, SIMULATOR = ("observer", "quadratic law"), "cubic, true readings", "MeshGraphNet"
BARS = {CUBIC: 1.0, SIMULATOR: 0.5}
"""What of the other's Ext-X that of ours may be at most."""


class Verdict(NamedTuple):
    """Ext-X of one of ours over another's, in the mean over seeds, against its bar."""

    set: str
    rate: float
    subsampling: int
    ours: str
    other: str
    ratio: float
    bar: float

    @property
    def met(self) -> bool:
        """Whether the bar is."""
        return self.ratio <= self.bar

    def __str__(self) -> str:
        said = "met" if self.met else "missed"
        return f"{self.set}, {self.rate:.0%}: {self.ours} {self.ratio:.3g} of {self.other}, bar {self.bar:g}: {said}"


def places(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, float, int], dict[str, list[Row]]]]:
    """(set, rate, subsampling) in order, and its rows by line, in the order of the rows."""
    keys = sorted({(row["set"], row["rate"], row["subsampling"]) for row in rows})
    for key in keys:
        own = [row for row in rows if (row["set"], row["rate"], row["subsampling"]) == key]
        yield key, {line: [r for r in own if r["line"] == line] for line in dict.fromkeys(r["line"] for r in own)}


def together(files: Sequence[Path]) -> list[Row]:
    """Rows of several tables, of every frame read; a row that two have is the later file's.

    A line that trains and had more epochs than the fewest of its set says in its name how many times the steps.
    """
    found = {
        (*(row[name] for name in ("set", "rate", "line", "seed")), row["settings"]["epochs"]): row
        for file in files
        for row in json.loads(file.read_text())["rows"]
        if row["subsampling"] == 1
    }
    fewest: dict[str, int] = {}
    for row in found.values():
        fewest[row["set"]] = min(row["settings"]["epochs"], fewest.get(row["set"], row["settings"]["epochs"]))
    times = {key: row["settings"]["epochs"] / fewest[row["set"]] for key, row in found.items()}
    return [
        row
        if times[key] == 1 or "weights" not in row
        else {**row, "line": f"{row['line']}, {times[key]:g} times the steps"}
        for key, row in found.items()
    ]


def tables(rows: Sequence[Row], caption: str) -> list[Any]:
    """A table a set, rate and subsampling."""
    return [
        table(
            f"{name}: {rate:.0%} of the points are sensors, one frame in {step} is read", COLUMNS,
            [_cells(line, own) for line, own in lines.items()], caption,
        )
        for (name, rate, step), lines in places(rows)
    ]  # fmt: skip


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Where ours stand by their bars, for all that has both rows."""
    found = []
    for key, lines in places(rows):
        for own in OURS:
            found += [
                Verdict(*key, own, other, fmean(map(_error, lines[own])) / fmean(map(_error, lines[other])), bar)
                for other, bar in BARS.items()
                if own in lines and other in lines
            ]
    return found


def figure(rows: Sequence[Row], file: Path) -> None:
    """Draw Ext-X over the share of sensors, a panel a set, bars of one sd over the seeds where there are several."""
    import matplotlib

    known = list(dict.fromkeys(row["line"] for row in rows))
    sets = list(dict.fromkeys(row["set"] for row in rows))
    with picture(file, (4.6 * len(sets), 4.2)) as drawing:
        colours = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
        panels = drawing.subplots(1, len(sets), squeeze=False)[0]
        shown: dict[str, Any] = {}
        for axes, name in zip(panels, sets, strict=True):
            for number, line in enumerate(known):
                points = []
                for (owner, rate, _), lines in places(rows):
                    errors = [_error(row) for row in lines.get(line, ())]
                    if owner == name and errors:
                        points.append((100 * rate, fmean(errors), stdev(errors) if len(errors) > 1 else 0.0))
                if points:
                    x, y, spread = zip(*points, strict=True)
                    look: dict[str, Any] = {"color": colours[number % len(colours)], "markersize": 4}
                    look["marker"] = "osDv^"[number // len(colours) % 5]
                    drawn = axes.errorbar(x, y, spread, lw=2.0 if line in OURS else 1.0, capsize=2, **look)
                    shown.setdefault(line, drawn)
            axes.set(title=name, xlabel="% of the points that are sensors", xscale="log", yscale="log")
            axes.set_xticks(sorted({100 * row["rate"] for row in rows}), minor=False)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
        panels[0].set_ylabel("Ext-X, of the variance")
        panels[-1].legend(shown.values(), shown, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")


def _error(row: Row) -> float:
    return float(row["seen"]["ext_x_in_t"])


def _cells(line: str, rows: Sequence[Row]) -> list[Any]:
    def cell(way: str, name: str) -> str | None:
        values = [row[way].get(name, np.nan) for row in rows]
        return small_mean_sd(values) if np.isfinite(values).all() else None

    asked = [("seen", "in_x_in_t"), ("seen", "ext_x_in_t"), ("seen", "in_x_ext_t"), ("seen", "ext_x_ext_t")]
    told = [cell(way, name) for way, name in (*asked, ("twice", "ext_x_in_t"), ("unseen", "ext_x_in_t"))]
    drifts = small_mean_sd([float(np.max(row["seen"]["drift"])) for row in rows], ".1e")
    return [line, *told, drifts, mean_sd([row["seconds"] for row in rows], 0)]
