"""Bandits: which set of conditions to train a task with, at each stage of the training, learnt from the tasks before.

A task comes with a context (its parameters). At stage k = 1 .. S the agent has seen the context and the rewards r_1 ..
r_(k-1) of the stages before, and chooses an arm. A Gaussian process for each stage predicts

    mean over j >= k of discount^(j - k) r_j    from    r_1 .. r_(k-1), context, a_1 .. a_k.

One stage is the single agent of Li, Penwarden, Xu, Tillinghast, Narayan, Kirby, Zhe: METALIC (ICML 2023), two are their
sequential one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

import torch
from torch import Generator, Tensor

from sciode.pinn.metalic.acquisition import RULES
from sciode.solvers.suggest import choose
from sciode.training import append_json, derive_seed, read_json_lines

if TYPE_CHECKING:
    from sciode.pinn.metalic.surrogate import Layout, Surrogate

__all__ = ["Bandit", "Play", "Trained", "learn", "returns"]

_FILE, _CHOICE = "plays.jsonl", 31

Reward = Callable[[int, tuple[int, ...]], float]


@dataclass(frozen=True)
class Bandit:
    """How an agent learns.

    rule: "ucb" (mean + constant sigma), "thompson" (one joint draw) or "marginal" (the authors' largest of 20 draws an
    arm). kernel: "additive" (conditions have weights; effects in all tasks and in like ones), "hamming" (in like ones
    alone) or "agreement" (the authors'), see `sciode.pinn.metalic.surrogate`. stages: how often an arm is chosen in a
    task. warm_up: plays of random arms at first. discount: of later stages' rewards. refit: plays between fits of the
    process' own numbers (the authors' 1 is the dearest); every play is conditioned on at once. precision: concentration
    and rate of the Gamma prior of 1 / noise; the authors' (100, 1) says that rewards scatter by 0.1 decades, (1, 0.01)
    leaves it to the rewards.

    Raises ValueError for an unknown rule or kernel, or numbers out of range.
    """

    rule: str = "ucb"
    kernel: str = "additive"
    stages: int = 1
    constant: float = 1.0
    warm_up: int = 5
    discount: float = 0.9
    refit: int = 1
    precision: tuple[float, float] = (100.0, 1.0)

    def __post_init__(self) -> None:
        choose("rule", self.rule, RULES)
        choose("kernel", self.kernel, ("additive", "hamming", "agreement"))
        if min(self.stages, self.warm_up, self.refit) < 1 or not self.constant >= 0 or not 0 < self.discount <= 1:
            raise ValueError(f"stages, warm_up, refit >= 1, constant >= 0 and 0 < discount <= 1 are needed, got {self}")
        if len(self.precision) != 2 or not all(0 < value < math.inf for value in self.precision):
            raise ValueError(f"precision must be a positive concentration and rate, got {self.precision}")


class Play(NamedTuple):
    """What happened in a task: its context, and each stage's arm and reward."""

    context: tuple[float, ...]
    arms: tuple[int, ...]
    rewards: tuple[float, ...]


def returns(rewards: Sequence[float], stage: int, discount: float) -> float:
    """Return mean over j >= stage of discount^(j - stage) r_j: what a stage's process predicts."""
    left = rewards[stage:]
    return sum(discount**k * value for k, value in enumerate(left)) / len(left)


def learn(
    bandit: Bandit,
    contexts: Tensor,
    arms: Tensor,
    reward: Reward,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
) -> list[Play]:
    """Play one task after another, and return what happened.

    Parameters
    ----------
    contexts: of the tasks in order [N, d], standardised, float64: N is the budget. arms: sets of conditions [A, c],
        entries 0 or 1; leave out columns in which no two differ. reward: (number of the task, arms of its stages so
        far) -> the reward after the last of them.
    seed: of everything that is drawn; what a play draws is a function of the seed and its number alone.
    folder: where plays are kept, a line each; the same call goes on from there, to the same plays.

    Raises ValueError for shapes that do not fit, a folder of another agent's plays or tasks, or a reward that is not
    finite, which is not kept.
    """
    _check(contexts, arms)
    path = None if folder is None else Path(folder) / _FILE
    said = json.loads(json.dumps(asdict(bandit)))
    identity = {**said, "seed": seed, "arms": _digest(arms), "tasks": _digest(contexts[:1])}
    plays = [] if path is None else _kept(path, identity, contexts)[: len(contexts)]
    agent = Trained(bandit, arms, tuple(plays))
    for number in range(len(plays), len(contexts)):
        generator = torch.Generator().manual_seed(derive_seed(seed, _CHOICE, number))
        chosen: tuple[int, ...] = ()
        found: tuple[float, ...] = ()
        for _ in range(bandit.stages):
            if number < bandit.warm_up:
                arm = int(torch.randint(len(arms), (), generator=generator))
            else:
                arm = agent.choose(contexts[number], chosen, found, generator)
            chosen = (*chosen, arm)
            value = float(reward(number, chosen))
            if not math.isfinite(value):
                raise ValueError(
                    f"reward of task {number}, arms {chosen}: {value}; `reward_of` gives failures a number"
                )
            found = (*found, value)
        play = Play(tuple(contexts[number].tolist()), chosen, found)
        agent = agent.after(play)
        if path is not None:
            append_json(path, play._asdict())
    return list(agent.plays)


