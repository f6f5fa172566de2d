"""What contestants of `pinn_rivals` share: the problem, points, first weights, how errors are measured; and our lines.

A `Task` is plain data, so that it can be sent to a process of its own, where the rest is made from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from sciode.experiments.curves import Entry
from sciode.pinn import FAMILIES, Network, Numbers, Problem, Weights, single, solve
from sciode.pinn.loss import Loss
from sciode.pinn.problem import Reference
from sciode.pinn.representation import representation_of
from sciode.pinn.solve import Stage
from sciode.pinn.terms import groups_of
from sciode.pinn.training import Run
from sciode.training import LBFGS, Adam, LevenbergMarquardt, Stopwatch, derive_seed, threads

__all__ = ["DTYPES", "PARAMETERS", "Given", "Journal", "Recipe", "Task", "by_least_squares", "by_quasi_newton", "given"]

DTYPES = {"float32": torch.float32, "float64": torch.float64}
PARAMETERS = {"poisson": 20.0, "burgers": 0.01 / math.pi}
"""Of the families that are solved: the sharpness of `poisson`, the viscosity of `burgers`."""
WEIGHTS = Weights()
"""Of the terms of the loss, the same for all."""

_MANY, _FEW = 10**6, 5
"""Iterations nobody reaches; those of Levenberg-Marquardt between two looks."""
_KNOWN, _HELD = 8192, 11
"""Points of an exact solution, a quarter of them for validation; their seed."""


class Recipe(NamedTuple):
    """What is chosen by validation: the dtype, the rate of Adam, how many iterations it has before the next stage."""

    dtype: str
    lr: float
    warmup: int


@dataclass(frozen=True)
class Task:
    """One training. points, data: of the equation, of each condition. seconds: of all of it. every: iterations between
    looks at the error. part: whose points errors are measured on, "validation" or "test".
    """

    family: str
    width: int
    hidden: int
    points: int
    data: int
    seconds: float
    every: int
    seed: int
    part: str
    device: str

    @property
    def network(self) -> Network:
        """Tanh, of a box that is carried onto [-1, 1]^2."""
        return Network(self.width, self.hidden)

    @property
    def numbers(self) -> Numbers:
        """Of points, by Sobol's sequence."""
        return Numbers(self.points, self.data, self.data)


class Told(NamedTuple):
    """A condition: its name, its points [N, 2], the values there [N, 1]."""

    name: str
    points: Tensor
    values: Tensor


class Given(NamedTuple):
    """What a rival is told, float64 on the host: everything that `solve` would use for the same task.

    layers: first weights [in, out] and biases [out]. centre, half: x -> (x - centre) / half comes before the network.
    """

    layers: list[tuple[Tensor, Tensor]]
    centre: Tensor
    half: Tensor
    inside: Tensor
    told: list[Told]
    parameter: float
    known: Reference


def problem_of(family: str, part: str) -> Problem:
    """The family's problem, whose errors are measured on the points of a part."""
    problem = FAMILIES[family].make(PARAMETERS[family])
    return replace(problem, exact=None, reference=known(family)[part])


@cache
def known(family: str) -> Mapping[str, Reference]:
    """Points and values of each part; no training point is drawn from them."""
    problem = FAMILIES[family].make(PARAMETERS[family])
    if problem.reference is not None:
        points, values = problem.reference
    else:
        assert problem.exact is not None
        points = problem.domain.sample(_KNOWN, _HELD, dtype=torch.float64)
        values = problem.exact(points)
    mixed = torch.randperm(len(points), generator=torch.Generator().manual_seed(_HELD))
    cut = len(points) // 4
    rows = {"validation": mixed[:cut], "test": mixed[cut:]}
    return {part: Reference(points[own], values[own]) for part, own in rows.items()}


def given(task: Task) -> Given:
    """The points and first weights that `solve` has for a task."""
    problem, like = problem_of(task.family, task.part), torch.zeros((), dtype=torch.float64)
    cut = single(problem.domain)
    of = representation_of(problem, cut, task.network, like)
    loss = Loss(groups_of(of, ()))
    theta = of.initial([derive_seed(task.seed, 1)], like)
    run = Run(of, loss, torch.ones(1, len(loss.names)), task.numbers, None, None, task.seed, None, 1, theta)
    run.draw(0, 0)
    inside, *others = run.samples
    told = [
        Told(group.names[0], sample.data["points"][0, 0], sample.data["known"][0, 0])
        for group, sample in zip(loss.groups[1:], others, strict=True)
    ]
    layers = [(weight[0, 0], bias[0, 0, 0]) for weight, bias in task.network.unpacked(theta, 2, 1, 1)]
    assert problem.reference is not None
    scaling, parameter = of.scaling, PARAMETERS[task.family]
    return Given(
        layers, scaling.centre[0], scaling.half[0], inside.data["points"][0, 0], told, parameter, problem.reference
    )


