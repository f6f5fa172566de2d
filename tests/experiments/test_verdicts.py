"""Validation chooses the strength; the test part has no say."""

from __future__ import annotations

from typing import Any

from sciode.experiments.recipes import RECIPES
from sciode.experiments.verdicts import chosen


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
    assert [(r["recipe"], r["factor"]) for r in chosen(rows)] == [("vanilla", 1.0), ("error", 1.0)]


def test_where_all_lose_more_the_most_accurate_is_chosen() -> None:
    rows = [
        row("vanilla", 1.0, 0.97, 50.0),
        row("stiffness", 0.1, 0.95, 40.0),
        row("stiffness", 1.0, 0.90, 20.0),
    ]
    assert chosen(rows)[1]["factor"] == 0.1


def test_recipes_have_names_of_their_own_and_vanilla_comes_first() -> None:
    names = [recipe.name for recipe in RECIPES]
    assert len(set(names)) == len(names)
    assert RECIPES[0].kind == "vanilla"
    assert not RECIPES[0].regularize
