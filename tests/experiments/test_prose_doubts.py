"""`sciode train prose_doubts` in small: systems have rows, what is right is not doubted, and nothing is made twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sciode.experiments import prose_doubts
from sciode.prose import PRESETS, Prose, Transformer
from sciode.training import isolated_rng

SMALL: dict[str, Any] = {"noises": (0.0,), "sets": 1, "unseen": (), "beams": 1, "fit": 10}


def test_what_is_found_by_its_terms_is_not_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = Prose.from_pretrained(device="cpu")
    monkeypatch.setattr(prose_doubts, "_prose", lambda _: Prose(shipped.model, ("sprott_b",), "cpu"))
    assert prose_doubts.main(tmp_path, "cpu", **SMALL) == 0
    (row,) = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert (row["part"], row["system"], row["noise"]) == ("seen", "sprott_b", 0.0)
    assert row["exact"] and not row["doubted"] and row["l2"] < 1e-3 < row["l2_operator"]
    assert "What is doubted" in capsys.readouterr().out
    monkeypatch.setattr(prose_doubts, "made", pytest.fail)
    assert prose_doubts.main(tmp_path, "cpu", **SMALL) == 0


def test_other_weights_make_rows_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "table.json"
    fields = ("doubted", "after", "exact", "covered", "rhs", "l2", "l2_operator")
    made = iter((1.0, 2.0))
    monkeypatch.setattr(prose_doubts, "made", lambda *_, **__: dict.fromkeys(fields, next(made)))
    with isolated_rng(0):
        models = [Transformer(PRESETS["tiny"]) for _ in range(2)]
    for place in (0, 1, 0, 1):
        monkeypatch.setattr(prose_doubts, "_prose", lambda _, own=models[place]: Prose(own, ("lorenz",), "cpu"))
        assert prose_doubts.main(tmp_path, "cpu", **SMALL) == 0
        assert [row["l2"] for row in json.loads(table.read_text())["rows"]] == [1.0 + place]
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2


def test_systems_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="pendulum"):
        prose_doubts.Settings(unseen=("pendulums",))
