"""Least squares for networks: Levenberg-Marquardt with geodesic acceleration, on points that are drawn afresh.

A loss here is a sum of mean squares of residuals, each of which looks at one point. So every point has a row of the
Jacobian of its own, and the network's few hundred or thousand weights can be moved by solving for all of them at once:
on small networks that reaches losses which gradient descent does not, in hundredths of its time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor
from torch.func import grad

from sciode.solvers.suggest import choose
from sciode.training.blocks import Block, Draw, drawn, enough, loss_of, rows_of, work_of
from sciode.training.gauss_newton import WORTH, Dense, Free, Sum, System, alone

__all__ = ["Block", "LevenbergMarquardt", "Minimum", "Status", "loss_of", "minimise"]

FORMS = ("auto", "normal", "woodbury", "free")
_DENSE = 6000
"""Up to so many unknowns of the linear system it is formed and factored; beyond, conjugate gradients do without."""
_UP, _DOWN = 2.0, 0.1
_LEAST = 1e-15
_BEND = 0.75
"""How long a correction for curvature may be, as a share of the step that it corrects (Transtrum & Sethna)."""

_AHEAD = 0.1
"""How far along a step the residuals are looked at for their curvature, as a share of it."""

_LITTLE = 0.1
"""The share of the `fall` asked for that ten conjugate gradient steps must still take for others to follow."""

Status = Literal["converged", "budget", "stuck", "non-finite"]


class Minimum(NamedTuple):
    """theta [P], its loss on points that it was not moved by, the losses before each iteration, and how it ended.

    status: "converged", the loss on fresh points is at most the tolerance, or what a step promised at most the `fall`
    asked for; "budget", the iterations are used up; "stuck", no step helped twice in a row; "non-finite", a loss was
    not finite, or its derivatives were not where no step helped: theta is the best before that, and what it was at the
    start, with an infinite loss, if there was none.
    fall: the share of the loss that the last step promised to take, where that was asked for; of gradient descent, the
    share that the last tenth of its iterations took.
    """

    theta: Tensor
    loss: float
    losses: list[float]
    status: Status
    fall: float = math.inf

    @property
    def iterations(self) -> int:
        """How often theta was moved, or tried to be."""
        return max(len(self.losses) - 1, 0)


@dataclass(frozen=True)
class LevenbergMarquardt:
    """How to minimise: theta <- theta - (J^T J + damping I)^-1 J^T r, the damping following the gain of each step.

    A step that brought the share g of what the linear model promised multiplies the damping by max(0.1, 1 - (2g - 1)^3)
    (Nielsen's rule, with 0.1 in the place of 1/3); one that leads up is tried again at 2, 8, 64, ... times the damping.

    iterations: at most. tolerance: the loss on fresh points that is good enough (a loss with work in it has no such).
    fall: where the least loss is not 0, as an energy's, the promised share of it below which to stop: 1e-3 is about
    what fresh points let one see. damping: the first of every call; one carried over from a call before misleads.
    tries: steps tried an iteration, each with more damping. form: of the linear system: "normal" (P x P), "woodbury"
    (rows x rows, for fewer rows than weights), "free" (conjugate gradients, nothing is formed) or "auto". accelerate:
    correct each step for the curvature of the residuals along it, for one more evaluation of them. chunk: points whose
    derivatives are formed at a time, None = all.
    sweeps, rank: of "free": conjugate gradient steps at most, and rows of J that precondition them (0: none).

    Good values: 1e-12 to 1e-14 as tolerance in float64; four times as many points as weights, for with fewer than one
    a weight the network leaves the points and oscillates between them. "free": accelerate=False, sweeps=30, rank=500 (a
    fit in the plane by 20,747 weights and 4,096 points, float64, from a loss of 6.5e-5: 1.7e-6 after 21 s of one core,
    Adam 2.9e-6 after 25, rank=0 4.7e-6 after 18). A network with random weights is first brought
    near by gradient descent (`sciode.training.descend`): far from a minimum these steps fail.

    Raises ValueError for numbers that make no sense.
    Source: Nielsen (1999), IMM-REP-1999-05; Transtrum & Sethna, arXiv 1201.5885; Nocedal & Wright (2006), section 10.3.
    """

    iterations: int = 20
    tolerance: float = 1e-12
    damping: float = 1e-6
    tries: int = 6
    form: Literal["auto", "normal", "woodbury", "free"] = "auto"
    accelerate: bool = True
    sweeps: int = 200
    rank: int = 500
    chunk: int | None = None
    fall: float = 0.0

    def __post_init__(self) -> None:
        choose("form", self.form, FORMS)
        if min(self.iterations, self.tries, self.sweeps) < 1 or (self.chunk is not None and self.chunk < 1):
            raise ValueError("iterations, tries, sweeps and chunk must be at least 1")
        if self.rank < 0:
            raise ValueError(f"rank must be at least 0, got {self.rank}")
        if not (0 < self.damping < math.inf and 0 <= self.tolerance < math.inf):
            raise ValueError(f"damping must be > 0 and tolerance >= 0, got {self.damping} and {self.tolerance}")
        if not 0 <= self.fall < 1:
            raise ValueError(f"fall must be at least 0 and below 1, got {self.fall}")


def minimise(
    draw: Draw,
    theta: Tensor,
    how: LevenbergMarquardt | None = None,
    over: Callable[[], bool] | None = None,
    summed: Sum = alone,
) -> Minimum:
    """Move theta [P] down the loss of `draw(k)`, the blocks of iteration k, with points of its own.

    A `Following` draw sees the weights of its iteration besides, and may look for points where they are wrong.
    over: asked before each iteration whether its budget, of time say, is used up.
    summed: over processes, each of which draws blocks of its own: the loss is the sum of theirs, the steps are the same
    on all. "woodbury" needs all rows in one place: ValueError.

    A loss is judged before theta is moved by its points; so `Minimum.loss` and the choice of the best theta are those
    of points that it has not seen. Nothing is drawn here: the same blocks give the same result.
    """
    how = how or LevenbergMarquardt()
    if summed is not alone and how.form == "woodbury":
        raise ValueError('form="woodbury" needs all rows in one process: take "normal" or "free"')
    theta = theta.detach()
    best, least, losses, fall = theta, math.inf, [], math.inf
    damping, growth, failed, sound, settled = how.damping, _UP, 0, True, False
    for k in range(how.iterations + 1):
        blocks = drawn(draw, k, theta)
        rows = rows_of(blocks, theta, how.chunk)
        loss = float(summed(rows.square().sum() + work_of(blocks, theta)))
        losses.append(loss)
        if not math.isfinite(loss):
            return Minimum(best, least, losses, "non-finite", fall)
        if loss < least:
            best, least = theta, loss
        if enough(blocks, loss, how.tolerance) or k == how.iterations or failed > 1 or (over is not None and over()):
            break
        # Derivatives are only formed where they are needed: at the end of an evolution's step they are not.
        here = _Here(blocks, theta, rows, loss, _slope(blocks, theta, summed), summed)
        system, moved = _system(here, how), None
        if how.fall:
            # By the first damping: a step that is held back promises little anywhere.
            fall = _fall(system, here, how.damping)
            settled = fall <= how.fall
            if settled:
                break
        for _ in range(how.tries):
            tried = _tried(system, here, damping, how)
            if tried is not None:
                moved, damping, growth = tried.theta, max(damping * tried.ease, _LEAST), _UP
                break
            damping, growth = damping * growth, growth * _UP
        failed = failed + 1 if moved is None else 0
        sound = moved is not None or system.sound(rows)
        theta = theta if moved is None else moved
    if settled:
        best, least = theta, losses[-1]
    well = settled or enough(blocks, least, how.tolerance)
    ended: Status = "budget" if failed < 2 else "stuck" if sound else "non-finite"
    return Minimum(best, least, losses, "converged" if well else ended, fall)


class _Here(NamedTuple):
    """Where theta stands: the blocks, theta, its rows, the loss, the slope of half the work [P], None without, and what
    sums over processes."""

    blocks: Sequence[Block]
    theta: Tensor
    rows: Tensor
    loss: float
    slope: Tensor | None
    summed: Sum

    def promised(self, step: Tensor, straight: Tensor) -> float:
        """By how much the loss would fall if the rows, J step = `straight` added, and the work were linear."""
        fall = float(self.summed(self.rows.square().sum() - (self.rows + straight).square().sum()))
        return fall if self.slope is None else fall - 2.0 * float(self.slope @ step)


class _Tried(NamedTuple):
    """Weights with a lower loss on the same points, and what to multiply the damping by."""

    theta: Tensor
    ease: float


def _tried(system: System, here: _Here, damping: float, how: LevenbergMarquardt) -> _Tried | None:
    """Where the step of a damping leads, if that is down; corrected for the curvature along it, if slight."""
    blocks, theta, rows, before, slope, summed = here
    step = system.pull(rows, damping, slope)
    if step is None:
        return None
    straight = system.push(step)
    moved = theta + step
    if how.accelerate:
        # By differences, as the authors do it: derivatives nested twice more cost several times a whole step.
        ahead = rows_of(blocks, theta + _AHEAD * step, how.chunk)
        correction = system.pull((ahead - rows - _AHEAD * straight) * (2.0 / _AHEAD**2), damping)
        if correction is not None and float(correction.norm()) < _BEND * float(step.norm()):
            moved = moved + correction / 2
    loss = float(summed(rows_of(blocks, moved, how.chunk).square().sum() + work_of(blocks, moved)))
    if not loss < before:
        return None
    promised = here.promised(step, straight)
    gain = (before - loss) / promised if promised > 0 else 0.5
    return _Tried(moved, max(_DOWN, 1.0 - (2.0 * min(gain, 1.0) - 1.0) ** 3))


def _slope(blocks: Sequence[Block], theta: Tensor, summed: Sum) -> Tensor | None:
    """Half the slope of the work."""
    if all(block.work is None for block in blocks):
        return None
    return summed(grad(lambda at: work_of(blocks, at))(theta)) / 2


def _fall(system: System, here: _Here, damping: float) -> float:
    """The share of the loss that the step of a damping promises."""
    step = system.pull(here.rows, damping, here.slope)
    squares = float(here.summed(here.rows.square().sum()))
    size = squares + abs(here.loss - squares)
    return math.inf if step is None else here.promised(step, system.push(step)) / max(size, 1e-300)


def _system(here: _Here, how: LevenbergMarquardt) -> System:
    many = len(here.rows) if here.summed is alone else math.inf
    small = min(many, len(here.theta))
    form = how.form
    if form == "auto":
        form = "free" if small > _DENSE else "normal" if many >= len(here.theta) else "woodbury"
    if form == "free":
        # A step that gave up early promises little, and would pass for a minimum.
        worth = min(WORTH, _LITTLE * how.fall) if how.fall else WORTH
        return Free(here.blocks, here.theta, how.chunk, how.sweeps, how.rank, worth, here.summed)
    return Dense(here.blocks, here.theta, how.chunk, form == "woodbury", here.summed)
