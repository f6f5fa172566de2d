"""METALIC: agents that learn which interface conditions to train with, beside fixed sets, simple rules and the oracle.

    sciode train metalic --device cuda
    sciode train metalic --set 'families=["poisson"]' networks=[0] train=10 test=10 adam=500 lbfgs=100

All arms of every task are trained, in one batch (`metalic_rewards.py`), so that the best arm and the regret are exact:
agents play on the table of rewards. "best fixed arm" and "nearest task" are told all rewards of all training tasks,
agents those of their plays alone. Rewards are decades: -log10 of the relative L2 error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciode.experiments.ledger import finished_rows, named, stamped, write_table
from sciode.experiments.metalic_rewards import Known, Table, known_rewards
from sciode.experiments.metalic_tables import draw_figures, summary, tell
from sciode.pinn import CONDITIONS
from sciode.pinn.metalic.arms import varied
from sciode.pinn.metalic.bandit import Bandit, Trained, learn
from sciode.training import choose_device, derive_seed, threads

__all__ = ["LINES", "Settings", "main"]

LINES: dict[str, Bandit] = {
    "UCB": Bandit("ucb"),
    "Thompson": Bandit("thompson"),
    "Thompson, authors'": Bandit("marginal", kernel="agreement"),
    "UCB, product": Bandit("ucb", kernel="hamming"),
    "sequential UCB": Bandit("ucb", stages=2),
    "sequential Thompson": Bandit("thompson", stages=2),
}
"""Agents by the name that the table gives them."""

_TASKS, _AGENT = 23, 24


@dataclass(frozen=True)
class Settings(Table):
    """`Table`, and lines: names in `LINES`; seeds: of agents; plays: tasks that each plays, drawn from the training
    ones; refit, warm_up, constant: see `Bandit`.
    """

    lines: tuple[str, ...] = tuple(LINES)
    seeds: tuple[int, ...] = (0, 1, 2)
    plays: int = 200
    refit: int = 5
    warm_up: int = 5
    constant: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        named("lines", self.lines, LINES)
        if min(self.plays, len(self.lines), len(self.seeds)) < 1:
            raise ValueError("settings: plays and numbers of lines and seeds must be at least 1")
        _ = [self.bandit(line) for line in self.lines]

    def bandit(self, line: str) -> Bandit:
        """The agent of a line."""
        return replace(LINES[line], refit=self.refit, warm_up=self.warm_up, constant=self.constant)

    def pool(self, line: str) -> Tensor:
        """A line's arms, [A, c] over the conditions in which they differ."""
        arms = self.arms if LINES[line].stages == 1 else self.arms[self.paired]
        return arms[:, [list(CONDITIONS).index(name) for name in varied(arms)]]


def played(settings: Settings, known: Mapping[Any, Known], **key: Any) -> dict[str, Any]:
    """One row: an agent's regret after each play, what it does on unseen tasks, and what it holds to matter."""
    family, network, line, seed = (key[name] for name in ("family", "network", "line", "seed"))
    train, test, pool = known[family, "train", network], known[family, "test", network], settings.pool(line)
    generator = torch.Generator().manual_seed(derive_seed(seed, _TASKS, network))
    order = torch.randint(len(train.contexts), (settings.plays,), generator=generator)
    menu = settings.paired

    def reward(number: int, chosen: tuple[int, ...]) -> float:
        return _reward(train, menu, int(order[number]), chosen, len(chosen) == bandit.stages, bandit.stages)

    bandit = settings.bandit(line)
    with threads(1):
        plays = learn(bandit, train.contexts[order], pool, reward, seed=derive_seed(seed, _AGENT, network) % 2**31)
        agent = Trained(bandit, pool, plays)
        best = (train.arms[..., -1] if bandit.stages == 1 else train.pairs.flatten(1)).amax(1)[order]
        regret = best - torch.tensor([play.rewards[-1] for play in plays], dtype=torch.float64)
        tests = [_tested(agent, test, menu, task) for task in range(len(test.contexts))]
        effects = agent.effects(train.contexts.mean(0))
    return {
        "regret": _rounded(regret.cumsum(0)),
        "chosen": [arms for arms, _ in tests],
        "rewards": [value for _, value in tests],
        "weights": _rounded(agent.process().weights),
        "effects": [_rounded(part) for part in effects],
        "noise": agent.process().noise,
    }


def _reward(known: Known, menu: Tensor, task: int, chosen: tuple[int, ...], last: bool, stages: int) -> float:
    """After the last of the arms chosen so far."""
    if stages == 1:
        return float(known.arms[task, chosen[0], -1])
    return float(known.pairs[task, chosen[0], chosen[1]] if last else known.arms[task, menu[chosen[0]], 0])


def _tested(agent: Trained, known: Known, menu: Tensor, task: int) -> tuple[list[int], float]:
    """The arms that an agent holds to be the best for an unseen task, stage by stage, and the reward at the end."""
    chosen: tuple[int, ...] = ()
    found: tuple[float, ...] = ()
    stages, value = agent.bandit.stages, math.nan
    for stage in range(stages):
        chosen = (*chosen, agent.choose(known.contexts[task], chosen, found))
        value = _reward(known, menu, task, chosen, stage == stages - 1, stages)
        found = (*found, value)
    return list(chosen), value


def _rounded(values: Tensor) -> Any:
    return torch.round(values, decimals=4).tolist()


def main(out: Path, device: str = "auto", **changes: Any) -> int:
    """Make the table in the folder `out`: rows.jsonl of rewards, agents/rows.jsonl (both resume), table.json, figures.

    device: as for `sciode.training.choose_device`, of the rewards; agents play on the CPU. changes: fields of
    `Settings`. Returns 0.
    """
    out = Path(out)
    settings = Settings(**{**changes, "device": str(choose_device(device))})
    known = known_rewards(settings, out)
    keys = [
        {"family": family, "network": network, "line": line, "seed": seed}
        for family in settings.families
        for network in settings.networks
        for line in settings.lines
        for seed in settings.seeds
    ]
    stamp = stamped(settings, "families", "networks", "lines", "seeds", "batch", "engine")
    rows = finished_rows(out / "agents", keys, stamp, partial(played, settings, known))
    found = summary(settings, known, rows)
    kept = {"settings": settings, "summary": found, "agents": [_without(row) for row in rows]}
    numbers = write_table(out, kept)
    tell(settings, found)
    draw_figures(settings, known, rows, out)
    print(f"numbers: {numbers}\nfigures: {out / 'regret.png'}, {out / 'conditions.png'}, {out / 'arms.png'}")
    return 0


def _without(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "settings"}
