"""Arms, tasks and what arms are worth: counts, supervision, plans of stages, failures."""

from __future__ import annotations

import math

import pytest
import torch

from sciode.pinn import CONDITIONS, CPINN, FAMILIES, XPINN, Network, Numbers, solve, weights_of
from sciode.pinn.metalic.arms import arms_of, place_of, said, varied
from sciode.pinn.metalic.rewards import Budget, reward_of, rewards, single_reward
from sciode.pinn.metalic.tasks import Task, draw_tasks
from sciode.training import LBFGS, Adam

SMALL = Budget((Adam(15, lr=1e-2), LBFGS(4)), Network(5, 1), Numbers(24, 12, 6))
THREE = ("average", "flux", "tangential derivative")


def test_512_sets_of_which_384_differ_in_more_than_a_factor() -> None:
    every, distinct = arms_of(redundant=True), arms_of()
    assert len(every) == 512 and len(every.unique(dim=0)) == 512
    twins = [list(CONDITIONS).index(name) for name in ("value", "average")]
    assert len(distinct) == 384 and not bool(distinct[:, twins].all(1).any())
    assert varied(distinct) == tuple(CONDITIONS)


def test_arms_are_found_by_what_they_hold() -> None:
    arms = arms_of(("flux", "average", "residual continuity"))
    assert len(arms) == 8 and said(arms[0]) == "none"
    for preset in (XPINN, CPINN):
        assert torch.equal(arms[place_of(arms, preset)], weights_of([preset])[0])
    with pytest.raises(ValueError, match="the arms vary"):
        place_of(arms, ("residual",))
    with pytest.raises(ValueError, match="give some"):
        arms_of(())


@pytest.mark.parametrize("family", FAMILIES)
def test_only_official_supervision_tells_the_last_time(family: str) -> None:
    """Of the leak: exact values at the last time, where time-dependent problems are asked."""
    told = {}
    for official in (False, True):
        problem = draw_tasks(family, 1, 0, 0.5, official_supervision=official)[0].problem()
        told[official] = {one.name for one in problem.conditions}
    assert "final" not in told[False]
    assert told[True] - told[False] == ({"final"} if family != "poisson" else set())


def test_values_at_the_last_time_change_what_is_trained() -> None:
    arms = arms_of(THREE)[-1:]
    plain, official = (rewards(Task("advection", (3.0,), official), arms, SMALL) for official in (False, True))
    assert not torch.equal(plain, official)


def test_tasks_lie_in_their_range_and_contexts_are_standardised() -> None:
    tasks = draw_tasks("advection", 4000, 1)
    values = torch.tensor([task.values[0] for task in tasks])
    assert 1 <= float(values.min()) < 1.1 and 29.9 < float(values.max()) <= 30
    contexts = torch.stack([task.context for task in tasks])[:, 0]
    # Of a uniform distribution of variance 1 and kurtosis 1.8.
    assert abs(float(contexts.mean())) < 5 / math.sqrt(4000)
    assert abs(float(contexts.var()) - 1) < 5 * math.sqrt(0.8 / 4000)
    assert max(task.values[0] for task in draw_tasks("advection", 100, 1, share=0.1)) <= 3.9
    assert draw_tasks("heat", 2, 0)[0].context.shape == (4,)
    assert draw_tasks("reaction", 3, 5) == draw_tasks("reaction", 6, 5)[:3]


def test_failures_count_as_an_error_of_100() -> None:
    errors = torch.tensor([math.nan, math.inf, 1e5, 100.0, 1.0, 1e-3])
    torch.testing.assert_close(reward_of(errors), torch.tensor([-2.0, -2, -2, -2, 0, 3], dtype=torch.float64))


def test_the_reward_of_an_arm_is_that_of_its_own_solve() -> None:
    task, arms = Task("reaction", (2.0,)), arms_of(THREE)
    alone = Budget((Adam(15, lr=1e-2),), SMALL.network, SMALL.numbers)
    every = rewards(task, arms, alone, seed=3)
    some = rewards(task, arms, alone, torch.tensor([[5], [2]]), seed=3)
    torch.testing.assert_close(some, every[[5, 2]], rtol=1e-6, atol=1e-9)
    in_parts = rewards(task, arms, Budget(alone.stages, alone.network, alone.numbers, batch=3), seed=3)
    torch.testing.assert_close(in_parts, every, rtol=1e-6, atol=1e-9)


def test_plans_that_begin_alike_have_one_first_stage_and_the_diagonal_is_the_kept_arm() -> None:
    task, arms = Task("reaction", (2.0,)), arms_of(THREE)
    kept = rewards(task, arms, SMALL)
    found = rewards(task, arms, SMALL, torch.tensor([[4, 4], [4, 1], [1, 4], [4, 1]]))
    torch.testing.assert_close(found[0], kept[4], rtol=1e-5, atol=1e-8)
    assert torch.equal(found[1], found[3])
    assert found[1, 0] == found[0, 0] and found[1, 1] != found[0, 1]
    torch.testing.assert_close(found[2, 0], kept[1, 0], rtol=1e-5, atol=1e-8)


def test_the_single_network_costs_what_an_arm_costs() -> None:
    """By its weights: at least as many as both networks together, and with one unit less it would have fewer."""
    task = Task("reaction", (1.0,))
    found = single_reward(task, SMALL)
    assert found.shape == (2,) and bool(found.isfinite().all())
    pair, width = 2 * Network(5, 1).size(2, 1), 5
    while Network(width, 1).size(2, 1) < pair:
        width += 1
    own = solve(
        task.problem(), network=Network(width, 1), stages=[Adam(15, lr=1e-2)], numbers=Numbers(48, 24, 6), log=99
    )
    assert own.representation.size == Network(width, 1).size(2, 1) >= pair > Network(width - 1, 1).size(2, 1)


def test_a_solve_goes_on_from_the_weights_of_another() -> None:
    """Without a step that lowers anything the fields are those that were given."""
    task = Task("reaction", (2.0,))
    problem = task.problem()
    options = {"network": SMALL.network, "numbers": SMALL.numbers, "log": 99}
    first = solve(problem, task.cut(problem), stages=[Adam(15, lr=1e-2)], **options)
    again = solve(problem, task.cut(problem), stages=[Adam(1, lr=1e-30)], start=first.theta, **options)
    torch.testing.assert_close(again.theta, first.theta)
    with pytest.raises(ValueError, match="start must be"):
        solve(problem, task.cut(problem), start=first.theta[:, 1:], **options)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Task("advektion", (1.0,)), "advection"),
        (lambda: Task("heat", (1.0,)), "4 parameters"),
        (lambda: draw_tasks("heat", 0, 0), "at least one"),
        (lambda: rewards(Task("reaction", (1.0,)), arms_of(THREE), SMALL, torch.tensor([[9, 0]])), "plans"),
    ],
)
def test_misuse_says_the_mend(make, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
