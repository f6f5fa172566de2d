"""The table of families: equal sizes and costs, rows made once, misuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sciode.experiments import pinn_families
from sciode.experiments.pinn_families import METHODS, Settings, pieces_of, problem_of
from sciode.pinn import FAMILIES, Network

SMALL: dict[str, Any] = {"families": ("reaction",), "seeds": (0,), "seconds": 0.2, "width": 8, "points": 100}


@pytest.mark.parametrize("family", FAMILIES)
def test_methods_have_about_as_many_weights(family: str) -> None:
    problem = problem_of(family, False)
    sizes = []
    for method in METHODS:
        count = pieces_of(family, method, problem).size
        sizes.append(count * Network(20 if count > 1 else 30, 2).size(2, 1))
    # Burgers' windows are three, one for each connected piece.
    assert max(sizes) / min(sizes) < (1.6 if family == "burgers" else 1.1)


def test_a_table_is_made_once_in_the_time_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pinn_families.main(tmp_path, "cpu", **SMALL) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 4 * 3 and all(row["error"] > 0 for row in rows)
    assert all(len(row["seconds"]) == len(row["stages"].split(", ")) for row in rows)
    assert (tmp_path / "errors.png").stat().st_size > 0 and "cPINN" in capsys.readouterr().out
    monkeypatch.setattr(pinn_families, "made", lambda *_, **__: pytest.fail("a finished row was made again"))
    assert pinn_families.main(tmp_path, "cpu", **SMALL) == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"families": ("wave",)}, "there are"), ({"seconds": 0.0}, "positive"), ({"points": 0}, "at least 1")],
)
def test_misuse_says_the_mend(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Settings(**changes)
