"""What the rows of `prose` say: tables of operators and of equations, and a picture of errors over noise."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from sciode.lab.figures import picture
from sciode.lab.tables import mean_sd, small_mean_sd, table

__all__ = ["figure", "tables"]

Row = Mapping[str, Any]
_TELLS = {"known": "-", "wrong": "--", "nothing": ":"}
"""How what is told beforehand is drawn."""


def tables(rows: Sequence[Row], hears: Collection[str], read: int, caption: str) -> list[Any]:
    """Errors of operators behind so many frames that are read, and what equations are written where there are some.

    hears: lines that are told something.
    """
    columns = ("line", "systems", "told", "noise", "mean", "near", "median")
    title = f"Relative L2 errors behind the {read} frames that are read"
    found = [table(title, columns, _cells(rows, hears, "l2", _errors), caption)]
    if any("rhs" in row for row in rows):
        columns = ("line", "systems", "told", "noise", "valid", "all terms", "precision", "recall", "rhs", "rhs fitted",
                   "data", "data fitted")  # fmt: skip
        told = "shares of systems, and medians over them; data: squared error of short solutions, of the data's spread"
        found.append(table("Equations", columns, _cells(rows, hears, "rhs", _written), told))
    return found


def figure(rows: Sequence[Row], hears: Collection[str], file: Path) -> None:
    """Draw mean errors over the noise of what is read, a panel a part of the systems, bars of one sd over seeds."""
    import matplotlib

    told = [row for row in rows if "l2" in row]
    lines, parts = (list(dict.fromkeys(row[name] for row in told)) for name in ("line", "part"))
    with picture(file, (5.2 * max(len(parts), 1), 4.2)) as drawing:
        colours = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
        panels = drawing.subplots(1, max(len(parts), 1), squeeze=False)[0]
        shown: dict[str, Any] = {}
        for (line, part, how), levels in _by_noise(told).items():
            number, spread = lines.index(line), [stdev(e) if len(e) > 1 else 0.0 for e in levels.values()]
            look: dict[str, Any] = {"color": colours[number % len(colours)], "markersize": 4, "capsize": 2, "lw": 1.2}
            look |= {"marker": "osDv^"[number // len(colours) % 5], "ls": _TELLS[how] if line in hears else "-"}
            x, y = [100 * noise for noise in levels], [fmean(errors) for errors in levels.values()]
            drawn = panels[parts.index(part)].errorbar(x, y, spread, **look)
            shown.setdefault(line + (f", told: {how}" if line in hears else ""), drawn)
        for axes, part in zip(panels, parts, strict=False):
            axes.set(title=f"systems: {part}", xlabel="noise of what is read, %", yscale="log")
        panels[0].set_ylabel("relative L2 error")
        panels[-1].legend(shown.values(), shown, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")


def _by_noise(rows: Sequence[Row]) -> dict[tuple[str, str, str], dict[float, list[float]]]:
    """Errors of each line, part of the systems and what is told, by noise."""
    found: dict[tuple[str, str, str], dict[float, list[float]]] = {}
    for row in sorted(rows, key=lambda one: one["noise"]):
        own = found.setdefault((row["line"], row["part"], row["told"]), {})
        own.setdefault(row["noise"], []).append(row["l2"])
    return found


def _cells(rows: Sequence[Row], hears: Collection[str], field: str, figures: Any) -> list[list[Any]]:
    """Of rows that have a field, those of one line and condition together."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if field in row:
            found.setdefault((row["line"], row["part"], row["told"], row["noise"]), []).append(row)
    return [
        [line, part, told if line in hears else None, f"{noise:.0%}", *figures(own)]
        for (line, part, told, noise), own in found.items()
    ]


def _errors(own: Sequence[Row]) -> list[Any]:
    return [mean_sd([row[name] for row in own]) for name in ("l2", "near", "median")]


def _written(own: Sequence[Row]) -> list[Any]:
    shares = [mean_sd([row[name] for row in own], 2) for name in ("valid", "exact", "precision", "recall")]
    return shares + [
        small_mean_sd([row[name] for row in own]) for name in ("rhs", "rhs_fitted", "misfit", "misfit_fitted")
    ]
