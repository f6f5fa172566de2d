"""The loss of every arm and its gradient, in parts that fit into memory, and the same as least squares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from sciode.pinn.causal import Causal
from sciode.pinn.engines import Eager, Engine, Program
from sciode.pinn.terms import EQUATION, Group, Numbers, Sample
from sciode.training import Block, Minimiser, derive_seed

__all__ = ["Loss", "Measured", "Weights"]


@dataclass(frozen=True)
class Weights:
    """What terms are multiplied by at first: the equation, each condition, each interface condition.

    The defaults are those of Li et al. (ICML 2023); own: weights of terms by their names, in the place of these, as
    pairs or a mapping. ValueError for negative ones.
    """

    equation: float = 1.0
    data: float = 20.0
    interface: float = 5.0
    own: tuple[tuple[str, float], ...] | Mapping[str, float] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "own", tuple(dict(self.own).items()))
        values = (self.equation, self.data, self.interface, *dict(self.own).values())
        if not all(0 <= value < math.inf for value in values):
            raise ValueError(f"weights must be finite and >= 0, got {self}")


class Measured(NamedTuple):
    """Of every arm: the loss [arms], its gradient [arms, P], and the terms without weights [arms, T]."""

    loss: Tensor
    gradient: Tensor
    terms: Tensor


class _Layout(NamedTuple):
    """What a program's inputs are: names of the memory, whether points have weights, networks and data of samples."""

    memory: tuple[str, ...]
    weighted: bool
    samples: tuple[tuple[tuple[int, ...], tuple[str, ...]], ...]


