"""A run in progress: its arms, the points they are trained on, what balances their terms, and what is noted of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciode.pinn.adaptive import Adaptive
from sciode.pinn.balance import Balance
from sciode.pinn.balance import Moment as Look
from sciode.pinn.distributed import Share
from sciode.pinn.loss import Loss, Measured
from sciode.pinn.problem import Problem
from sciode.pinn.representation import Representation
from sciode.pinn.solution import Moment, relative_error
from sciode.pinn.terms import Inside, Numbers, Sample
from sciode.training import Minimiser, Stopwatch, derive_seed

__all__ = ["Redraw", "Run", "Target"]

_LEAST_SQUARES, _DRAWS, _BALANCE = 7, 8, 9


@dataclass(frozen=True)
class Redraw:
    """New points after every so many iterations; adaptive: `RAD` or `R3` say where those of the equation go.

    Stages that need the same function throughout (L-BFGS, NewtonCG) get new points when they begin. None of `every`:
    points of a stage stay. ValueError for a number below one.
    """

    every: int = 100
    adaptive: Adaptive | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")


@dataclass
class Target:
    """The loss of all arms as an `Objective`, at the points and weights of the moment."""

    loss: Loss
    samples: Sequence[Sample]
    weights: Tensor
    multiplier: Tensor | None = None
    measured: Measured | None = None
    share: Share | None = None

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses and gradients; the measurement is kept."""
        found = self.loss.measure(theta, self.samples, self.weights, self.multiplier)
        self.measured = found if self.share is None else self.share(found)
        return self.measured.loss, self.measured.gradient

    def advanced(self, stage: Minimiser, memory: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
        """An iteration of a stage; as one program where the engine makes such and the stage is `whole`."""
        if stage.whole and self.loss.engine.records and self.share is None and 0 < k < stage.iterations - 1:
            found = self.loss.iterated(stage, memory, self.samples, self.weights, self.multiplier)
            if found is not None:
                self.measured = found[1]
                return found[0]
        return stage.step(memory, self, k)

    def curvature(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        """Return v -> H v."""
        product, share = self.loss.curvature(theta, self.samples, self.weights, self.multiplier), self.share
        return product if share is None else lambda vector: share.total(product(vector))


def silent(losses: Sequence[float]) -> None:
    """Tell nobody."""


@dataclass
class Run:
    """Everything that changes: theta [arms, P], faults, points, balance, history."""

    representation: Representation
    loss: Loss
    base: Tensor
    numbers: Numbers
    redraw: Redraw | None
    balance: Balance | None
    seed: int
    known: tuple[Tensor, Tensor] | None
    log: int
    theta: Tensor
    share: Share | None = None
    faults: dict[int, str] = field(default_factory=dict)
    history: list[Moment] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    inside: Tensor | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)
    tell: Callable[[Sequence[float]], None] = silent
    watch: Stopwatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Stopwatch(self.theta.device)

    @property
    def problem(self) -> Problem:
        """What is solved."""
        return self.representation.problem

    @property
    def fine(self) -> Tensor:
        """Which arms have met no fault, bool [arms]."""
        return torch.tensor([arm not in self.faults for arm in range(len(self.theta))], device=self.theta.device)

    def draw(self, stage: int, number: int) -> None:
        """Take new points: those of a stage's draw, which is a function of the seed alone, unless they are adaptive."""
        seed = self._of_draw(stage, number)
        self.samples = self.loss.draw(self.numbers, seed, self.theta)
        if self.balance is not None and self.balance.pointwise:
            self.memory = {}  # those were weights of other points
        group, adaptive = self.loss.groups[0], self.redraw and self.redraw.adaptive
        assert isinstance(group, Inside)
        if adaptive:
            old = self.inside
            if old is None:
                old = self.representation.decomposition.inside(self.numbers.inside, self.numbers.how, seed)[None]
            begun = stage > 0 or number > 0
            if begun:
                old = adaptive.points(self.loss, self.theta, old, self.numbers, seed, self.share)
            self.inside = old
            self.samples[0] = group.sample(self.inside, self.theta)
        self.samples = self._own(self.samples)

    def back(self, stage: int, number: int) -> None:
        """Take up the points of a draw that was made before an interruption."""
        seed = self._of_draw(stage, number)
        self.samples = self.loss.draw(self.numbers, seed, self.theta)
        group = self.loss.groups[0]
        assert isinstance(group, Inside)
        if self.inside is not None:
            self.samples[0] = group.sample(self.inside, self.theta)
        self.samples = self._own(self.samples)

    def fresh(self, stage: int, k: int) -> list[Sample]:
        """Points that only iteration k of a stage of least squares sees."""
        stream = self.share.stream if self.share else 0
        seed = derive_seed(self.seed, _LEAST_SQUARES, stage, k, *([stream] if stream else []))
        return self._own(self.loss.draw(self.numbers, seed % 2**31, self.theta))

    def _own(self, samples: Sequence[Sample]) -> list[Sample]:
        """Of points that all ranks draw, this one's."""
        if self.share is None:
            return list(samples)
        return [self.share.own(sample, self.representation.decomposition.size) for sample in samples]

    def _of_draw(self, stage: int, number: int) -> int:
        """The seed of a draw; where ranks draw points of their own, on each another."""
        return derive_seed(self.seed, _DRAWS, stage, number, self.share.stream if self.share else 0) % 2**31

    def balanced(self) -> tuple[Tensor, Tensor | None]:
        """The weights of the terms [arms, T] and of the equation's points."""
        if self.balance is None:
            return self.base, None
        if not self.memory:
            self.memory = self.balance.begin(self.base, self.loss.squares(self.theta, self.samples[0]))
        return self.base * self.memory.get("factors", 1.0), self.memory.get("points")

    def rebalance(self, measured: Measured, stage: int, k: int) -> None:
        """Let the scheme look at an iteration, if it is its turn. What broken arms say is not listened to."""
        if self.balance is None or k % self.balance.every:
            return
        seed = derive_seed(self.seed, _BALANCE, stage, k)
        new = self.balance.update(self.memory, Look(self.loss, self.theta, self.samples, self.base, measured, seed))
        for name, value in new.items():
            finite = value.isfinite().flatten(1).all(1)
            self.memory[name] = torch.where(finite.view(-1, *[1] * (value.ndim - 1)), value, self.memory[name])

    def go_on(self, history: list[Moment]) -> None:
        """Take up the history of an interrupted run; its seconds go on from the last entry."""
        self.history = history
        self.watch = Stopwatch(self.theta.device, history[-1].seconds if history else 0.0)

    def note(self, stage: int, k: int, measured: Measured) -> None:
        """Add an entry to the history."""
        loss, terms, seconds = measured.loss.tolist(), measured.terms.tolist(), self.watch.spent()
        with self.watch.paused():
            error = relative_error(self.representation, self.theta, self.known).tolist()
        self.history.append(Moment(stage, k, loss, terms, error, seconds))
        self.tell(loss)

    def fault(self, arms: Tensor, measured: Measured, stage: int, k: int) -> None:
        """Write down which term of these arms was not finite."""
        for arm in torch.nonzero(arms)[:, 0].tolist():
            if arm in self.faults:
                continue
            bad = [
                name
                for name, value, weight in zip(
                    self.loss.names, measured.terms[arm].tolist(), self.base[arm].tolist(), strict=True
                )
                if weight and not math.isfinite(value)
            ]
            what = " and ".join(bad) if bad else "the gradient"
            self.faults[arm] = f"non-finite: {what}, at iteration {k} of stage {stage}"

    def measure(self, loss: Loss | None = None) -> Measured:
        """The loss of the moment, at the weights of the moment; loss: another than the run's own."""
        weights, multiplier = self.balanced()
        target = Target(loss or self.loss, self.samples, weights, multiplier, share=self.share)
        target(self.theta)
        assert target.measured is not None
        return target.measured
