"""Fits and steps by optimisation: the weights at which a time scheme's residual, or an initial value's, is least."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from sciode.insr.flat import Flat
from sciode.insr.incompressible import View, as_it_is
from sciode.insr.points import Points
from sciode.insr.schemes import Scheme, last
from sciode.pde import Evolution
from sciode.training import Block, Descent, LevenbergMarquardt, Minimum, descend, minimise
from sciode.training.least_squares import loss_of

__all__ = ["Fit", "Optimiser", "Work", "fitted", "minimised", "stepped"]

Optimiser = LevenbergMarquardt | Descent


@dataclass(frozen=True)
class Fit:
    """How a network of random weights is brought to the initial values: gradient descent, then least squares.

    None leaves a stage out. Good values: the defaults; least squares from random weights fail.
    """

    descent: Descent | None = field(default_factory=Descent)
    refine: LevenbergMarquardt | None = field(
        default_factory=lambda: LevenbergMarquardt(iterations=60, tolerance=1e-14, damping=1e-4)
    )


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

    def draw(k: int, stage: int) -> Sequence[Block]:
        at = (work.seed, 0, k, stage)
        x = work.points.inside(problem, flat.size, flat.theta, *at)
        with torch.no_grad():
            wanted = start(x).repeat(1, work.told)
        return [Block(lambda theta, p: flat.field(theta)(p[0]) - p[1], (x, wanted))]

    found = Minimum(flat.theta, float(loss_of(draw(0, 0), flat.theta)), [], "budget")
    for stage, one in enumerate((how.descent, how.refine)):
        if one is not None and math.isfinite(found.loss):
            found = minimised(partial(draw, stage=stage), found.theta, one)
    return found


def stepped(
    work: Work, scheme: Scheme, thetas: Sequence[Tensor], dt: float, how: Optimiser, step: int, attempt: int
) -> Minimum:
    """Take the step of a scheme from the weights `thetas`, the newest first, starting from these."""
    problem, flat = work.problem, work.flat
    past = [last(flat.field(theta), problem.channels) for theta in thetas[: scheme.past]]
    known = vmap(work.view(scheme.known(past, problem.equation, dt)))
    nothing = flat.theta.new_zeros(())

    def residual(theta: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
        if work.view is as_it_is:
            return scheme.residual(flat.field(theta), at[1], past, problem.equation, dt)(at[0])
        # Views are linear, and what is known enters with a minus.
        return work.view(scheme.residual(flat.field(theta), nothing, past, problem.equation, dt))(at[0]) - at[1]

    def draw(k: int) -> Sequence[Block]:
        seed = (work.seed, step, k, attempt)
        x = work.points.inside(problem, flat.size, flat.theta, *seed)
        with torch.no_grad():
            block = Block(residual, (x, known(x)))
        return [block, *work.points.walled(problem, work.told, flat.field, flat.size, flat.theta, *seed)]

    return minimised(draw, thetas[0], how)


def minimised(draw: Callable[[int], Sequence[Block]], theta: Tensor, how: Optimiser) -> Minimum:
    """Descend, or take least-squares steps, as `how` is one or the other."""
    return descend(draw, theta, how) if isinstance(how, Descent) else minimise(draw, theta, how)