@final
class Trained:
    """An agent that has made some plays. Its processes are fitted when they are first asked."""

    def __init__(self, bandit: Bandit, arms: Tensor, plays: Sequence[Play]) -> None:
        self.bandit, self.arms, self.plays = bandit, arms, tuple(plays)
        self._fits: dict[int, Surrogate] = {}
        self._older: Mapping[int, Surrogate] = {}

    def after(self, play: Play) -> Trained:
        """Return the agent with one play more."""
        found = Trained(self.bandit, self.arms, (*self.plays, play))
        found._older = {**self._older, **self._fits}
        return found

    def choose(
        self,
        context: Tensor,
        chosen: Sequence[int] = (),
        rewards: Sequence[float] = (),
        generator: Generator | None = None,
    ) -> int:
        """Return the arm of the next stage of a task with this context [d].

        chosen, rewards: of its stages so far. generator: for the rule's draws; None: the arm of the largest mean, from
        which nothing is learnt.
        """
        mean, covariance = self.predict(context, chosen, rewards)
        rule = RULES["greedy" if generator is None else self.bandit.rule]
        return rule(mean, covariance, self.bandit.constant, generator or torch.Generator())

    def predict(
        self, context: Tensor, chosen: Sequence[int] = (), rewards: Sequence[float] = ()
    ) -> tuple[Tensor, Tensor]:
        """Return mean [A] and covariance [A, A] of what each arm returns in the next stage, see `returns`."""
        if len(chosen) != len(rewards) or len(chosen) >= self.bandit.stages:
            raise ValueError(
                f"give an arm and a reward for each of fewer than {self.bandit.stages} stages that are over"
            )
        before = torch.cat((context.new_tensor(rewards), context, self.arms[list(chosen)].flatten()))
        rows = torch.cat((before.expand(len(self.arms), -1), self.arms), 1)
        return self.process(len(chosen)).joint(rows)

    def effects(
        self, context: Tensor, chosen: Sequence[int] = (), rewards: Sequence[float] = ()
    ) -> tuple[Tensor, Tensor]:
        """Return mean [c] and standard deviation [c] of what each condition adds to the next stage's return.

        The mean over arms with it less the mean over arms without: a linear function of the process, so that its
        posterior is exact. Raises ValueError for a condition that all arms have, or none.
        """
        count = self.arms.sum(0)
        if not bool(((count > 0) & (count < len(self.arms))).all()):
            raise ValueError("arms: leave out conditions in which no two arms differ")
        mean, covariance = self.predict(context, chosen, rewards)
        contrast = (self.arms / count - (1 - self.arms) / (len(self.arms) - count)).T
        return contrast @ mean, (contrast @ covariance @ contrast.T).diagonal().clamp(min=0.0).sqrt()

    def process(self, stage: int = 0) -> Surrogate:
        """Return the Gaussian process of a stage. Raises ValueError before the first play."""
        if not self.plays:
            raise ValueError("an agent that has not played knows nothing: learn first")
        if stage not in self._fits:
            from sciode.pinn.metalic.surrogate import fitted

            inputs, targets, layout = self._seen(stage)
            # What is fitted to is a function of the number of plays alone, so that an agent taken up again is the same.
            seen = len(targets) - len(targets) % self.bandit.refit or len(targets)
            old = self._older.get(stage)
            if old is None or old.seen != seen:
                own = self.bandit
                old = fitted(inputs[:seen], targets[:seen], layout, own.kernel, own.precision)
            self._fits[stage] = old.given(inputs, targets)
        return self._fits[stage]

    def _seen(self, stage: int) -> tuple[Tensor, Tensor, Layout]:
        from sciode.pinn.metalic.surrogate import Layout

        def numbers(values: Any) -> Tensor:
            return torch.tensor(values, dtype=torch.float64)

        plays = self.plays
        sets = self.arms[torch.tensor([play.arms[: stage + 1] for play in plays])].flatten(1)
        earlier = numbers([play.rewards[:stage] for play in plays]).reshape(len(plays), stage)
        inputs = torch.cat((earlier, numbers([play.context for play in plays]), sets), 1)
        targets = numbers([returns(play.rewards, stage, self.bandit.discount) for play in plays])
        return inputs, targets, Layout(stage, len(plays[0].context), self.arms.shape[1])


def _check(contexts: Tensor, arms: Tensor) -> None:
    for name, value in (("contexts", contexts), ("arms", arms)):
        if value.ndim != 2 or not len(value) or value.dtype != torch.float64 or not bool(value.isfinite().all()):
            raise ValueError(f"{name} must be finite float64 of two axes, got {value.dtype} {tuple(value.shape)}")
    if not bool(((arms == 0) | (arms == 1)).all()):
        raise ValueError("arms must be sets of conditions: entries 0 or 1")


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()[:16]


def _kept(path: Path, identity: dict[str, Any], contexts: Tensor) -> list[Play]:
    """The plays of a folder, which begins to be this agent's if it is nobody's."""
    lines = read_json_lines(path)
    if not lines:
        append_json(path, identity)
        return []
    if differs := [name for name, value in identity.items() if lines[0].get(name) != value]:
        raise ValueError(f"folder: {path} holds plays of an agent that differs in {', '.join(differs)}: give another")
    plays = [Play(tuple(line["context"]), tuple(line["arms"]), tuple(line["rewards"])) for line in lines[1:]]
    for number, (play, context) in enumerate(zip(plays, contexts.tolist(), strict=False)):
        if list(play.context) != context:
            raise ValueError(f"folder: {path} holds plays of other tasks from number {number} on: give another folder")
    return plays
