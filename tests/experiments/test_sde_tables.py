"""The tables of neural SDEs: the recipes that apply, noise that no other part sees, data that obey their equation."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sciode.experiments import frame, mnist_sde, spiral_sde
from sciode.experiments.recipes import ALONG_ODES, RECIPES
from sciode.solvers import methods
from sciode.solvers.methods import stepper_of
from sciode.solvers.regularizers import as_regularizers

SMALL: dict[str, Any] = {"steps": 2, "batch": 6, "engine": "eager", "seeds": (0, 1), "strengths": (1.0,)}
TABLES = {
    "spiral": (spiral_sde, {**SMALL, "tested": 8, "simulated": 64, "tolerance": 0.3}),
    "mnist": (mnist_sde, {**SMALL, "tested": 8, "images": 32, "draws": 2}),
}
KINDS = {"spiral": (spiral_sde.SpiralSde, "fit"), "mnist": (mnist_sde.MnistSde, "accuracy")}


@pytest.mark.parametrize("name", TABLES)
def test_every_recipe_that_applies_makes_its_row_and_the_others_say_why_not(
    name: str, tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, sizes = TABLES[name]
    assert table.main(tmp_path, "cpu", **sizes) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["recipe"] for row in rows] == [r.name for r in RECIPES if r.name not in ALONG_ODES]
    assert all(len(row["test"][KINDS[name][1]]) == len(row["test"]["nfe"]) == 2 for row in rows)
    monkeypatch.setattr(frame, "train", None)
    assert table.main(tmp_path, "cpu", **sizes) == 0
    best = json.loads((tmp_path / "table.json").read_text())
    assert {row["recipe"]: row["note"] for row in best if "note" in row} == {
        recipe: f"not applicable: {reason}" for recipe, reason in ALONG_ODES.items()
    }


@pytest.mark.parametrize("method", [name for name, info in methods("sde").items() if info.adaptive])
def test_what_is_said_not_to_apply_is_what_the_solver_refuses(method: str) -> None:
    stepper = stepper_of(method, "sde", "euler")
    for recipe in RECIPES:
        if recipe.name in ALONG_ODES:
            with pytest.raises(ValueError):
                as_regularizers(recipe.regularize, stepper)
        else:
            as_regularizers(recipe.regularize, stepper)


@pytest.mark.parametrize("name", TABLES)
def test_a_seeds_model_is_the_same_whoever_is_trained_beside_it(name: str, shared_data: Path) -> None:
    kind, table = KINDS[name][0], TABLES[name]
    module: ModuleType = table[0]
    both, alone = (kind(module.Settings(**{**table[1], "seeds": seeds})) for seeds in ((0, 1), (1,)))
    for a, b in zip(both.model().parameters(), alone.model().parameters(), strict=True):
        assert torch.equal(a[1:], b)


def test_each_part_of_the_spiral_has_noise_of_its_own_and_repeats() -> None:
    task = spiral_sde.SpiralSde(spiral_sde.Settings(**TABLES["spiral"][1]))
    model, solver = task.model(), frame.Solver(task.settings, RECIPES[0], 0)
    with torch.no_grad():
        first, again, other = (
            task.judge(model, part, slice(0, 1), solver).found.ys for part in ("test", "test", "validation")
        )
    assert torch.equal(first, again)
    assert not torch.equal(first[-1], other[-1])


def test_the_simulated_spiral_obeys_its_equation() -> None:
    # The first 1/29 of the way, to the first order in time: means u0 + f h, variances (0.2 u0)^2 h.
    h, count = 1 / 29, 40_000
    ys = spiral_sde.simulated(count, seed=3)
    means, variances = (m[:, 0].double() for m in spiral_sde.moments(ys))
    drift = torch.tensor([2.0**3 * -0.1, 2.0**3 * 2.0], dtype=torch.float64)
    spread = (variances[1] / count).sqrt()
    # What the first order leaves out: f' f h^2 / 2, some (3 u^2 |A|)^2 u h^2 / 2.
    curvature = 0.5 * h**2 * torch.tensor([12.0 * 0.1 * 0.8, 2 * 12.0 * 0.8], dtype=torch.float64)
    assert bool(((means[1] - means[0] - drift * h).abs() < 5 * spread + curvature).all())
    assert variances[1, 0] == pytest.approx(0.16 * h, rel=0.1)
    assert bool((variances[0] == 0).all())
