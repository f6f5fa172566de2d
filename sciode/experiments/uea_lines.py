"""Lines of the classification table that are more than a model's name: a read-out, channels, a horizon, an ensemble."""

from __future__ import annotations

from typing import Any, NamedTuple

from sciode.timeseries import MODELS

__all__ = ["LINES", "Line", "line", "single"]


class Line(NamedTuple):
    """Parameters of `IrregularClassifier`, and how many members, alike but for their seeds, answer together."""

    options: dict[str, Any]
    members: int = 1


_WAYS = ("rises", "mirror")

LINES: dict[str, Line] = {
    "lnsde, T3": Line({"model": "lnsde", "horizon": 3.0}),
    "lnsde, pooled": Line({"model": "lnsde", "readout": "pooled"}),
    "lnsde, rises": Line({"model": "lnsde", "channels": ("rises",)}),
    "lnsde, pooled, rises": Line({"model": "lnsde", "readout": "pooled", "channels": ("rises",)}),
    "lnsde, pooled, rises, x5": Line({"model": "lnsde", "readout": "pooled", "channels": ("rises",)}, 5),
    "lnsde, pooled, rises, age": Line({"model": "lnsde", "readout": "pooled", "channels": ("rises", "age")}),
    "lnsde, pooled, rises, mirror": Line({"model": "lnsde", "readout": "pooled", "channels": _WAYS}),
    "lnsde, full": Line({"model": "lnsde", "readout": "pooled", "channels": _WAYS, "horizon": 3.0}),
    "lnsde, full, x5": Line({"model": "lnsde", "readout": "pooled", "channels": _WAYS, "horizon": 3.0}, 5),
}
"""By the name that a table gives them; the name of a model alone is a line too. "full": pooled, rises, mirror, T3."""


def single(name: str) -> str:
    """Return the line whose trials serve for a line: the one of one member with the same options, or itself."""
    alike = [other for other, own in LINES.items() if own == line(name)._replace(members=1)]
    return alike[0] if alike else name


def line(name: str) -> Line:
    """Return the line of a name in `LINES` or `MODELS`; KeyError for another."""
    return Line({"model": name}) if name in MODELS else LINES[name]
