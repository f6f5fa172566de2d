"""Bandits on rewards whose structure is known: regret, stages, resuming, what conditions add."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sciode.pinn.metalic.bandit import Bandit, Play, Trained, learn, returns

REAL = torch.float64
ARMS = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=REAL)
PLAYS = 40


def tasks(count: int = PLAYS) -> Tensor:
    return torch.randn(count, 1, generator=torch.Generator().manual_seed(7), dtype=REAL)


def truth(context: Tensor) -> Tensor:
    """Of every arm: the first condition helps, the second harms, the third helps where the context is positive."""
    return ARMS[:, 0] - 0.5 * ARMS[:, 1] + 0.8 * float(context) * ARMS[:, 2]


def lost(plays: list[Play]) -> Tensor:
    """Regret of each play."""
    every = [truth(torch.tensor(play.context)) for play in plays]
    return torch.stack([one.max() - one[play.arms[-1]] for one, play in zip(every, plays, strict=True)])


@pytest.mark.parametrize(
    "bandit",
    [Bandit("ucb"), Bandit("thompson"), Bandit("ucb", "hamming"), Bandit("marginal", "agreement")],
    ids=lambda one: f"{one.rule}-{one.kernel}",
)
def test_regret_is_sublinear_and_below_that_of_random_arms(bandit: Bandit) -> None:
    bandit = Bandit(bandit.rule, bandit.kernel, refit=10)
    contexts = tasks()
    noise = 0.05 * torch.randn(PLAYS, generator=torch.Generator().manual_seed(8), dtype=REAL)

    def reward(number: int, chosen: tuple[int, ...]) -> float:
        return float(truth(contexts[number])[chosen[-1]] + noise[number])

    regret = lost(learn(bandit, contexts, ARMS, reward, seed=1))
    random = torch.stack([truth(one).max() - truth(one).mean() for one in contexts])
    assert float(regret.sum()) < 0.6 * float(random.sum())
    assert float(regret[PLAYS // 2 :].sum()) < 0.2 * float(random[PLAYS // 2 :].sum())
    assert float(regret[PLAYS // 2 :].sum()) < 0.5 * float(regret[: PLAYS // 2].sum())


def test_greedy_choices_on_unseen_tasks_follow_the_context() -> None:
    contexts = tasks()
    plays = learn(
        Bandit("thompson", refit=10), contexts, ARMS, lambda n, chosen: float(truth(contexts[n])[chosen[-1]]), seed=2
    )
    agent = Trained(Bandit("thompson", refit=10), ARMS, plays)
    for context in (-1.5, 1.5):
        arm = ARMS[agent.choose(torch.tensor([context], dtype=REAL))]
        assert arm[0] == 1 and arm[1] == 0 and arm[2] == float(context > 0)


def test_the_first_stage_is_chosen_for_what_it_makes_possible_later() -> None:
    """The first condition pays a little at once, the second makes the later reward of 2 possible."""
    pool = torch.tensor(list(itertools.product((0.0, 1.0), repeat=2)), dtype=REAL)

    def reward(number: int, chosen: tuple[int, ...]) -> float:
        first = pool[chosen[0]]
        if len(chosen) == 1:
            return float(0.2 * (first[0] - first[1]))
        return float(2 * first[1] * pool[chosen[1], 0] - 0.5 * pool[chosen[1], 1])

    bandit = Bandit("ucb", stages=2, refit=10)
    plays = learn(bandit, tasks(20), pool, reward, seed=0)
    agent, context = Trained(bandit, pool, plays), torch.zeros(1, dtype=REAL)
    first = agent.choose(context)
    second = agent.choose(context, (first,), (reward(0, (first,)),))
    assert pool[first, 1] == 1
    assert pool[second].tolist() == [1.0, 0.0]


def test_returns_are_discounted_means_of_what_is_left() -> None:
    assert returns([3.0], 0, 0.9) == 3.0
    assert returns([1.0, 2.0], 0, 0.9) == pytest.approx((1 + 0.9 * 2) / 2)
    assert returns([1.0, 2.0], 1, 0.9) == 2.0
    assert returns([1.0, 2.0, 4.0], 0, 0.5) == pytest.approx((1 + 1 + 1) / 3)


class Halted(RuntimeError):
    """Stands for a machine that was switched off."""


@pytest.mark.parametrize("stages", [1, 2])
def test_an_interrupted_agent_goes_on_to_the_same_plays(tmp_path: Path, stages: int) -> None:
    bandit, contexts = Bandit("thompson", stages=stages, refit=4, warm_up=3), tasks(9)

    def reward(number: int, chosen: tuple[int, ...], end: int = 99) -> float:
        if number == end and len(chosen) == stages:
            raise Halted
        return float(truth(contexts[number])[chosen[-1]]) / len(chosen)

    whole = learn(bandit, contexts, ARMS, reward, seed=5)
    for end in (2, 7):
        with pytest.raises(Halted):
            learn(bandit, contexts, ARMS, lambda n, c, end=end: reward(n, c, end), seed=5, folder=tmp_path)
    assert learn(bandit, contexts, ARMS, reward, seed=5, folder=tmp_path) == whole
    lines = [json.loads(line) for line in (tmp_path / "plays.jsonl").read_text().splitlines()]
    assert [tuple(line["arms"]) for line in lines[1:]] == [play.arms for play in whole]
    with pytest.raises(ValueError, match="differs in seed"):
        learn(bandit, contexts, ARMS, reward, seed=6, folder=tmp_path)
    others = contexts.clone()
    others[3] += 1e-9
    with pytest.raises(ValueError, match="other tasks from number 3 on"):
        learn(bandit, others, ARMS, reward, seed=5, folder=tmp_path)


def test_a_reward_that_is_no_number_is_refused_and_leaves_the_plays_before_it(tmp_path: Path) -> None:
    """Kept, it would end every later call in the same folder."""
    bandit, contexts = Bandit(warm_up=5), tasks(4)
    with pytest.raises(ValueError, match="reward of task 2"):
        learn(bandit, contexts, ARMS, lambda n, _: math.nan if n == 2 else 0.5, folder=tmp_path)
    plays = learn(bandit, contexts, ARMS, lambda n, _: float(n), folder=tmp_path)
    assert [play.rewards[0] for play in plays] == [0.5, 0.5, 2.0, 3.0]


def test_a_larger_budget_begins_with_the_plays_of_the_smaller() -> None:
    bandit, contexts = Bandit(refit=4), tasks(11)

    def reward(number: int, chosen: tuple[int, ...]) -> float:
        return float(truth(contexts[number])[chosen[-1]])

    assert learn(bandit, contexts, ARMS, reward)[:9] == learn(bandit, contexts[:9], ARMS, reward)


def test_effects_are_what_conditions_add_on_average() -> None:
    generator = torch.Generator().manual_seed(4)
    arms = torch.randint(len(ARMS), (60,), generator=generator).tolist()
    contexts = tasks(60)
    plays = [Play((float(x),), (arm,), (float(truth(x)[arm]),)) for x, arm in zip(contexts, arms, strict=True)]
    agent = Trained(Bandit(), ARMS, plays)
    for context in (-1.0, 0.0, 1.0):
        mean, spread = agent.effects(torch.tensor([context], dtype=REAL))
        expected = torch.tensor([1.0, -0.5, 0.8 * context, 0.0], dtype=REAL)
        assert bool(((mean - expected).abs() <= 4 * spread).all()) and float(spread.max()) < 0.15
    shifted, _ = agent.predict(torch.zeros(1, dtype=REAL))
    assert int(shifted.argmax()) in (8, 9, 10, 11)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Bandit("ucbb"), "ucb"),
        (lambda: Bandit(kernel="haming"), "hamming"),
        (lambda: Bandit(warm_up=0), "warm_up"),
        (lambda: Bandit(precision=(-1.0, 1.0)), "positive concentration"),
        (lambda: learn(Bandit(), tasks(2).float(), ARMS, lambda *_: 0.0), "float64"),
        (lambda: learn(Bandit(), tasks(2), 2 * ARMS, lambda *_: 0.0), "0 or 1"),
        (lambda: Trained(Bandit(), ARMS, ()).choose(torch.zeros(1, dtype=REAL)), "learn first"),
        (lambda: Trained(Bandit(), ARMS, ()).predict(torch.zeros(1, dtype=REAL), (1,), (0.0,)), "fewer than 1"),
        (
            lambda: Trained(Bandit(), ARMS[:8], [Play((0.0,), (0,), (0.0,))]).effects(torch.zeros(1, dtype=REAL)),
            "leave out",
        ),
    ],
)
def test_misuse_says_the_mend(make, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