class Journal:
    """The curve of a rival's training in progress; looking is not counted as training.

    predict: points [N, 2] -> u [N, 1], in the network's dtype, on its device.
    """

    def __init__(self, task: Task, known: Reference, predict: Callable[[Tensor], Tensor], dtype: str) -> None:
        self.points = known.points.to(task.device, DTYPES[dtype])
        self.values = known.values.to(task.device)
        self.predict, self.limit = predict, task.seconds
        self.curve: list[Entry] = []
        self.watch = Stopwatch(task.device)

    def look(self, stage: int, iteration: int) -> bool:
        """Write down the error of the moment; whether the time is over."""
        seconds = self.watch.spent()
        with self.watch.paused(), torch.no_grad():
            found = self.predict(self.points).double()
            error = float((found - self.values).norm() / self.values.norm())
        self.curve.append(Entry(stage, iteration, seconds, error))
        return seconds >= self.limit


def by_quasi_newton(task: Task, recipe: Recipe) -> list[Entry]:
    """Adam, then L-BFGS, by `solve`."""
    ours = _Ours(task, recipe)
    ours.train(Adam(recipe.warmup, lr=recipe.lr), 0)
    if ours.left > 0:
        ours.train(LBFGS(_MANY), 1)
    return ours.curve


def by_least_squares(task: Task, recipe: Recipe) -> list[Entry]:
    """Adam, then Levenberg-Marquardt, by `solve`; a few iterations a call, as it does itself where time is limited."""
    ours = _Ours(task, recipe)
    ours.train(Adam(recipe.warmup, lr=recipe.lr), 0)
    while ours.left > 0 and math.isfinite(ours.curve[-1].error):
        ours.train(LevenbergMarquardt(_FEW, tolerance=0.0, damping=1e-3), 1)
    return ours.curve


class _Ours:
    """Calls of `solve`, each from where the last one ended."""

    def __init__(self, task: Task, recipe: Recipe) -> None:
        _warm(task.device, recipe.dtype)
        self.task, self.dtype = task, DTYPES[recipe.dtype]
        self.problem = problem_of(task.family, task.part)
        self.theta: Tensor | None = None
        self.curve: list[Entry] = []
        self.calls = 0

    @property
    def left(self) -> float:
        """Seconds."""
        return self.task.seconds - (self.curve[-1].seconds if self.curve else 0.0)

    def train(self, stage: Stage, number: int) -> None:
        """Go on by a stage, until the time is over."""
        task, last = self.task, self.curve[-1] if self.curve else Entry(number, 0, 0.0, math.inf)
        fresh = isinstance(stage, LevenbergMarquardt)
        with threads(1):
            found = solve(
                self.problem,
                network=task.network,
                stages=[stage],
                limits=[self.left],
                numbers=task.numbers,
                weights=WEIGHTS,
                # Its points are new ones at every call; those of the other stages are the same throughout.
                seed=derive_seed(task.seed, 1, self.calls) % 2**31 if fresh else task.seed,
                start=self.theta,
                dtype=self.dtype,
                device=task.device,
                log=task.every,
            )
        before = last.iteration if last.stage == number else 0
        self.curve += [
            Entry(number, before + one.iteration, last.seconds + one.seconds, one.error[0]) for one in found.history
        ]
        self.theta, self.calls = found.theta, self.calls + 1


@cache
def _warm(device: str, dtype: str) -> None:
    """Let torch load what its transforms need, seconds that are no row's."""
    stages: Sequence[Stage] = [Adam(1), LBFGS(1), LevenbergMarquardt(1, damping=1e-3)]
    same = {"network": Network(2, 1), "numbers": Numbers(8, 4, 4), "dtype": DTYPES[dtype], "device": device}
    for family in PARAMETERS:
        with threads(1):
            solve(FAMILIES[family].make(), stages=stages, **same)  # type: ignore[arg-type]
