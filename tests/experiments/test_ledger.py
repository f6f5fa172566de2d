"""Rows that outlive an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sciode.experiments.ledger import finished_rows

KEYS = [{"recipe": "a"}, {"recipe": "b"}, {"recipe": "c"}]


def test_an_interrupted_table_goes_on_where_it_was(tmp_path: Path) -> None:
    made = []

    def make(recipe: str) -> dict[str, Any]:
        if recipe == "c" and made.count("c") == 0:
            made.append(recipe)
            raise KeyboardInterrupt
        made.append(recipe)
        return {"value": recipe * 2}

    with pytest.raises(KeyboardInterrupt):
        finished_rows(tmp_path, KEYS, {"steps": 1}, make)
    rows = finished_rows(tmp_path, KEYS, {"steps": 1}, make)
    assert [row["value"] for row in rows] == ["aa", "bb", "cc"]
    assert made == ["a", "b", "c", "c"]


def test_other_settings_make_other_rows(tmp_path: Path) -> None:
    for steps in (1, 2, 1):
        rows = finished_rows(tmp_path, KEYS, {"steps": steps}, lambda recipe, steps=steps: {"value": steps})
        assert {row["value"] for row in rows} == {steps}


def test_nobody_waits_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal no bar is drawn: a line says which row is made, and how many were there already."""
    finished_rows(tmp_path, KEYS[:2], {"steps": 1}, lambda recipe: {"value": 1})
    assert capsys.readouterr().err.splitlines() == ["row 1 of 2: a", "row 2 of 2: b"]
    finished_rows(tmp_path, KEYS, {"steps": 1}, lambda recipe: {"value": 1})
    assert capsys.readouterr().err.splitlines() == [
        f"2 of 3 rows are finished already: {tmp_path / 'rows.jsonl'}", "row 3 of 3: c",
    ]  # fmt: skip
