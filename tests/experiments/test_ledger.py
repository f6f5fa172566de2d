"""Rows that outlive an interruption."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sciode.experiments import frame, spiral_sde
from sciode.experiments.ledger import finished_rows, named, stamped, write_table

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


def test_rows_made_side_by_side_stand_in_order_and_a_failure_leaves_the_finished_ones(tmp_path: Path) -> None:
    good = [{"s": f'{{"value": {k}}}'} for k in range(4)]
    with pytest.raises(json.JSONDecodeError):
        finished_rows(tmp_path, [good[0], {"s": "{"}, *good[1:]], {}, json.loads, workers=2)
    kept = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert all(row["value"] == json.loads(row["s"])["value"] and row["workers"] == 2 for row in kept)
    rows = finished_rows(tmp_path, good, {}, json.loads)
    assert [row["value"] for row in rows] == [0, 1, 2, 3]
    assert sum(row.get("workers") == 2 for row in rows) == len(kept)


def test_a_row_is_the_same_whoever_makes_it(tmp_path: Path) -> None:
    tiny = {"steps": 2, "batch": 4, "engine": "eager", "tested": 8, "simulated": 16, "strengths": (1.0,)}
    kind = spiral_sde.SpiralSde
    found = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        frame.run(kind, spiral_sde.Settings, out, "cpu", {**tiny, "workers": workers})
        rows = json.loads((out / "table.json").read_text())
        found.append(
            [(row["recipe"], row.get("validation", {}).get("nfe"), row.get("test", {}).get("fit")) for row in rows]
        )
    assert found[0] == found[1] and any(row[2] for row in found[0])


def test_nobody_waits_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal no bar is drawn: a line says which row is made, and how many were there already."""
    finished_rows(tmp_path, KEYS[:2], {"steps": 1}, lambda recipe: {"value": 1})
    assert capsys.readouterr().err.splitlines() == ["row 1 of 2: a", "row 2 of 2: b"]
    finished_rows(tmp_path, KEYS, {"steps": 1}, lambda recipe: {"value": 1})
    assert capsys.readouterr().err.splitlines() == [
        f"2 of 3 rows are finished already: {tmp_path / 'rows.jsonl'}", "row 3 of 3: c",
    ]  # fmt: skip


@dataclass(frozen=True)
class _Sizes:
    """Settings of a table."""

    lines: tuple[str, ...] = ("a",)
    width: int = 3
    workers: int = 2


def test_a_stamp_is_what_a_row_hangs_on_as_it_is_read_back(tmp_path: Path) -> None:
    assert stamped(_Sizes(), "lines", grid=(1, 2)) == {"width": 3, "grid": [1, 2]}
    file = write_table(tmp_path, {"settings": _Sizes(), "rows": [{"x": 1}]})
    assert json.loads(file.read_text()) == {
        "settings": {"lines": ["a"], "width": 3, "workers": 2},
        "rows": [{"x": 1}],
    }


def test_a_name_that_is_not_there_is_told_with_those_that_are() -> None:
    named("lines", ("a",), ("a", "b"))
    with pytest.raises(ValueError, match="lines: c is unknown; there are a; b"):
        named("lines", ("a", "c"), ("a", "b"))
