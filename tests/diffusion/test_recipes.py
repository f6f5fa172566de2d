"""Recipes: named samplers are special cases, derivatives are those of polynomials, JSON keeps all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sciode.diffusion import ModelStatistics, Recipe, Step, estimate_ems, sample, sampler
from sciode.diffusion.grids import times_of
from sciode.diffusion.weights import derivative_basis, lagrange


def _times(case, steps: int, grid: str = "log-snr") -> tuple[float, ...]:
    return tuple(times_of(grid, case.schedule, steps, 1.0, 1e-3).tolist())


SAME = [
    (Step("noise", 1), "ddim"), (Step("data", 1), "ddim"), (Step("noise", 2), "dpm-2m"),
    (Step("data", 2), "dpm++-2m-taylor"), (Step("data", 3), sampler("dpm++-3m", lower_final=False)),
    (Step("noise", 3), sampler("dpm-3m", lower_final=False)),
    (Step("data", 3, corrector=4), sampler("unipc-3-vary", lower_final=False)),
    (Step("data", 2, corrector=3), sampler("unipc-2-vary", lower_final=False)),
    (Step("ems", 3, corrector=3), sampler("dpm-v3", lower_final=False)),
    (Step("ems", 3, nearest=True), sampler("dpm-v3-3", pseudo=True, lower_final=False)),
]  # fmt: skip


@pytest.fixture(scope="module")
def ems(case) -> ModelStatistics:
    return estimate_ems(case.model, case.mixture.draw(64, seed=3), case.schedule, points=24, degree=8)


@pytest.mark.parametrize(("step", "name"), SAME, ids=lambda one: getattr(one, "name", str(one)))
def test_named_samplers_are_recipes(step: Step, name: Any, case, ems) -> None:
    recipe = Recipe(_times(case, 12), (step,) * 12)
    more: dict[str, Any] = {"ems": ems} if step.kind == "ems" else {}
    found = sample(case.model, case.x, case.schedule, sampler=recipe, return_info=True, **more)
    if not isinstance(name, str):
        # dpm-v3's corrector takes f as it was at the predicted state, as ours does.
        assert name.options["lower_final"] is False
    wanted = sample(case.model, case.x, case.schedule, sampler=name, steps=12, **more)
    torch.testing.assert_close(found.x, wanted, rtol=0, atol=2e-8)
    assert found.nfe == recipe.evaluations == 12


def test_derivatives_of_all_values_are_lagranges_and_of_the_nearest_are_divided_differences() -> None:
    lams, at = [0.3, -0.2, -0.9, -1.1], np.linspace(0.3, 0.8, 5)
    for j, row in enumerate(derivative_basis(at, lams, False)):
        np.testing.assert_allclose(row, lagrange(at, lams, j), rtol=1e-10)
    # A line is known by two values, whatever the others are: both are exact for it, relaxed or not by its slope.
    values = np.array([2.0 - 3.0 * lam for lam in lams])
    for nearest in (False, True):
        for relax in (0.0, 0.25):
            found = np.tensordot(values, np.stack(derivative_basis(at, lams, nearest, relax)), 1)
            np.testing.assert_allclose(found, values[0] - 3.0 * (1 + relax) * (at - lams[0]), rtol=1e-10)


def test_kinds_mix_freely_and_keep_their_order(case, ems) -> None:
    """Every other step of another kind is still of second order."""
    errors = []
    for steps in (80, 160):
        kinds = [Step(("noise", "data", "ems")[i % 3], 2, nearest=bool(i % 2)) for i in range(steps)]
        recipe = Recipe(_times(case, steps), tuple(kinds))
        errors.append(case.error(sample(case.model, case.x, case.schedule, sampler=recipe, ems=ems)))
    assert 3.2 < errors[0] / errors[1] < 5.5


def test_the_analytic_first_value_saves_one_evaluation(case) -> None:
    """Where data are that mean and nothing else, it is no approximation."""
    mean = [0.5, -0.2, 1.0]
    point = torch.tensor([mean], dtype=torch.float64)
    steps = (Step("data", 2), Step("noise", 3), Step("data", 2, corrector=2), Step("data", 1))

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (x - case.schedule.alpha(t)[:, None] * point) / case.schedule.sigma(t)[:, None]

    times = _times(case, 4)
    plain = sample(model, case.x, case.schedule, sampler=Recipe(times, steps), return_info=True)
    short = sample(model, case.x, case.schedule, sampler=Recipe(times, steps, mean), return_info=True)
    torch.testing.assert_close(short.x, plain.x, rtol=0, atol=1e-9)
    assert (plain.nfe, short.nfe) == (4, 3)


def test_a_recipe_is_its_json(tmp_path: Path, case) -> None:
    recipe = Recipe(_times(case, 2), (Step("noise", 1, relax=0.1), Step("ems", 3, True, -0.2, 2)), [0.0, 1.0])
    recipe.save(tmp_path / "found.json")
    assert Recipe.load(tmp_path / "found.json") == recipe
    with pytest.raises(ValueError, match=r"Recipe\.to_json"):
        Recipe.from_json('{"times": [1, 0]}')


def test_misuse_says_the_mend(case) -> None:
    recipe = Recipe(_times(case, 3), (Step("ems"),) * 3)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "estimate_ems"), ({"grid": "karras"}, "times of its own"), ({"steps": 5}, "make 3 steps"),
    ]  # fmt: skip
    for options, said in wrong:
        with pytest.raises(ValueError, match=said):
            sample(case.model, case.x, case.schedule, sampler=recipe, **options)
    with pytest.raises(ValueError, match="one time more"):
        Recipe((1.0, 0.5), (Step(), Step()))
    with pytest.raises(ValueError, match="expected nodes"):
        Step(nodes=5)
    with pytest.raises(ValueError, match="expected one of"):
        Step("flow")
