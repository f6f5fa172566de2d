"""Lines of the classification table that are more than a model's name: a read-out, channels, an ensemble."""

from __future__ import annotations

from typing import Any, NamedTuple

from sciode.timeseries import MODELS

__all__ = ["LINES", "Line", "line"]


class Line(NamedTuple):
    """Parameters of `IrregularClassifier`, and how many members, alike but for their seeds, answer together."""

    options: dict[str, Any]
    members: int = 1


LINES: dict[str, Line] = {
    "lnsde, pooled": Line({"model": "lnsde", "readout": "pooled"}),
    "lnsde, rises": Line({"model": "lnsde", "channels": ("rises",)}),
    "lnsde, pooled, rises": Line({"model": "lnsde", "readout": "pooled", "channels": ("rises",)}),
    "lnsde, pooled, rises, age": Line({"model": "lnsde", "readout": "pooled", "channels": ("rises", "age")}),
    "lnsde, pooled, rises, mirror": Line({"model": "lnsde", "readout": "pooled", "channels": ("rises", "mirror")}),
    "lnsde, pooled, x5": Line({"model": "lnsde", "readout": "pooled"}, 5),
    "lnsde, pooled, rises, x5": Line({"model": "lnsde", "readout": "pooled", "channels": ("rises",)}, 5),
}
"""By the name that a table gives them; the name of a model alone is a line too."""


def line(name: str) -> Line:
    """Return the line of a name in `LINES` or `MODELS`; KeyError for another."""
    return Line({"model": name}) if name in MODELS else LINES[name]
