"""Rows of a result table that outlive an interruption: each is written when it is finished, and never made twice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from sciode.lab.progress import progress, say
from sciode.training import append_json, read_json_lines

__all__ = ["finished_groups", "finished_rows"]


Key = dict[str, Any]


def finished_rows(
    out: Path, keys: Sequence[Key], settings: dict[str, Any], make: Callable[..., dict[str, Any]]
) -> list[dict[str, Any]]:
    """One row for each key, in order; those in <out>/rows.jsonl that were made under the same settings are kept.

    make(**key) gives the rest of a row. settings: whatever else a row depends on (device, sizes); torch's version is
    added. A row that cannot be made raises, and leaves the finished ones where they are.
    """
    return finished_groups(out, [[key] for key in keys], settings, lambda group: [make(**group[0])])


def finished_groups(
    out: Path,
    groups: Sequence[Sequence[Key]],
    settings: dict[str, Any],
    make: Callable[[list[Key]], Sequence[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """As `finished_rows`, for rows that are made side by side: make(keys) gives the rest of those a group still lacks.

    A group is written when all of it is finished.
    """
    stamp = {**settings, "torch": metadata.version("torch")}
    known = [row for row in read_json_lines(out / "rows.jsonl") if row.get("settings") == stamp]
    rows, total = [], sum(len(group) for group in groups)
    there = sum(_row(known, key) is not None for group in groups for key in group)
    if there:
        print(f"{there} of {total} rows are finished already: {out / 'rows.jsonl'}", file=sys.stderr)
    with progress(total=total, description="rows", unit="row") as bar:
        for group in groups:
            lacking = [key for key in group if _row(known, key) is None]
            if lacking:
                say(f"row {len(rows) + 1} of {total}: {_said(lacking[0])}")
                bar.set_postfix_str(_said(lacking[0]))
            for key, rest in zip(lacking, make(lacking) if lacking else (), strict=True):
                known.append({**key, **rest, "settings": stamp})
                append_json(out / "rows.jsonl", known[-1])
            rows += [_row(known, key) for key in group]
            for _ in group:
                bar.update()
    return rows


def _said(key: Key) -> str:
    """A row's key in a few words: its names and numbers."""
    return ", ".join(
        f"{value:g}" if isinstance(value, float) else str(value)
        for value in key.values()
        if isinstance(value, str | int | float)
    )


def _row(known: Sequence[dict[str, Any]], key: Key) -> Any:
    return next((row for row in known if all(row.get(name) == value for name, value in key.items())), None)
