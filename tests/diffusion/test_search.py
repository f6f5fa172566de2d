"""Search for recipes: never worse than named samplers, better on unseen noise, seeded, and the same after a stop."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from sciode.diffusion import ModelStatistics, Recipe, Step, VPLinear, estimate_ems, sample
from sciode.diffusion.samplers.recipe import KINDS
from sciode.diffusion.search import Found, Search, paired_error, search
from sciode.diffusion.search.predictor import Predictor
from sciode.diffusion.search.space import Space

SMALL = Search(stages=4, population=12, pool=8, parents=6)
PLAIN = ("noise", "data")
SCHEDULE = VPLinear()


def _aim(recipe: Recipe) -> float:
    """Lowest for a certain time, relaxation and kind: cheap, and known."""
    wrong = abs(recipe.times[1] - 0.7) + abs(recipe.steps[1].relax - 0.15) + sum(s.kind != "data" for s in recipe.steps)
    return 1e-3 + wrong


def _cheap(seed: int = 0, file: Path | None = None, objective=_aim) -> Found:
    return search(objective, SCHEDULE, 3, kinds=PLAIN, settings=SMALL, seed=seed, file=file)


def test_any_callable_is_an_objective_and_its_minimum_is_approached() -> None:
    found = search(_aim, SCHEDULE, 3, kinds=PLAIN, settings=Search(stages=12, population=25, pool=10, parents=6))
    begun = min(score for _, score in found.tried[:60])
    assert found.score == _aim(found.recipe) == min(score for _, score in found.tried)
    assert found.score < 0.1 * begun and all(step.kind == "data" for step in found.recipe.steps)


def test_a_seed_is_a_search() -> None:
    one, again, other = _cheap(0), _cheap(0), _cheap(1)
    assert one.tried == again.tried and one.tried != other.tried


def test_a_search_that_was_cut_off_goes_on_to_the_same_result(tmp_path: Path) -> None:
    calls = 0

    def failing(recipe: Recipe) -> float:
        nonlocal calls
        calls += 1
        if calls > 75:
            raise KeyboardInterrupt
        return _aim(recipe)

    file = tmp_path / "search.jsonl"
    with pytest.raises(KeyboardInterrupt):
        _cheap(file=file, objective=failing)
    # The machine stopped in the middle of a line.
    with file.open("a") as out:
        out.write('{"score": 0.1, "rec')
    calls = -1000
    found, whole = _cheap(file=file, objective=failing), _cheap()
    assert found.tried == whole.tried and found.recipe == whole.recipe
    assert calls + 1000 == len(whole.tried) - 75
    with pytest.raises(ValueError, match="another search"):
        _cheap(seed=1, file=file)


def test_infinite_scores_are_kept_and_come_back(tmp_path: Path) -> None:
    def sometimes(recipe: Recipe) -> float:
        return math.inf if recipe.steps[0].kind == "noise" else _aim(recipe)

    file = tmp_path / "search.jsonl"
    one = _cheap(file=file, objective=sometimes)
    assert any(math.isinf(score) for _, score in one.tried) and math.isfinite(one.score)
    assert _cheap(file=file, objective=sometimes).tried == one.tried
    assert "Infinity" not in file.read_text() and json.loads(file.read_text().splitlines()[1])


def test_the_predictor_interpolates_smooth_functions_and_knows_its_error() -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform(-1, 1, (200, 3))
    values = np.sin(2 * places[:, 0]) + places[:, 1] * places[:, 2]
    fit = Predictor.fitted(places[:120], values[:120])
    error = np.sqrt(np.mean((fit(places[120:]) - values[120:]) ** 2))
    assert error < 0.1 * values.std() and 0.3 < fit.left_out / error < 3


def test_the_predictor_ranks_recipes_it_has_not_seen(case) -> None:
    """By chance alone a rank correlation like this comes once in a thousand times."""
    space, rng = Space(SCHEDULE, 5, 1.0, 1e-3, PLAIN), np.random.default_rng(0)
    recipes = [space.random(rng) for _ in range(240)]
    score = paired_error(case.model, case.x, SCHEDULE, reference=case.exact)
    logs = np.log([score(recipe) for recipe in recipes])
    guess = Predictor.fitted(space.features(recipes[:160]), logs[:160])(space.features(recipes[160:]))
    result: Any = spearmanr(guess, logs[160:], alternative="greater")
    assert result.pvalue < 1e-3


def test_recipes_of_the_space_are_sound() -> None:
    """Right number of evaluations, ends kept, log-SNR rising with a least step; features of one length."""
    space, rng = Space(SCHEDULE, 4, 0.9, 1e-3, mean=[0.1, 0.2]), np.random.default_rng(0)
    recipes = space.known()
    for _ in range(60):
        one, other = (recipes[i] for i in rng.integers(len(recipes), size=2))
        recipes += [space.random(rng), space.mutated(one, rng), space.crossed(one, other, rng)]
        # Even where times are thrown about far beyond the ends.
        recipes.append(space.mutated(one, rng, narrow=20.0, decide=False))
        assert [(s.kind, s.nodes) for s in recipes[-1].steps] == [(s.kind, s.nodes) for s in one.steps]
    assert len({len(row) for row in space.features(recipes)}) == 1
    for recipe in recipes:
        assert recipe.evaluations == 4 and (recipe.times[0], recipe.times[-1]) == (0.9, 1e-3)
        lams = SCHEDULE.half_log_snr(torch.tensor(recipe.times, dtype=torch.float64))
        assert float(lams.diff().min()) > 0.01 * float(lams[-1] - lams[0])
        assert Recipe.from_json(recipe.to_json()) == recipe


def _ratio(case, seed: int, settings: Search, kinds: tuple[str, ...] = KINDS) -> float:
    """The error at five evaluations on unseen noise over that of the best of v3 and UniPC on seven grids."""
    ems = estimate_ems(case.model, case.mixture.draw(256, seed=7), SCHEDULE, points=32, degree=12)
    starts = [torch.randn(256, 3, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (10, 20)]
    ends = [case.mixture.end_of_ode(x, SCHEDULE, 1.0, 1e-3, 1e-9) for x in starts]
    seen, unseen = (
        paired_error(case.model, x, SCHEDULE, reference=y, ems=ems) for x, y in zip(starts, ends, strict=True)
    )
    mean = case.mixture.moments()[0].tolist()
    found = search(seen, SCHEDULE, 5, mean=mean, settings=settings, seed=seed, kinds=kinds)
    rivals = []
    for name in ("dpm-v3", "unipc-3", "unipc-2", "unipc-asinh-2"):
        for grid in ("uniform", "quadratic", "log-snr", "middle", "karras", "beta", "trailing"):
            more: dict[str, Any] = {"ems": ems} if name == "dpm-v3" else {}
            x = sample(case.model, starts[1], SCHEDULE, sampler=name, grid=grid, nfe=5, **more)
            rivals.append(float((x - ends[1]).square().mean().sqrt()))
    return unseen(found.recipe) / min(rivals)


def test_five_evaluations_by_a_short_search_beat_the_best_named_sampler_on_unseen_noise(case) -> None:
    assert _ratio(case, 0, Search(stages=3, population=25, pool=8), ("ems",)) <= 0.8


@pytest.mark.slow
def test_so_they_do_on_three_mixtures(cases) -> None:
    for seed, one in enumerate(cases):
        assert _ratio(one, seed, Search()) <= 0.8


def test_misuse_says_the_mend() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Search(stages=0)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"schedule": "vp-linear"}, "pass a schedule"), ({"nfe": 2.5}, "whole number"),
        ({"settings": {"stages": 1}}, "pass Search"),
    ]  # fmt: skip
    for options, said in wrong:
        with pytest.raises(ValueError, match=said):
            search(_aim, **({"schedule": SCHEDULE, "nfe": 2} | options))
    with pytest.raises(ValueError, match="shape of x"):
        paired_error(lambda x, t: x, torch.zeros(2, 3), SCHEDULE, reference=torch.zeros(2, 4))


def test_the_mean_may_be_a_tensor_and_the_file_a_name(tmp_path: Path) -> None:
    tiny = Search(stages=1, population=2, pool=2, parents=1)
    given: dict[str, Any] = {"kinds": ("data",), "settings": tiny}
    file: Any = str(tmp_path / "scores.jsonl")
    found = search(_aim, SCHEDULE, 2, mean=torch.zeros(2), file=file, **given)
    assert found.tried == search(_aim, SCHEDULE, 2, mean=[0.0, 0.0], **given).tried


def test_a_recipe_whose_statistics_overflow_scores_infinity_and_stops_nothing() -> None:
    wild = ModelStatistics.constant(-6.0, 6.0, l=0.0, s=-1e4)
    score = paired_error(lambda x, t: x, torch.ones(2, 3), SCHEDULE, reference=torch.ones(2, 3), ems=wild)
    assert score(Recipe((1.0, 0.5, 1e-3), (Step("ems", 1), Step("ems", 2)))) == math.inf
    without = paired_error(lambda x, t: x, torch.ones(2, 3), SCHEDULE, reference=torch.ones(2, 3))
    with pytest.raises(ValueError, match="ems"):
        without(Recipe((1.0, 1e-3), (Step("ems", 1),)))
