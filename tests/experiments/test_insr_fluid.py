"""Tables of vortices: every kind of line, grids as measured beforehand, rows made once, misuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sciode.experiments import insr_taylor_green, insr_two_scale
from sciode.experiments.insr_fluid import LINES, Size, flow, network, parts
from sciode.pde import problem_of

SMALL: dict[str, Any] = {"seeds": (0,), "width": 4, "points": 160, "fit": 6, "step": 2, "descent": 60}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_grids_lose_the_energy_that_was_measured_beforehand(tmp_path: Path) -> None:
    """Of the brief: 34.3 % linear and 11.3 % cubic by Chorin's splitting at T = 5 on 57 cells, 0.1 % by reflection."""
    lines = ("grid, linear, Chorin", "grid, cubic, Chorin", "grid, cubic, reflection")
    assert insr_taylor_green.main(tmp_path, "cpu", lines=lines) == 0
    lost = [row["lost"][-1] for row in rows_of(tmp_path)]
    assert lost == [pytest.approx(0.343, abs=3e-3), pytest.approx(0.113, abs=1e-3), pytest.approx(0.001, abs=3e-4)]


def test_a_table_of_taylor_green_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = {**SMALL, "horizon": 0.2, "lines": ("Galerkin, stream function", "reflection, stream function",
                                               "Chorin, velocity", "grid, linear, Chorin")}  # fmt: skip
    assert insr_taylor_green.main(tmp_path, "cpu", **how) == 0
    rows = rows_of(tmp_path)
    assert [row["line"] for row in rows] == list(how["lines"])
    assert rows[0]["divergence"] < 1e-12 and rows[1]["divergence"] < 1e-12 < rows[2]["divergence"]
    assert rows[2]["weights"] > rows[1]["weights"] > rows[0]["weights"]
    assert (tmp_path / "energy.png").stat().st_size > 0
    monkeypatch.setattr(insr_taylor_green, "made", lambda *_, **__: pytest.fail("a finished row was made again"))
    assert insr_taylor_green.main(tmp_path, "cpu", **how) == 0


def test_a_table_of_two_scales_compares_equal_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = {**SMALL, "horizon": 0.2, "ratios": (0.5, 0.25), "reference": 24}
    assert insr_two_scale.main(tmp_path, "cpu", **how) == 0
    rows = rows_of(tmp_path)
    assert len(rows) == 6 and {row["ratio"] for row in rows} == {0.5, 0.25}
    assert rows[1]["bytes"] == pytest.approx(rows[0]["bytes"], rel=0.15)
    assert all(set(row["errors"]) == {"box", "corner"} for row in rows)
    assert (tmp_path / "errors.png").stat().st_size > 0 and "neural/grid" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["grid, linear, Chorin", "Galerkin, stream function"])
def test_a_line_ends_at_the_horizon_even_where_its_step_does_not_divide_it(line: str) -> None:
    """All methods are compared at one time."""
    row = flow(problem_of("taylorgreen"), LINES[line], Size(4, 5.0, 60, 1, 1), 0, 0.17, 8, [torch.zeros(1, 2).double()])
    assert row["reached"] == pytest.approx(0.17) and row["ts"][1] <= LINES[line].dt


def test_steps_that_divide_a_time_are_as_many_as_they_go_into_it() -> None:
    assert [parts(5.0, 0.05), parts(1.0, 0.02), parts(0.3, 0.1), parts(0.17, 0.02), parts(0.05, 0.2)] == [
        100,
        50,
        3,
        9,
        1,
    ]


def test_networks_of_the_papers_size_have_the_weights_that_it_counts() -> None:
    paper = Size(32, 30.0, 1)
    problem = problem_of("taylorgreen")
    fields = [network(problem, "velocity", paper, 0, outputs) for outputs in (2, 1)]
    # One hidden layer fewer than the paper's three.
    assert [sum(p.numel() for p in field.parameters()) + 32 * 33 for field in fields] == [3330, 3297]
    assert LINES["Adam recipe, velocity"].pressure == {"kind": "chorin", "trace": "euler"}


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        (insr_taylor_green, {"lines": ("galerkin",)}, "there are"),
        (insr_taylor_green, {"points": 0}, "at least 1"),
        (insr_two_scale, {"ratios": ()}, "at least 1"),
        (insr_two_scale, {"reference": 4}, "reference"),
    ],
)
def test_misuse_says_the_mend(kind: Any, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        kind.Settings(**changes)
