"""The elastic table: every kind of line, rows made once, misuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sciode.experiments import insr_elastic
from sciode.experiments.insr_elastic import LINES, REFERENCE, Settings, lift, network

pytest.importorskip("skfem", reason="finite elements need scikit-fem: pip install 'sciode[pde]'")

SMALL: dict[str, Any] = {"seeds": (0,), "width": 6, "moving": 4, "hidden": 0, "points": 128, "steps": 1}


def test_the_stretched_field_holds_its_faces_whatever_its_weights() -> None:
    ends = torch.tensor([[-1.0, 0.4], [1.0, -0.3]], dtype=torch.float64)
    for seed in (0, 1):
        field = network("stretch", Settings(), seed)
        torch.testing.assert_close(field(ends), lift(ends), rtol=0, atol=1e-14)
    assert lift(ends)[:, 0].tolist() == [0.0, 2.0]


def test_a_table_is_made_once_and_holds_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ("stretch, field", "stretch, P2, 10 times the unknowns", "collide, field, contact on the surface",
             "collide, P2, as many unknowns")  # fmt: skip
    assert insr_elastic.main(tmp_path, "cpu", lines=lines, **SMALL) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rows] == list(lines)
    field, quadratic = (row["told"][-1]["elastic"] for row in rows[:2])
    # No minimum over fewer deformations is below the least.
    assert REFERENCE - 1e-3 < field < 1.1 * REFERENCE and quadratic > REFERENCE - 1e-3
    assert rows[1]["unknowns"] >= 10 * rows[0]["unknowns"] and rows[0]["bytes"] == 8 * rows[0]["unknowns"]
    assert {"kinetic", "contact", "penetration", "inverted"} <= set(rows[2]["told"][0]) & set(rows[3]["told"][0])
    assert (tmp_path / "bodies.png").stat().st_size > 0 and "stretched" in capsys.readouterr().out
    monkeypatch.setattr(insr_elastic, "made", lambda *_, **__: pytest.fail("a finished row was made again"))
    assert insr_elastic.main(tmp_path, "cpu", lines=lines, **SMALL) == 0


def test_steps_that_did_not_settle_are_counted_without_the_fit_and_of_the_worst_seed() -> None:
    rows = [
        {"told": [{}, {}, {}], "statuses": ["budget", "converged", *ends]}
        for ends in (("accepted", "budget"), ("stuck", "budget"))
    ]
    assert insr_elastic._unsettled(rows) == 2 and insr_elastic._unsettled(rows[:1]) == 1


def test_finite_elements_have_at_least_the_unknowns_that_their_line_says() -> None:
    settings = Settings(width=4, hidden=0)
    weights = sum(p.numel() for p in network("stretch", settings, 0).parameters())
    for line in LINES.values():
        if line.case == "stretch" and line.degree is not None:
            nodes = insr_elastic._space(line, settings).nodes
            unknowns = 2 * int((nodes[:, 0].abs() < 1 - 1e-9).sum())
            assert line.times * weights <= unknowns < 2 * line.times * weights + 50


@pytest.mark.parametrize(("changes", "says"), [({"lines": ("strech",)}, "there are"), ({"points": 0}, "at least 1")])
def test_misuse_says_the_mend(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Settings(**changes)
