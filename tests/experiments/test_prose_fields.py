"""`sciode train prose_fields` and `prose_field_fits` in small: a row for every line, nothing made twice, and fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sciode.experiments import prose_field_fits, prose_fields
from sciode.experiments.prose_field_rows import few_of, few_row
from sciode.prose import FieldDrawing, Reading, filled_fields, variable

SMALL: dict[str, Any] = {
    "families": ("heat", "advection"), "seeds": (0,), "equations": 8, "starts": 2, "steps": 12, "batch": 8,
    "test_equations": 2, "test_starts": 1, "written": 2, "beams": 2, "noises": (0.0,), "fits": 0,
}  # fmt: skip


def test_every_line_has_its_row_and_every_equation_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prose_fields.main(tmp_path, "cpu", **SMALL) == 0
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    wanted = {"full", "data only", "DeepONet", "Fourier operator", "last value"}
    assert {row["line"] for row in rows} == wanted and [row["told"] for row in rows[:2]] == ["known", "nothing"]
    assert {row["valid"] for row in rows if "valid" in row} == {1.0}
    assert all(0 < row["l2"] < 10 for row in rows) and {row.get("steps", 12) for row in rows} == {12}
    assert "Relative L2 errors of fields" in capsys.readouterr().out
    monkeypatch.setattr(prose_fields, "made", pytest.fail)
    assert prose_fields.main(tmp_path, "cpu", **SMALL) == 0


def test_the_true_equation_is_solved_beside_what_learns_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {**SMALL, "families": ("heat",), "lines": ("last value", "true equation"), "fits": 1}
    assert prose_fields.main(tmp_path, "cpu", **own) == 0
    last, true = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert "l2" not in true and true["few_samples"] == 1 and true["few"] < 1e-5 < last["few"]
    assert "Fields by their equations" in capsys.readouterr().out


def test_what_is_written_is_fitted_and_what_has_no_solution_leaves_the_word_to_the_operator() -> None:
    pool = filled_fields(FieldDrawing(("advection",), equations=1, starts=3, part="test"), 0)
    few = few_of(pool, 3, Reading(16, 0, 0.0, fixed=True))
    # The second has no values, the third reads a field that there is not.
    written = [(-0.5 * variable(1),), (1.0 / (variable(0) - variable(0)),), (1.0 * variable(5),)]
    row = few_row(few, None, written, 1)
    assert row["few_right"] == row["few_reached"] == 1 / 3 and row["raised"] == 0
    assert row["coefficients_fitted"] < 1e-4 < row["coefficients"]
    assert 0 < row["few_fitted"] < row["few_written"] < row["few"]


def test_families_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="heat"):
        prose_fields.Settings(families=("heats",))


def test_fits_of_nominal_numbers_have_a_row_each_and_lower_both_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prose_field_fits.main(tmp_path, families=("advection", "wave"), noises=(0.02,), draws=1, rounds=2) == 0
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["family"] for row in rows] == ["advection", "wave"] and all(row["solved"] for row in rows)
    for row in rows:
        assert row["numbers_fitted"] < row["numbers"] and row["data_fitted"] < row["data"]
        assert row["l2_fitted"] < row["l2_nominal"] and row["l2_true_fitted"] < row["l2_nominal"]
    assert rows[0]["numbers_regressed"] < rows[0]["numbers"] and rows[1]["numbers_regressed"] is None
    assert "fitted numbers" in capsys.readouterr().out
    with pytest.raises(ValueError, match="heat"):
        prose_field_fits.Settings(families=("heats",))
    with pytest.raises(ValueError, match="on the CPU"):
        prose_field_fits.main(tmp_path, device="cuda")
