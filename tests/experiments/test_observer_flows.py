"""The observers' table: who sees what, every kind of line on a small set, rows made once, misuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sciode.data.flow import Flow, FlowSet, Space
from sciode.experiments import observer_flows
from sciode.experiments.observer_flows import LINES, Settings, read, sensors_of, told
from sciode.observers import outside_hull

SMALL: dict[str, Any] = {
    "rates": (0.2,), "seeds": (0,), "horizon": 6, "points": 20, "width": 8, "layers": 1, "epochs": 1, "queries": 16,
}  # fmt: skip


def small(name: str, part: str) -> FlowSet:
    """Waves on 100 points of a box, or of a sphere; another phase a part."""
    draw = torch.Generator().manual_seed(0)
    sphere = name.startswith("shallow")
    points = torch.randn(100, 3, generator=draw) if sphere else torch.rand(100, 2, generator=draw)
    points = points / points.norm(dim=1, keepdim=True) if sphere else points
    times = torch.arange(12, dtype=torch.float64)
    phase = {"train": 0.0, "validation": 1.0, "test": 2.0}[part]
    values = [(6.28 * points[:, 0] - 0.3 * times[:, None] + phase + k).sin().unsqueeze(-1).float() for k in range(4)]
    space = Space("sphere") if sphere else Space("plane" if name == "plane" else "periodic", (0.0, 0.0), (1.0, 1.0))
    return FlowSet(name, tuple(Flow(points, times, value) for value in values), ("s",), ("",), space)


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], FlowSet]:
    monkeypatch.setattr(observer_flows, "flows", small)
    return small


def test_training_sees_the_sensors_and_the_kept_frames_alone(sets: Callable[[str, str], FlowSet]) -> None:
    seen, whole = read("box", "train", 2, 0.2, 2, 6), sets("box", "train")
    chosen = sensors_of(whole[0], 0.2, 11)
    assert len(seen) == 4 and len(chosen) == 20
    assert torch.equal(seen[1].values, whole[0].values[6:12:2][:, chosen])
    test = told(sets("box", "test")[0], 0.2, 11, 30)
    assert test.flow.points.shape == (50, 2) and torch.equal(test.flow.points[:20], whole[0].points[chosen])
    assert len(np.unique(test.flow.points.numpy(), axis=0)) == 50
    assert not np.array_equal(sensors_of(whole[0], 0.2, 12), chosen)


def test_walls_are_always_sensors() -> None:
    walls = torch.arange(50) < 10
    flow = Flow(torch.rand(50, 2, generator=torch.Generator().manual_seed(0)), torch.arange(2).double(),
                torch.zeros(2, 50, 1), walls)  # fmt: skip
    assert set(range(10)) <= set(sensors_of(flow, 0.1, 11).tolist())


def test_a_table_is_made_once_of_every_kind_of_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    sets: Callable[[str, str], FlowSet],
) -> None:  # fmt: skip
    how = {**SMALL, "sets": ("shallow_water_small",), "subsamplings": (2,), "test": 1}
    how["lines"] = tuple(name for name in LINES if LINES[name].rival not in ("law", "solver", "climate solver"))
    assert observer_flows.main(tmp_path, "cpu", **how) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rows] == list(how["lines"])
    assert all(np.isfinite([row["seen"]["ext_x_ext_t"], row["unseen"]["ext_x_in_t"]]).all() for row in rows)
    exact = next(row for row in rows if row["line"] == "cubic, true readings")
    assert exact["seen"]["in_x_in_t"] < 1e-10 < exact["seen"]["ext_x_in_t"]
    still = next(row for row in rows if row["line"] == "persistence")
    assert still["seen"]["in_x_in_t"] < still["twice"]["in_x_in_t"]
    assert still["seen"]["away"] == still["unseen"]["away"] == 0
    assert "Ext-X" in capsys.readouterr().out
    monkeypatch.setattr(observer_flows, "made", lambda *_, **__: pytest.fail("a finished row was made again"))
    assert observer_flows.main(tmp_path, "cpu", **how) == 0


def test_answers_that_run_away_are_counted_within_the_hull_of_the_sensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sets: Callable[[str, str], FlowSet]
) -> None:
    plain, settings = observer_flows.answer, Settings(**{**SMALL, "test": 1})
    key: dict[str, Any] = {"set": "plane", "rate": 0.2, "subsampling": 1, "line": "persistence", "seed": 0}

    def wild(outside: bool, *asked: Any) -> Any:
        flow, count, space = asked[2].flow, asked[2].count, asked[4]
        beyond = outside_hull(flow.points, flow.points[:count], space).numpy()
        assert 0 < beyond.sum() < len(beyond) - count
        return np.where((beyond == outside)[:, None], 1e3, 1.0) * plain(*asked)

    for outside, away in ((True, 0), (False, 1)):
        monkeypatch.setattr(observer_flows, "answer", partial(wild, outside))
        row = observer_flows.made(settings, tmp_path, **key)
        # A flow of 12 frames is two windows of 6.
        assert [row[way]["away"] for way in ("seen", "twice", "unseen")] == [2 * away, away, 2 * away]


def test_a_law_is_found_and_the_true_one_is_told_of_navier_stokes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sets: Callable[[str, str], FlowSet]
) -> None:
    recipe = SimpleNamespace(recipe={"solver": "vorticity", "settings": {"n": 16, "forcing": 0.0}})
    monkeypatch.setattr(observer_flows, "manifest", lambda name: recipe)
    quick = partial(observer_flows.QuadraticLaw, side=8, rounds=(1,), ahead=(1,))
    monkeypatch.setattr(observer_flows, "QuadraticLaw", quick)
    lines = ("quadratic law", "true solver, first readings", "fitted surface, true readings")
    how = {**SMALL, "sets": ("navier_stokes_small",), "lines": lines, "test": 1}
    assert observer_flows.main(tmp_path, "cpu", **how) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rows] == list(lines)
    assert all(np.isfinite(row["seen"]["ext_x_in_t"]) for row in rows)
    # No flow of the solver's, but its first frame is told by the same surface.
    assert rows[0]["weights"] > 0 and rows[0]["seen"]["ext_x_in_t"] < 2.0


def test_a_box_is_not_flattened_and_all_frames_leave_none_between(
    tmp_path: Path, sets: Callable[[str, str], FlowSet]
) -> None:
    lines = ("observer", "flat sphere", "persistence")
    assert observer_flows.main(tmp_path, "cpu", **{**SMALL, "sets": ("box",), "lines": lines}) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rows] == ["observer", "persistence"]
    assert all("in_x_ext_t" not in row["seen"] and "ext_x_in_t" in row["seen"] for row in rows)


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="lines: nobody is unknown"):
        Settings(lines=("nobody",))
    with pytest.raises(ValueError, match="rates"):
        Settings(rates=(25.0,))
    with pytest.raises(ValueError, match="at least 1"):
        Settings(epochs=0)
