"""The flows' table: every recipe, the field's own trace, models that do not feel one another, fresh points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sciode.experiments import cnf, frame
from sciode.experiments.recipes import RECIPES
from sciode.nn import CNF

SIZES: dict[str, Any] = {
    "steps": 2, "batch": 8, "tested": 12, "hidden": 5, "engine": "eager", "seeds": (0, 1), "tolerance": 1e-3,
    "densities": ("pinwheel", "moons"), "strengths": (0.1, 10.0),
}  # fmt: skip


def test_every_recipe_makes_its_rows_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cnf.main(tmp_path, "cpu", **SIZES) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == sum(2 if recipe.penalties else 1 for recipe in RECIPES)
    assert not any("note" in row for row in rows)
    assert all(len(row["test"]["nll"]) == len(row["test"]["nfe"]) == 2 for row in rows)
    assert (tmp_path / "pareto.png").stat().st_size > 0
    assert "vanilla" in capsys.readouterr().out
    monkeypatch.setattr(frame, "train", None)
    assert cnf.main(tmp_path, "cpu", **SIZES) == 0
    assert len(json.loads((tmp_path / "table.json").read_text())) == len(RECIPES)


def test_the_fields_own_trace_is_that_of_its_derivative() -> None:
    field = cnf.Field(5, [1, 2, 3]).double()
    t = torch.full((3, 4, 1), 0.4, dtype=torch.float64)
    y = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    own, exact = (CNF(field, 2, trace=trace) for trace in (field.with_trace, "exact"))
    torch.testing.assert_close(own(t, own.start(y)), exact(t, exact.start(y)), rtol=1e-12, atol=1e-12)


def test_a_model_is_the_one_of_its_seed_and_density_whatever_stands_beside_it() -> None:
    many = cnf.Cnf(cnf.Settings(**SIZES))
    alone = cnf.Cnf(cnf.Settings(**{**SIZES, "seeds": (1,)}))
    losses = [task.loss(task.model(), 0, frame.Solver(task.settings, RECIPES[0], 0))[0] for task in (many, alone)]
    first = cnf.Cnf(cnf.Settings(**{**SIZES, "seeds": (0,)}))
    rest = first.loss(first.model(), 0, frame.Solver(first.settings, RECIPES[0], 0))[0]
    torch.testing.assert_close(losses[0], losses[1] + rest, rtol=1e-5, atol=1e-5)
    judged = [frame.tested(task, task.model(), "test")["nll"] for task in (many, alone)]
    assert judged[0][1] == pytest.approx(judged[1][0], rel=1e-5)


def test_training_validation_and_test_points_differ_and_repeat() -> None:
    task, again = (cnf.Cnf(cnf.Settings(**SIZES)) for _ in range(2))
    assert torch.equal(task.parts["test"], again.parts["test"])
    drawn = [task.parts["validation"], task.parts["test"]]
    drawn += [task._tensor(task._points(12, [3, seed, step])) for seed in (0, 1) for step in (0, 1, 2)]
    seen = [{tuple(point) for point in part.flatten(0, 1).tolist()} for part in drawn]
    assert all(not a & b for i, a in enumerate(seen) for b in seen[:i])


def test_an_unknown_density_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="densities: give some of pinwheel"):
        cnf.main(tmp_path, "cpu", densities=("pinweel",))
    with pytest.raises(ValueError, match="densities"):
        cnf.main(tmp_path, "cpu", densities=())
