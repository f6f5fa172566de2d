"""`sciode train prose_fields` in small: rows for every line, valid equations, and nothing made twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sciode.experiments import prose_fields

SMALL: dict[str, Any] = {
    "families": ("heat", "advection"), "seeds": (0,), "equations": 8, "starts": 2, "steps": 12, "batch": 8,
    "test_equations": 2, "test_starts": 1, "written": 2, "beams": 2, "noises": (0.0,),
}  # fmt: skip


def test_every_line_has_its_row_and_every_equation_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prose_fields.main(tmp_path, "cpu", **SMALL) == 0
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    wanted = {"full", "data only", "DeepONet", "Fourier operator", "last value", "true equation"}
    assert {row["line"] for row in rows} == wanted and [row["told"] for row in rows[:2]] == ["known", "nothing"]
    assert {row["valid"] for row in rows if "valid" in row} == {1.0}
    assert all(0 < row["l2"] < 10 for row in rows if row["line"] != "true equation") and {
        row.get("steps", 12) for row in rows
    } == {12}
    assert {row["few_samples"] for row in rows} == {2} and rows[-1]["few"] < 1e-5 < rows[-2]["few"]
    fits = [row for row in rows if "few_fitted" in row]
    assert len(fits) == 3 and all(row["raised"] == 0 and row["data_fitted"] <= row["data"] for row in fits)
    said = capsys.readouterr().out
    assert "Relative L2 errors of fields" in said and "Fields by their equations" in said
    monkeypatch.setattr(prose_fields, "made", pytest.fail)
    assert prose_fields.main(tmp_path, "cpu", **SMALL) == 0


def test_families_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="heat"):
        prose_fields.Settings(families=("heats",))
