"""Tables for the command line, drawn by rich; a notebook shows a pandas frame instead."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str | None = None) -> Table:
    """Return a rich table: columns of numbers to the right, text to the left, a dash for None.

    Args:
        title: one line above the table.
        columns: n headings.
        rows: each of n cells; a float is shown to four significant digits, None as a dash, anything else by `str`.
        caption: one line below, e.g. the machine and the date.

    Raises:
        ValueError: a row whose length differs from the headings'.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"each row needs {len(columns)} cells ({', '.join(columns)}), got {len(row)}: {row!r}")
    foot = None if caption is None else Text(caption)
    drawn = Table(title=Text(title), caption=foot, title_justify="left", caption_justify="left", box=SIMPLE_HEAD)
    drawn.pad_edge, drawn.collapse_padding = False, True
    for place, column in enumerate(columns):
        numeric = all(_is_number(row[place]) for row in rows)
        drawn.add_column(Text(column), justify="right" if numeric else "left")
    for row in rows:
        drawn.add_row(*map(_cell, row))
    return drawn


def mean_sd(values: Sequence[float], digits: int = 3) -> str:
    """Return "mean ± sd" over repetitions, sd with n − 1; the bare value where there is only one.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("values is empty: a mean needs at least one number")
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{fmean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def small_mean_sd(values: Sequence[float], mean: str = ".2e", sd: str = ".0e") -> str:
    """Return "mean ± sd" as `mean_sd` does, of numbers of any size: in powers of ten, or as the two formats say.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("values is empty: a mean needs at least one number")
    return f"{fmean(values):{mean}}" + (f" ± {stdev(values):{sd}}" if len(values) > 1 else "")


def show(*tables: Table) -> None:
    """Print tables to standard output, as wide as the terminal, or 120 columns where there is none."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    for drawn in tables:
        console.print(drawn)


def _is_number(value: object) -> bool:
    # "0.97 ± 0.02" is a number to the reader, and lines up as one.
    return value is None or isinstance(value, (int, float)) or (isinstance(value, str) and value[:1].isdigit())


def _cell(value: object) -> Text:
    if value is None:
        return Text("-")
    return Text(f"{value:.4g}" if isinstance(value, float) else str(value))
