"""Rows of a result table that outlive an interruption: each is written when it is finished, and never made twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from sciode.lab.progress import progress
from sciode.training import append_json, read_json_lines

__all__ = ["finished_rows"]


def finished_rows(
    out: Path, keys: Sequence[dict[str, Any]], settings: dict[str, Any], make: Callable[..., dict[str, Any]]
) -> list[dict[str, Any]]:
    """One row for each key, in order; those in <out>/rows.jsonl that were made under the same settings are kept.

    make(**key) gives the rest of a row. settings: whatever else a row depends on (device, sizes); torch's version is
    added. A row that cannot be made raises, and leaves the finished ones where they are.
    """
    stamp = {**settings, "torch": metadata.version("torch")}
    known = [row for row in read_json_lines(out / "rows.jsonl") if row.get("settings") == stamp]
    rows = []
    with progress(total=len(keys), description="rows", unit="row") as bar:
        for key in keys:
            row = next((r for r in known if all(r.get(name) == value for name, value in key.items())), None)
            if row is None:
                row = {**key, **make(**key), "settings": stamp}
                append_json(out / "rows.jsonl", row)
            rows.append(row)
            bar.update()
    return rows
