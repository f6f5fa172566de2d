"""The table of few-step students, in small: every student is made, from one teacher, by equal numbers of steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sciode.experiments import few_steps
from sciode.experiments.few_steps import STUDENTS, Settings


def test_every_student_is_judged_and_a_seed_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn comes with the lab extra")
    sizes = {"steps": 2, "student_steps": 3, "pairs": 10, "judged": 10, "seeds": (1,), "width": 24, "depth": 1}
    assert few_steps.main(tmp_path, "cpu", **sizes) == 0
    (row,) = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert set(row["students"]) == set(STUDENTS) and row["floor"] > 0
    assert all(set(cells) == {"1", "2", "4"} for cells in row["students"].values())
    assert "rectified flow" in capsys.readouterr().out

    def again(*_: object, seed: int) -> None:
        raise ArithmeticError(f"seed {seed} made again")

    monkeypatch.setattr(few_steps, "_row", again)
    assert few_steps.main(tmp_path, "cpu", **sizes) == 0
    with pytest.raises(ArithmeticError, match="made again"):
        few_steps.main(tmp_path / "elsewhere", "cpu", **sizes)


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        Settings(grid=6)
    with pytest.raises(ValueError, match="at least 1"):
        Settings(seeds=())
