"""Fits and steps by optimisation: the weights at which a time scheme's residual, or an initial value's, is least."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from sciode.insr.flat import Flat
from sciode.insr.incompressible import View, as_it_is
from sciode.insr.points import Points
from sciode.insr.schemes import Scheme, last
from sciode.pde import Evolution
from sciode.training import Block, Descent, Following, LevenbergMarquardt, Minimum, descend, minimise
from sciode.training.blocks import Draw, loss_of

__all__ = ["Fit", "Optimiser", "Work", "fitted", "minimised", "stepped"]

Optimiser = LevenbergMarquardt | Descent
Residual = Callable[[Tensor, Any], Tensor]


@dataclass(frozen=True)
class Fit:
    """How a network of random weights is brought to the initial values: gradient descent, then least squares.

    None leaves a stage out. Good values: the defaults; least squares from random weights fail.
    """

    descent: Descent | None = field(default_factory=Descent)
    refine: LevenbergMarquardt | None = field(
        default_factory=lambda: LevenbergMarquardt(iterations=60, tolerance=1e-14, damping=1e-4)
    )

    def found(self, draw: Callable[..., Sequence[Block]], theta: Tensor) -> Minimum:
        """The fit by `draw(iteration, weights, stage=0 or 1)` from theta on; its losses are those of both stages."""
        spent: list[float] = []
        found = Minimum(theta, float(loss_of(draw(0, theta, stage=0), theta)), [], "budget")
        for stage, one in enumerate((self.descent, self.refine)):
            if one is not None and math.isfinite(found.loss):
                found = minimised(Following(partial(draw, stage=stage)), found.theta, one)
                spent += found.losses[: found.iterations]
        return found._replace(losses=[*spent, *found.losses[-1:]])


class Work(NamedTuple):
    """What all fits and steps of one evolution share.

    told: how many fields of c channels the network tells. view: what of a residual is looked at: all, or its curl.
    """

    problem: Evolution
    flat: Flat
    told: int
    points: Points
    seed: int
    view: View = as_it_is


def fitted(work: Work, how: Fit) -> Minimum:
    """Fit the initial values, in all fields that the network tells."""
    problem, flat = work.problem, work.flat
    start = torch.vmap(problem.initial)

    def draw(k: int, at: Tensor, stage: int) -> Sequence[Block]:
        def missed(x: Tensor) -> Tensor:
            return flat.field(at)(x) - problem.initial(x).repeat(work.told)

        x, weights = work.points.drawn(problem, missed, flat.size, flat.theta, work.seed, 0, k, stage)
        with torch.no_grad():
            known = start(x).repeat(1, work.told)
        return [_block(lambda theta, p: flat.field(theta)(p[0]) - p[1], x, known, weights)]

    return how.found(draw, flat.theta)


def stepped(
    work: Work, scheme: Scheme, thetas: Sequence[Tensor], dt: float, how: Optimiser, step: int, attempt: int
) -> Minimum:
    """Take the step of a scheme from the weights `thetas`, the newest first, starting from these."""
    problem, flat = work.problem, work.flat
    past = [last(flat.field(theta), problem.channels) for theta in thetas[: scheme.past]]
    known = work.view(scheme.known(past, problem.equation, dt))
    nothing = flat.theta.new_zeros(())

    def residual(theta: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
        if work.view is as_it_is:
            return scheme.residual(flat.field(theta), at[1], past, problem.equation, dt)(at[0])
        # Views are linear, and what is known enters with a minus.
        return work.view(scheme.residual(flat.field(theta), nothing, past, problem.equation, dt))(at[0]) - at[1]

    def draw(k: int, at: Tensor) -> Sequence[Block]:
        seed = (work.seed, step, k, attempt)
        with torch.no_grad():
            x, weights = work.points.drawn(problem, lambda x: residual(at, (x, known(x))), flat.size, flat.theta, *seed)
            block = _block(residual, x, vmap(known)(x), weights)
        return [block, *work.points.walled(problem, work.told, flat.field, flat.size, flat.theta, *seed)]

    return minimised(Following(draw), thetas[0], how)


def _block(residual: Residual, x: Tensor, known: Tensor, weights: Tensor | None) -> Block:
    """The block of a residual at (x, what is known there), each point's multiplied by its own of `weights` [N, 1]."""
    if weights is None:
        return Block(residual, (x, known))
    return Block(lambda theta, at: at[2] * residual(theta, at[:2]), (x, known, weights))


def minimised(draw: Draw, theta: Tensor, how: Optimiser) -> Minimum:
    """By whichever optimiser it is."""
    return descend(draw, theta, how) if isinstance(how, Descent) else minimise(draw, theta, how)