@final
class _Once:
    """An `Objective` that keeps what it found."""

    def __init__(self, evaluated: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        self.evaluated = evaluated
        self.found: tuple[Tensor, ...] = ()

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses and gradients."""
        assert not self.found, "a stage that is `whole` evaluates once"
        self.found = self.evaluated(theta)
        return self.found[0], self.found[1]

    def curvature(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        """None is recorded."""
        raise NotImplementedError


@final
class _Lazily:
    """A program that is recorded when it is called a second time: many are called once."""

    def __init__(self, engine: Engine, program: Program) -> None:
        self.engine, self.program, self.calls = engine, program, 0

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        if self.calls == 2:
            self.program = self.engine.recorded(self.program, inputs)
        return self.program(*inputs)


@final
class Loss:
    """sum_t weights[arm, t] term_t(theta[arm]), for all arms at once.

    groups: what is evaluated. chunk: how many points of a set are evaluated at a time, None = all: less memory, the
    same numbers to rounding (products with the Hessian, for `NewtonCG`, then form the gradient anew at each of them).
    causal: weights of the equation's points by what is left to do at earlier times. engine: how the loss and its
    gradient are evaluated. summed: sums over processes that divide the points.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        chunk: int | None = None,
        causal: Causal | None = None,
        engine: Engine | None = None,
        summed: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, or None for all, got {chunk}")
        self.groups, self.chunk, self.causal, self.engine = groups, chunk, causal, engine or Eager()
        self.summed = summed
        self.names = tuple(name for group in groups for name in group.names)
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"terms need names of their own, got {', '.join(self.names)}")
        self._ready: dict[Any, Program] = {}
        self._evaluations: dict[Any, tuple[Program, tuple[Tensor, ...]]] = {}

    def without_causal(self) -> Loss:
        """The same for a stage that needs a function which stays, and what was made ready with it."""
        return self if self.causal is None else Loss(self.groups, self.chunk, None, self.engine, self.summed)

    def draw(self, numbers: Numbers, seed: int, like: Tensor) -> list[Sample]:
        """Points of all groups for one seed."""
        found = []
        for place, group in enumerate(self.groups):
            sample = group.draw(numbers, derive_seed(seed, 4, place) % 2**31, like)
            assert sample is not None
            found.append(sample)
        return found

    def measure(
        self, theta: Tensor, samples: Sequence[Sample], weights: Tensor, multiplier: Tensor | None = None
    ) -> Measured:
        """The loss, its gradient and its terms. multiplier: of the squares at the equation's points, [arms, K, N]."""
        found = self._run(None, {"theta": theta.detach()}, samples, weights, multiplier)
        if self._singular(found):
            found = self._evaluated(theta, samples, weights, multiplier, apart=True)
        return Measured(*found[:3])

    def iterated(
        self,
        stage: Minimiser,
        memory: Mapping[str, Tensor],
        samples: Sequence[Sample],
        weights: Tensor,
        multiplier: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Measured] | None:
        """An iteration of a stage that is `whole`, as one program: its memory, and what it measured.

        None where terms need gradients of their own; then it has to be made step by step.
        """
        found = self._run(stage, memory, samples, weights, multiplier)
        if self._singular(found):
            return None
        return dict(zip(memory, found, strict=False)), Measured(*found[len(memory) : -1])

    def _singular(self, found: Sequence[Tensor]) -> bool:
        """Whether an arm may have met what is singular in a term that it leaves out."""
        return any(len(group.names) > 1 for group in self.groups) and bool(found[-1])

    def _run(
        self,
        stage: Minimiser | None,
        memory: Mapping[str, Tensor],
        samples: Sequence[Sample],
        weights: Tensor,
        multiplier: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """Run a program, which is made ready the first time."""
        layout = _Layout(tuple(memory), multiplier is not None, tuple((one.which, tuple(one.data)) for one in samples))
        inputs = [*memory.values(), weights, *([] if multiplier is None else [multiplier])]
        inputs += [value for sample in samples for value in sample.data.values()]
        key = (layout, tuple((x.shape, x.dtype, x.device) for x in inputs))
        if (stage, key) not in self._ready:
            self._ready[stage, key] = self._made_ready(stage, layout, inputs)
        return self._ready[stage, key](*inputs)

    def _made_ready(self, stage: Minimiser | None, layout: _Layout, inputs: Sequence[Tensor]) -> Program:
        """An evaluation, or a stage's iteration with one in it, as a function of tensors alone."""
        theta, rest = inputs[layout.memory.index("theta")], inputs[len(layout.memory) :]
        # Stages share the evaluation: tracing it takes seconds.
        key = (layout[1:], tuple((x.shape, x.dtype, x.device) for x in (theta, *rest)))
        if key not in self._evaluations:
            self._evaluations[key] = self._prepared(layout, [theta, *rest])
        evaluated, numbers = self._evaluations[key]
        if stage is None:
            return _Lazily(self.engine, lambda *given: evaluated(*given, *numbers))

        def iteration(*given: Tensor) -> tuple[Tensor, ...]:
            memory, rest = dict(zip(layout.memory, given, strict=False)), given[len(layout.memory) :]
            once = _Once(lambda theta: evaluated(theta, *rest, *numbers))
            new = stage.step(memory, once, 1)
            return (*(new[name] for name in layout.memory), *once.found)

        return self.engine.recorded(iteration, inputs)

    def _prepared(self, layout: _Layout, inputs: Sequence[Tensor]) -> tuple[Program, tuple[Tensor, ...]]:
        """An evaluation, prepared, and the numbers that it is to be given besides."""
        lifted = self._numbers(inputs[0]) if self.engine.lifts else {}
        numbers = tuple(lifted.values())
        try:
            return self.engine.prepared(partial(self._program, layout, tuple(lifted)), [*inputs, *numbers]), numbers
        except ValueError:
            if not lifted:
                raise
        # An equation may ask for a number's value, as math.sqrt(p.nu) does: each value is another program then.
        return self.engine.prepared(partial(self._program, layout, ()), inputs), ()

    def _numbers(self, theta: Tensor) -> dict[str, Tensor]:
        """The equation's numbers as tensors, so that tasks that differ in them are one program."""
        known = self.groups[0].problem.parameters
        return {name: theta.new_tensor(value) for name, value in known.items() if isinstance(value, float)}

    def _program(self, layout: _Layout, told: Sequence[str], theta: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """An evaluation as a function of tensors alone."""
        weights, *rest = inputs
        multiplier = rest.pop(0) if layout.weighted else None
        samples = [Sample(which, {name: rest.pop(0) for name in names}) for which, names in layout.samples]
        with self.groups[0].of.told(dict(zip(told, rest, strict=True))):
            return self._evaluated(theta, samples, weights, multiplier, apart=False)

    def _evaluated(
        self, theta: Tensor, samples: Sequence[Sample], weights: Tensor, multiplier: Tensor | None, apart: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loss, gradient, terms, and whether an arm may have met what is singular in a term that it leaves out.

        apart: terms have gradients of their own, so that none reaches an arm that leaves it out.
        """
        if self.causal is not None:
            squares, problem = self.squares(theta, samples[0]), self.groups[0].problem
            earlier = self.causal.weights(squares, samples[0], problem, self.summed)
            multiplier = earlier if multiplier is None else multiplier * earlier
        gradient, loss = torch.zeros_like(theta), theta.new_zeros(len(theta))
        terms, singular, place = [], torch.zeros((), dtype=torch.bool, device=theta.device), 0
        for group, sample in zip(self.groups, samples, strict=True):
            many = slice(place, place + len(group.names))
            place += len(group.names)
            plain = theta.new_zeros(len(theta), len(group.names))
            for begin in range(0, sample.count, self.chunk or sample.count):
                end = min(begin + (self.chunk or sample.count), sample.count)
                factor = None
                if multiplier is not None and group.names == (EQUATION,):
                    factor = multiplier[:, :, begin:end]
                leaf = theta.detach().requires_grad_()
                with torch.enable_grad():
                    some, pressed = _terms(group, leaf, sample.rows(begin, end), factor)
                    # An arm that leaves a condition out is not touched by what it comes to there.
                    total = torch.where(weights[:, many] > 0, weights[:, many] * pressed, 0.0).sum(1)
                    own = torch.autograd.grad(total.sum(), leaf)[0]
                if len(group.names) > 1:
                    singular = singular | (total.isfinite() & ~own.isfinite().all(1)).any()
                    if apart:
                        own = _term_by_term(group, theta, sample.rows(begin, end), weights[:, many])
                gradient, loss, plain = gradient + own, loss + total.detach(), plain + some.detach()
            terms.append(plain)
        return loss, gradient, torch.cat(terms, 1), singular

    def terms(self, theta: Tensor, samples: Sequence[Sample]) -> Tensor:
        """The terms without weights [arms, T], without a gradient."""
        with torch.no_grad():
            return torch.cat([_terms(g, theta, s, None)[0] for g, s in zip(self.groups, samples, strict=True)], 1)

    def squares(self, theta: Tensor, sample: Sample) -> Tensor:
        """|residual|^2 of the equation at a sample's points, [arms, K, N], without a gradient."""
        with torch.no_grad():
            return self.groups[0].residuals(theta, sample)[EQUATION].square().sum(-1)

    def curvature(
        self, theta: Tensor, samples: Sequence[Sample], weights: Tensor, multiplier: Tensor | None = None
    ) -> Callable[[Tensor], Tensor]:
        """v -> H v with the Hessian of each arm's loss at theta, by a second pass back through the gradient's graph."""
        if self.chunk is None:
            return _curved(self.groups, theta, samples, weights, multiplier)
        size, parts, place = self.chunk, [], 0
        for group, sample in zip(self.groups, samples, strict=True):
            own, place = weights[:, place : place + len(group.names)], place + len(group.names)
            for begin in range(0, sample.count, size):
                factor = None if multiplier is None else multiplier[:, :, begin : begin + size]
                parts.append(([group], theta, [sample.rows(begin, begin + size)], own, factor))
        # A graph is let go with its part's product: one of all points is what there is no room for.
        return lambda vector: torch.stack([_curved(*part)(vector) for part in parts]).sum(0)

    def blocks(self, samples: Sequence[Sample], weights: Tensor, arm: int = 0) -> list[Block]:
        """One arm's loss as blocks of residuals that look at one point each, for `sciode.training.minimise`."""
        found, place = [], 0
        for group, sample in zip(self.groups, samples, strict=True):
            own = dict(zip(group.names, weights[arm, place : place + len(group.names)].tolist(), strict=True))
            place += len(group.names)
            if not any(own.values()):
                continue
            for k in range(sample.data["share"].shape[1]):
                alone = sample.group(k, arm)
                points = {name: value[0, 0] for name, value in alone.data.items()}
                found.append(Block(_pointwise(group, alone.which, own, sample.count), points))
        return found


def _terms(group: Group, theta: Tensor, sample: Sample, factor: Tensor | None) -> tuple[Tensor, Tensor]:
    """The terms of a group [arms, T], and the same with points multiplied by `factor`."""
    squares = torch.stack([rows.square().sum(-1) for rows in group.residuals(theta, sample).values()], 1)
    shared = squares * sample.data["share"][:, None]
    plain = shared.sum((2, 3))
    return plain, plain if factor is None else (shared * factor[:, None]).sum((2, 3))


def _term_by_term(group: Group, theta: Tensor, sample: Sample, weights: Tensor) -> Tensor:
    """The gradient of a group's terms, none of which reaches an arm that leaves it out: taken together, one that is
    singular there would reach it as 0 times infinity.
    """
    leaf, found = theta.detach().requires_grad_(), torch.zeros_like(theta)
    with torch.enable_grad():
        for rows, weight in zip(group.residuals(leaf, sample).values(), weights.unbind(1), strict=True):
            term = rows.square().sum(-1) * sample.data["share"]
            slope = torch.autograd.grad(term.sum(), leaf, retain_graph=True)[0]
            found = found + torch.where(weight[:, None] > 0, weight[:, None] * slope, 0.0)
    return found


def _curved(
    groups: Sequence[Group], theta: Tensor, samples: Sequence[Sample], weights: Tensor, multiplier: Tensor | None
) -> Callable[[Tensor], Tensor]:
    """v -> H v of some groups' terms."""
    leaf = theta.detach().requires_grad_()
    with torch.enable_grad():
        total, place = theta.new_zeros(()), 0
        for group, sample in zip(groups, samples, strict=True):
            many = slice(place, place + len(group.names))
            place += len(group.names)
            pressed = _terms(group, leaf, sample, multiplier if group.names == (EQUATION,) else None)[1]
            total = total + torch.where(weights[:, many] > 0, weights[:, many] * pressed, 0.0).sum()
        slope = torch.autograd.grad(total, leaf, create_graph=True)[0]
    if not bool(slope.isfinite().all()):
        return _curved_term_by_term(groups, leaf, samples, weights, multiplier)
    return lambda vector: torch.autograd.grad(slope, leaf, vector, retain_graph=True)[0]


def _curved_term_by_term(
    groups: Sequence[Group], leaf: Tensor, samples: Sequence[Sample], weights: Tensor, multiplier: Tensor | None
) -> Callable[[Tensor], Tensor]:
    """As `_term_by_term`, of products with the Hessian of all terms together."""
    slopes: list[Tensor] = []
    with torch.enable_grad():
        for group, sample in zip(groups, samples, strict=True):
            factor = multiplier if multiplier is not None and group.names == (EQUATION,) else 1.0
            for rows in group.residuals(leaf, sample).values():
                term = rows.square().sum(-1) * sample.data["share"] * factor
                slopes.append(torch.autograd.grad(term.sum(), leaf, create_graph=True)[0])

    def product(vector: Tensor) -> Tensor:
        found = torch.zeros_like(leaf)
        for slope, weight in zip(slopes, weights.unbind(1), strict=True):
            own = torch.autograd.grad(slope, leaf, vector, retain_graph=True)[0]
            found = found + torch.where(weight[:, None] > 0, weight[:, None] * own, 0.0)
        return found

    return product


def _pointwise(group: Group, which: tuple[int, ...], weights: Mapping[str, float], count: int) -> Any:
    """(theta [P], one point) -> the residuals of a group there, each scaled by its weight and its point's share."""
    used = {name: math.sqrt(weight) for name, weight in weights.items() if weight}

    def residual(theta: Tensor, point: Mapping[str, Tensor]) -> Tensor:
        sample = Sample(which, {name: value[None, None, None] for name, value in point.items()})
        rows = group.residuals(theta[None], sample)
        own = torch.cat([rows[name][0, 0, 0] * scale for name, scale in used.items()])
        # The square root of a share of nothing has no slope, and needs none: shares are data.
        return own * (count * point["share"]).sqrt()

    return residual
