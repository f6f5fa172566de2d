"""What arms are worth: all of them trained in one batch, stage by stage, so that the best one is known, not guessed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sciode.pinn.decomposition import Decomposition
from sciode.pinn.loss import Weights
from sciode.pinn.metalic.tasks import Task
from sciode.pinn.networks import Network
from sciode.pinn.problem import Problem
from sciode.pinn.solve import Stage, solve
from sciode.pinn.terms import Numbers
from sciode.training import LBFGS, Adam, derive_seed

__all__ = ["FAILED", "Budget", "reward_of", "rewards", "single_reward"]

FAILED = 100.0
"""The relative error that a failure counts as."""
_STAGE, _SHUFFLE = 11, 13


@dataclass(frozen=True)
class Budget:
    """What every arm of every task is trained with: see `sciode.pinn.solve`.

    The defaults are those of Li et al. (ICML 2023), whose L-BFGS goes on for up to 20,000 iterations. batch: arms at a
    time, None = all. engine: see `sciode.pinn.solve`.
    """

    stages: tuple[Stage, ...] = (Adam(2000), LBFGS(2000))
    network: Network = field(default_factory=Network)
    numbers: Numbers = field(default_factory=Numbers)
    weights: Weights = field(default_factory=Weights)
    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    batch: int | None = None
    engine: str = "auto"


def reward_of(error: Tensor) -> Tensor:
    """Return -log10 of relative errors: decades. What is not a number, or above 100, counts as 100."""
    known = torch.where(error.isnan(), FAILED, error.double())
    return -known.clamp(1e-16, FAILED).log10()


def rewards(task: Task, arms: Tensor, budget: Budget, plans: Tensor | None = None, seed: int = 0) -> Tensor:
    """Return the reward after each stage of each plan, float64 [plans, stages].

    Parameters
    ----------
    arms: sets of conditions [A, 9]. plans: int64 [P, stages], the arm of each stage; None: every arm, kept throughout.
    seed: of initial weights, the same for all arms, and of points.

    Plans that begin alike are trained once as far as they agree; what begins a stage together is one batch. Raises
    ValueError for plans that name no arm or another number of stages.
    """
    stages = len(budget.stages)
    if plans is None:
        plans = torch.arange(len(arms))[:, None].expand(-1, stages)
    if plans.ndim != 2 or plans.shape[1] != stages or not bool(((plans >= 0) & (plans < len(arms))).all()):
        raise ValueError(f"plans must be [P, {stages}] with numbers of {len(arms)} arms, got {tuple(plans.shape)}")
    problem = task.problem()
    return _staged(problem, task.cut(problem), arms, budget, plans, seed)


def single_reward(task: Task, budget: Budget, seed: int = 0) -> Tensor:
    """Return the reward after each stage of one network for the whole domain, [stages], at the cost of an arm.

    It has the points of all pieces and, by its width, at least the weights of all their networks.
    """
    problem = task.problem()
    cut = task.cut(problem)
    numbers = replace(budget.numbers, inside=budget.numbers.inside * cut.size, data=budget.numbers.data * cut.size)
    axes, channels = problem.names.axes, problem.names.channels
    network, wanted = budget.network, budget.network.size(axes, channels) * cut.size
    while network.size(axes, channels) < wanted:
        network = replace(network, width=network.width + 1)
    alone = replace(budget, network=network, numbers=numbers)
    plan = torch.zeros(1, len(budget.stages), dtype=torch.int64)
    return _staged(problem, None, torch.zeros(1, 9, dtype=torch.float64), alone, plan, seed)[0]


def _staged(
    problem: Problem, cut: Decomposition | None, arms: Tensor, budget: Budget, plans: Tensor, seed: int
) -> Tensor:
    found, theta = [], None
    before = torch.zeros(1, 0, dtype=torch.int64)
    for place, stage in enumerate(budget.stages):
        begun, row = plans[:, : place + 1].unique(dim=0, return_inverse=True)
        start = None
        if theta is not None:
            start = theta[[_row(before, one) for one in begun[:, :place]]]
        theta, error = _trained(
            problem, cut, arms[begun[:, -1]], budget, stage, derive_seed(seed, _STAGE, place), start
        )
        found.append(reward_of(error)[row])
        before = begun
    return torch.stack(found, 1)


def _row(table: Tensor, wanted: Tensor) -> int:
    return int(torch.nonzero((table == wanted).all(1))[0, 0])


def _trained(
    problem: Problem,
    cut: Decomposition | None,
    arms: Tensor,
    budget: Budget,
    stage: Stage,
    seed: int,
    start: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Weights and errors of arms after a stage, some arms at a time.

    All batches have one size and, being shuffled, in all likelihood all conditions: so that one program serves them.
    """
    size = min(budget.batch or len(arms), len(arms))
    order = torch.randperm(len(arms), generator=torch.Generator().manual_seed(_SHUFFLE))
    if size == len(arms):
        order = torch.arange(len(arms))
    theta: Tensor | None = None
    error = torch.empty(len(arms), dtype=torch.float64)
    for begin in range(0, len(arms), size):
        # The last ones begin earlier, with some that are trained a second time.
        own = order[min(begin, len(arms) - size) :][:size]
        found = solve(
            problem, cut, network=budget.network, conditions=arms[own], stages=[stage], numbers=budget.numbers,
            weights=budget.weights, seed=seed, dtype=budget.dtype, device=budget.device, log=stage.iterations,
            start=None if start is None else start[own.to(start.device)], engine=budget.engine,
        )  # fmt: skip
        theta = found.theta.new_empty(len(arms), found.theta.shape[1]) if theta is None else theta
        theta[own.to(theta.device)] = found.theta
        error[own] = found.error.cpu().double()
    assert theta is not None
    return theta, error
