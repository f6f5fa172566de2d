"""The observers' tables and bars, from rows that are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sciode.experiments.observer_tables import figure, tables, together, verdicts


def row(line: str, rate: float, error: float, seed: int = 0) -> dict[str, Any]:
    way = {"in_x_in_t": error, "ext_x_in_t": error, "drift": [0.01, 0.02]}
    key = {"set": "box", "rate": rate, "subsampling": 1, "line": line, "seed": seed}
    return {**key, "seen": way, "twice": {}, "unseen": way, "seconds": 2.0}


ROWS = [
    row("observer", 0.05, 0.1), row("observer", 0.05, 0.3, 1), row("cubic, true readings", 0.05, 0.4),
    row("MeshGraphNet", 0.05, 0.3), row("observer", 0.25, 0.2), row("cubic, true readings", 0.25, 0.1),
]  # fmt: skip


def test_bars_compare_means_over_seeds_at_every_rate() -> None:
    found = {(v.rate, v.other): (v.ratio, v.met) for v in verdicts(ROWS)}
    assert found == {
        (0.05, "cubic, true readings"): (pytest.approx(0.5), True),
        (0.05, "MeshGraphNet"): (pytest.approx(2.0 / 3.0), False),
        (0.25, "cubic, true readings"): (pytest.approx(2.0), False),
    }
    law = [*ROWS, row("quadratic law", 0.25, 0.05)]
    found = {v.ours: (v.ratio, v.met) for v in verdicts(law) if v.rate == 0.25}
    assert found == {"observer": (pytest.approx(2.0), False), "quadratic law": (pytest.approx(0.5), True)}
    assert verdicts([row("persistence", 0.05, 1.0)]) == []


def test_a_table_and_a_panel_are_made_a_place(tmp_path: Path) -> None:
    made = tables(ROWS, "made up")
    titles = [f"box: {rate} of the points are sensors, one frame in 1 is read" for rate in ("5%", "25%")]
    assert [str(one.title) for one in made] == titles
    figure(ROWS, tmp_path / "rates.png")
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")


def test_the_legend_names_the_lines_of_every_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []
    monkeypatch.setattr("matplotlib.axes.Axes.legend", lambda _, handles, labels, **__: named.extend(labels))
    figure([*ROWS, {**row("persistence", 0.05, 1.0), "set": "sphere"}], tmp_path / "rates.png")
    assert named == ["observer", "cubic, true readings", "MeshGraphNet", "persistence"]


def test_rows_of_several_tables_say_how_many_times_the_steps_they_had_and_later_tables_win(tmp_path: Path) -> None:
    short, long = ({"settings": {"epochs": epochs}} for epochs in (20, 80))
    ours = {**row("observer", 0.05, 0.1), "weights": 9}
    parts = [
        [{**ours, **short}, {**row("observer", 0.05, 0.2), **long}, {**row("persistence", 0.05, 0.5), **long}],
        [{**ours, **long, "seen": row("observer", 0.05, 0.3)["seen"]}, {**ours, **short, "subsampling": 2}],
    ]
    files = [tmp_path / f"{number}.json" for number in range(2)]
    for file, rows in zip(files, parts, strict=True):
        file.write_text(json.dumps({"rows": rows}))
    found = [(r["line"], r["seen"]["ext_x_in_t"]) for r in together(files)]
    assert found == [("observer", 0.1), ("observer, 4 times the steps", 0.3), ("persistence", 0.5)]
