"""Validation chooses the strength; the test part has no say."""

from __future__ import annotations

from typing import Any

import pytest

from sciode.experiments.recipes import RECIPES
from sciode.experiments.verdicts import Score, chosen, result_table

ACCURACY = Score("accuracy", "accuracy %", "higher", loses=0.005, scale=100.0)
MSE = Score("mse", "MSE", "lower", loses=0.02, relative=True)
NATS = Score("nll", "nats", "lower", loses=0.01)


def row(recipe: str, factor: float, accuracy: float, nfe: float, tested: float = 0.0) -> dict[str, Any]:
    part = {"accuracy": [accuracy, accuracy], "nfe": [nfe, nfe]}
    return {"recipe": recipe, "factor": factor, "validation": part, "test": {"nfe": [tested]}}


def test_the_cheapest_that_loses_at_most_half_a_point_is_chosen() -> None:
    rows = [
        row("vanilla", 1.0, 0.970, 50.0),
        row("error", 0.1, 0.972, 45.0, tested=10.0),
        row("error", 1.0, 0.966, 30.0, tested=99.0),
        row("error", 10.0, 0.960, 20.0, tested=1.0),
    ]
    assert [(r["recipe"], r["factor"]) for r in chosen(rows, RECIPES, ACCURACY)] == [("vanilla", 1.0), ("error", 1.0)]


def test_where_all_lose_more_the_most_accurate_is_chosen() -> None:
    rows = [
        row("vanilla", 1.0, 0.97, 50.0),
        row("stiffness", 0.1, 0.95, 40.0),
        row("stiffness", 1.0, 0.90, 20.0),
    ]
    assert chosen(rows, RECIPES, ACCURACY)[1]["factor"] == 0.1


def losses(score: Score, vanilla: float, *tried: float) -> list[dict[str, Any]]:
    """Rows of a score that should be low, each cheaper than the one before."""
    values = [("vanilla", vanilla), *[("error", value) for value in tried]]
    return [
        {"recipe": name, "factor": float(i), "validation": {score.name: [value], "nfe": [50.0 - i]}}
        for i, (name, value) in enumerate(values)
    ]


def test_a_loss_may_rise_by_its_share() -> None:
    assert chosen(losses(MSE, 4.0, 3.9, 4.079, 4.081), RECIPES, MSE)[1]["factor"] == 2.0
    assert chosen(losses(MSE, 4.0, 4.3, 4.2, 4.4), RECIPES, MSE)[1]["factor"] == 2.0


def test_nats_are_differences_and_may_be_negative() -> None:
    assert chosen(losses(NATS, -3.0, -3.1, -2.991, -2.989), RECIPES, NATS)[1]["factor"] == 2.0


def test_what_failed_or_does_not_apply_is_said_and_never_chosen() -> None:
    failed = {"recipe": "error", "factor": 10.0, "note": "failed: the step size fell below its limit"}
    never = {"recipe": "Taylor 3", "note": "not applicable: no rule for this layer"}
    rows = losses(MSE, 4.0, 4.01)
    for full in rows:
        full |= {"test": {"mse": [4.0], "nfe": [20.0], "calls": 30.0, "seconds": 1.0}, "train_seconds": 2.0}
        full |= {"settings": {"seeds": [0], "steps": 1, "batch": 1, "tolerance": 1e-5, "device": "cpu"}}
    best = chosen([*rows, failed, never], RECIPES, MSE)
    assert [r["recipe"] for r in best] == ["vanilla", "error", "Taylor 3"]
    assert best[1]["factor"] == 1.0 and best[2] == never
    assert chosen([rows[0], failed], RECIPES, MSE)[1] == failed
    drawn = result_table("a table", best, MSE)
    assert drawn.row_count == 2
    assert "Taylor 3: not applicable: no rule for this layer" in str(drawn.caption)
    with pytest.raises(ValueError, match="vanilla failed"):
        chosen([{"recipe": "vanilla", "note": "failed: x"}], RECIPES, MSE)


def test_recipes_have_names_of_their_own_and_vanilla_comes_first() -> None:
    names = [recipe.name for recipe in RECIPES]
    assert len(set(names)) == len(names)
    assert RECIPES[0].kind == "vanilla"
    assert not RECIPES[0].regularize
