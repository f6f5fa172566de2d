"""`sciode train prose_doubts` in small: systems have rows, what is right is not doubted, and nothing is made twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sciode.experiments import prose_doubts

SMALL: dict[str, Any] = {"noises": (0.0,), "sets": 0, "unseen": ("decay",), "search": 0}


def test_what_is_found_by_its_terms_is_not_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prose_doubts.main(tmp_path, "cpu", **SMALL) == 0
    (row,) = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert (row["part"], row["system"], row["noise"]) == ("never seen", "decay", 0.0)
    assert row["exact"] and not row["doubted"] and row["l2"] < 1e-3 < row["l2_operator"]
    assert "What is doubted" in capsys.readouterr().out
    monkeypatch.setattr(prose_doubts, "made", pytest.fail)
    assert prose_doubts.main(tmp_path, "cpu", **SMALL) == 0


def test_systems_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="pendulum"):
        prose_doubts.Settings(unseen=("pendulums",))
