"""The rewards behind the table of METALIC: all arms of a task, pairs of arms over two stages, and one network, a row.

Rows are made by `ledger.finished_rows`, one a task, so that an interrupted table goes on with the next task.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciode.experiments.ledger import finished_rows
from sciode.pinn import CONDITIONS, FAMILIES, Network, Numbers
from sciode.pinn.metalic.arms import arms_of
from sciode.pinn.metalic.rewards import Budget, rewards, single_reward
from sciode.pinn.metalic.tasks import Task, draw_tasks
from sciode.solvers.suggest import choose
from sciode.training import LBFGS, Adam, derive_seed, isolated_rng, threads

__all__ = ["PARTS", "Known", "Table", "known_rewards"]

PARTS = ("train", "test")
_DIGITS = 4
_TASKS, _NETWORKS = 21, 22
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Table:
    """What rewards are measured of.

    families: names in `FAMILIES`. conditions: those that arms have or leave out; menu: those of arms that sequential
    agents pair. train, test: tasks of a family that agents play, and that they never see. networks: seeds of initial
    weights; each has a table of its own. shares: how much of a family's range of parameters is drawn from, 1 by
    default. adam, lr, lbfgs: both stages; width, hidden: of a piece's network; inside, data, interface: points.
    official: tell the exact values at the last time, too. batch: arms at a time, 0 = all. engine: see
    `sciode.pinn.solve`; "compile" pays on a card, with a batch that divides the arms. workers: rows at a time.

    Raises ValueError for unknown names, sizes below one, or a share outside (0, 1].
    """

    families: tuple[str, ...] = ("poisson", "advection", "reaction", "burgers", "heat", "kdv")
    conditions: tuple[str, ...] = tuple(CONDITIONS)
    menu: tuple[str, ...] = ("average", "residual continuity", "flux", "tangential derivative")
    train: int = 30
    test: int = 30
    networks: tuple[int, ...] = (0, 1, 2)
    shares: Mapping[str, float] = field(default_factory=dict)
    official: bool = False
    adam: int = 2000
    lr: float = 1e-3
    lbfgs: int = 1000
    width: int = 20
    hidden: int = 2
    inside: int = 1000
    data: int = 100
    interface: int = 100
    dtype: str = "float64"
    device: str = "cpu"
    batch: int = 0
    engine: str = "auto"
    workers: int = 1

    def __post_init__(self) -> None:
        for name in self.families:
            choose("family", name, FAMILIES)
        choose("dtype", self.dtype, _DTYPES)
        if unknown := set(self.shares) - set(FAMILIES):
            raise ValueError(f"shares: {', '.join(sorted(unknown))} is no family; there are {', '.join(FAMILIES)}")
        if not all(0 < share <= 1 for share in self.shares.values()):
            raise ValueError(f"shares must lie in (0, 1], got {dict(self.shares)}")
        if outside := set(self.menu) - set(self.conditions):
            raise ValueError(f"menu: {', '.join(sorted(outside))} must be among the conditions of arms")
        if min(self.train, self.test, self.workers, len(self.families), len(self.networks), self.batch + 1) < 1:
            raise ValueError("settings: sizes and numbers of families, tasks and networks must be at least 1")
        _ = self.budget, arms_of(self.conditions), arms_of(self.menu)

    @property
    def budget(self) -> Budget:
        """What every arm is trained with."""
        return Budget(
            (Adam(self.adam, self.lr), LBFGS(self.lbfgs)),
            Network(self.width, self.hidden),
            Numbers(self.inside, self.data, self.interface),
            dtype=_DTYPES[self.dtype],
            device=self.device,
            batch=self.batch or None,
            engine=self.engine,
        )

    @property
    def arms(self) -> Tensor:
        """Sets of conditions [A, 9]."""
        return arms_of(self.conditions)

    @property
    def paired(self) -> Tensor:
        """Which arms the sequential agent pairs, int64 [M]."""
        every = self.arms
        return torch.stack([torch.nonzero((every == one).all(1))[0, 0] for one in arms_of(self.menu)])

    def tasks(self, family: str, part: str) -> list[Task]:
        """A family's tasks of a part; more of them begin with the fewer."""
        seed = derive_seed(list(FAMILIES).index(family), _TASKS, PARTS.index(part))
        count = self.train if part == "train" else self.test
        return draw_tasks(family, count, seed, self.shares.get(family, 1.0), self.official)


class Known(NamedTuple):
    """Rewards of a family's tasks of a part, with one seed of networks.

    contexts [T, d]. arms [T, A, 2]: after each stage, the arm kept. pairs [T, M, M]: at the end, the first axis being
    the first stage's arm of the menu. single [T]: of one network for the domain. seconds [T].
    """

    contexts: Tensor
    arms: Tensor
    pairs: Tensor
    single: Tensor
    seconds: Tensor


def known_rewards(table: Table, out: Path) -> dict[tuple[str, str, int], Known]:
    """Make the rows that <out>/rows.jsonl lacks; return all by family, part and seed of the networks."""
    # What else a row hangs on; it has its own family and task, and stays good beside others.
    free = ("families", "train", "test", "networks", "workers", "batch", "engine")
    stamp = {one.name: getattr(table, one.name) for one in fields(Table) if one.name not in free}
    stamp = json.loads(json.dumps(stamp))
    keys = [
        {"family": family, "part": part, "network": network, "task": number}
        for family in table.families
        for network in table.networks
        for part in PARTS
        for number in range(len(table.tasks(family, part)))
    ]
    rows = finished_rows(out, keys, stamp, partial(_made, table), table.workers)
    found = {}
    for family in table.families:
        for part in PARTS:
            contexts = torch.stack([task.context for task in table.tasks(family, part)])
            for network in table.networks:
                own = [row for row in rows if (row["family"], row["part"], row["network"]) == (family, part, network)]
                found[family, part, network] = _known(own, contexts)
    return found


def _known(rows: Sequence[Mapping[str, Any]], contexts: Tensor) -> Known:
    def of(name: str) -> Tensor:
        return torch.tensor([row[name] for row in rows], dtype=torch.float64)

    return Known(contexts, of("arms"), of("pairs"), of("single")[:, -1], of("seconds"))


def _made(table: Table, family: str, part: str, network: int, task: int) -> dict[str, Any]:
    """One row: rewards after each stage, rounded to 1e-4 decades."""
    own, arms, menu = table.tasks(family, part)[task], table.arms, table.paired
    alone = torch.arange(len(arms))[:, None].expand(-1, 2)
    plans = torch.cat((alone, torch.cartesian_prod(menu, menu)))
    seed = derive_seed(network, _NETWORKS, list(FAMILIES).index(family), PARTS.index(part), task) % 2**31
    began = time.perf_counter()
    with isolated_rng(seed), threads(1):
        found = rewards(own, arms, table.budget, plans, seed)
        single = single_reward(own, table.budget, seed)
    return {
        "values": list(own.values),
        "arms": _rounded(found[: len(arms)]),
        "pairs": _rounded(found[len(arms) :, -1].reshape(len(menu), len(menu))),
        "single": _rounded(single),
        "seconds": round(time.perf_counter() - began, 2),
    }


def _rounded(values: Tensor) -> Any:
    return torch.round(values, decimals=_DIGITS).tolist()
