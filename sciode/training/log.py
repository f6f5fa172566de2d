"""JSON lines: one record a line, readable while it grows and after a crash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def append_json(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record as one line; a torn last line, left by a killed process, is dropped first. Folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        file.seek(0)
        whole = file.read()
        file.truncate(whole.rfind(b"\n") + 1)
        file.write(json.dumps(record).encode() + b"\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the records of a JSON-lines file, [] if there is none; a torn last line (a killed process's) is left out.

    Raises ValueError naming the line for damage anywhere else.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    records = []
    for number, line in enumerate(lines[:-1], start=1):  # the part after the last newline is empty or torn
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error.msg}") from error
    return records
