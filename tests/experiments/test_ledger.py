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
