"""Least squares for networks: Levenberg-Marquardt with geodesic acceleration, on points that are drawn afresh.

A loss here is a sum of mean squares of residuals, each of which looks at one point. So every point has a row of the
Jacobian of its own, and the network's few hundred or thousand weights can be moved by solving for all of them at once:
on small networks that reaches losses which gradient descent does not, in hundredths of its time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, final

import torch
from torch import Tensor
from torch.func import grad_and_value, jacrev, jvp, vjp, vmap
from torch.utils import _pytree as pytree

from sciode.solvers.suggest import choose

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

Status = Literal["converged", "budget", "stuck", "non-finite"]


class Block(NamedTuple):
    """One term of a loss: weight x the mean over the points of |residual|^2 + work.

    residual: (theta [P], one point) -> [m]. points: a tensor [N, ...], or a tree of tensors that share this first axis:
    what is known at a point beforehand (an earlier field's values, say) travels with it and is not computed again.
    work: (theta [P], one point) -> [], a term of any sign, as that of a load on an elastic body. A step sees its slope
    and not its curvature: what is nearly linear in the field is at its place here.
    """

    residual: Callable[[Tensor, Any], Tensor]
    points: Any
    weight: float = 1.0
    work: Callable[[Tensor, Any], Tensor] | None = None

    @property
    def scale(self) -> float:
        """What makes of a residual its part of a vector whose squares sum to the loss."""
        return math.sqrt(self.weight / len(pytree.tree_leaves(self.points)[0]))


class Minimum(NamedTuple):
    """theta [P], its loss on points that it was not moved by, the losses before each iteration, and how it ended.

    status: "converged", the loss on fresh points is at most the tolerance, or what a step promised at most the `fall`
    asked for; "budget", the iterations are used up; "stuck", no step helped twice in a row; "non-finite", a loss was
    not finite: theta is the best before that, and what it was at the start, with an infinite loss, if there was none.
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
    correct each step for the curvature of the residuals along it, for one more evaluation of them. sweeps: conjugate
    gradient steps at most. chunk: points whose rows are formed at a time, None = all.

    Good values: 1e-12 to 1e-14 as tolerance in float64; four times as many points as weights, for with fewer than one
    a weight the network leaves the points and oscillates between them. A network with random weights is first brought
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
    chunk: int | None = None
    fall: float = 0.0

    def __post_init__(self) -> None:
        choose("form", self.form, FORMS)
        if min(self.iterations, self.tries, self.sweeps) < 1 or (self.chunk is not None and self.chunk < 1):
            raise ValueError("iterations, tries, sweeps and chunk must be at least 1")
        if not (0 < self.damping < math.inf and 0 <= self.tolerance < math.inf):
            raise ValueError(f"damping must be > 0 and tolerance >= 0, got {self.damping} and {self.tolerance}")
        if not 0 <= self.fall < 1:
            raise ValueError(f"fall must be at least 0 and below 1, got {self.fall}")


Draw = Callable[[int], Sequence[Block]]


def minimise(draw: Draw, theta: Tensor, how: LevenbergMarquardt | None = None) -> Minimum:
    """Move theta [P] down the loss of `draw(k)`, the blocks of iteration k, with points of its own.

    A loss is judged before theta is moved by its points; so `Minimum.loss` and the choice of the best theta are those
    of points that it has not seen. Nothing is drawn here: the same blocks give the same result.
    """
    how = how or LevenbergMarquardt()
    theta = theta.detach()
    best, least, losses, fall = theta, math.inf, [], math.inf
    damping, growth, failed, settled = how.damping, _UP, 0, False
    for k in range(how.iterations + 1):
        blocks = draw(k)
        last = k == how.iterations
        system = None if last else _system(blocks, theta, how)
        loss = float(loss_of(blocks, theta)) if system is None else system.loss
        losses.append(loss)
        if not math.isfinite(loss):
            return Minimum(best, least, losses, "non-finite", fall)
        if loss < least:
            best, least = theta, loss
        if enough(blocks, loss, how.tolerance) or last or failed > 1:
            break
        assert system is not None
        if how.fall:
            # By the first damping: a step that is held back promises little anywhere.
            fall = system.fall(how.damping)
            settled = fall <= how.fall
            if settled:
                break
        moved = None
        for _ in range(how.tries):
            tried = system.tried(damping)
            if tried is not None:
                moved, damping, growth = tried.theta, max(damping * tried.ease, _LEAST), _UP
                break
            damping, growth = damping * growth, growth * _UP
        failed = failed + 1 if moved is None else 0
        theta = theta if moved is None else moved
    if settled:
        best, least = theta, losses[-1]
    well = settled or enough(blocks, least, how.tolerance)
    return Minimum(best, least, losses, "converged" if well else "stuck" if failed > 1 else "budget", fall)


def enough(blocks: Sequence[Block], loss: float, tolerance: float) -> bool:
    """Whether a loss is small; one with work in it may be of any size and sign, and never is."""
    return loss <= tolerance and all(block.work is None for block in blocks)


def loss_of(blocks: Sequence[Block], theta: Tensor) -> Tensor:
    """Return sum_b weight_b mean_i (|residual_b(theta, point_i)|^2 + work_b(theta, point_i))."""
    return _rows(blocks, theta).square().sum() + _work(blocks, theta)


def _work(blocks: Sequence[Block], theta: Tensor) -> Tensor:
    """The part of the loss that is no square []."""
    parts = [b.weight * vmap(b.work, (None, 0))(theta, b.points).mean() for b in blocks if b.work is not None]
    return torch.stack(parts).sum() if parts else theta.new_zeros(())


def _rows(blocks: Sequence[Block], theta: Tensor) -> Tensor:
    """All residuals, scaled so that their squares sum to the loss [R]."""
    return torch.cat([vmap(b.residual, (None, 0))(theta, b.points).reshape(-1) * b.scale for b in blocks])


class _Tried(NamedTuple):
    """Weights with a lower loss on the same points, and what to multiply the damping by."""

    theta: Tensor
    ease: float


class _System(ABC):
    """The residuals around theta, r(theta + step) = rows + J step + ..., and the slope of half the work [P]."""

    def __init__(self, blocks: Sequence[Block], theta: Tensor, rows: Tensor, accelerate: bool) -> None:
        self.blocks, self.theta, self.rows, self.accelerate = blocks, theta, rows, accelerate
        self.slope: Tensor | None = None
        self.squares, work = float(rows.square().sum()), 0.0
        if any(block.work is not None for block in blocks):
            slope, value = grad_and_value(lambda at: _work(blocks, at))(theta)
            self.slope, work = slope / 2, float(value)
        self.loss, self.size = self.squares + work, self.squares + abs(work)

    @abstractmethod
    def pull(self, rows: Tensor, damping: float, slope: Tensor | None = None) -> Tensor | None:
        """Return -(J^T J + damping I)^-1 (J^T rows + slope), None where that cannot be had."""

    @abstractmethod
    def push(self, step: Tensor) -> Tensor:
        """Return J step."""

    def promised(self, step: Tensor, straight: Tensor) -> float:
        """By how much the loss would fall if the rows, J step = `straight` added, and the work were linear."""
        fall = self.squares - float((self.rows + straight).square().sum())
        return fall if self.slope is None else fall - 2.0 * float(self.slope @ step)

    def fall(self, damping: float) -> float:
        """The share of the loss that the step of a damping promises."""
        step = self.pull(self.rows, damping, self.slope)
        return math.inf if step is None else self.promised(step, self.push(step)) / max(self.size, 1e-300)

    def tried(self, damping: float) -> _Tried | None:
        """Where the step of a damping leads, if that is down; corrected for the curvature along it, if slight."""
        step = self.pull(self.rows, damping, self.slope)
        if step is None:
            return None
        straight = self.push(step)
        theta = self.theta + step
        if self.accelerate:
            # By differences, as the authors do it: derivatives nested twice more cost several times a whole step.
            ahead = _rows(self.blocks, self.theta + _AHEAD * step)
            correction = self.pull((ahead - self.rows - _AHEAD * straight) * (2.0 / _AHEAD**2), damping)
            if correction is not None and float(correction.norm()) < _BEND * float(step.norm()):
                theta = theta + correction / 2
        loss = float(loss_of(self.blocks, theta))
        if not loss < self.loss:
            return None
        promised = self.promised(step, straight)
        gain = (self.loss - loss) / promised if promised > 0 else 0.5
        return _Tried(theta, max(_DOWN, 1.0 - (2.0 * min(gain, 1.0) - 1.0) ** 3))


def _system(blocks: Sequence[Block], theta: Tensor, how: LevenbergMarquardt) -> _System:
    rows = _rows(blocks, theta)
    small = min(len(rows), len(theta))
    form = how.form
    if form == "auto":
        form = "free" if small > _DENSE else "normal" if len(rows) >= len(theta) else "woodbury"
    if form == "free":
        return _Free(blocks, theta, rows, how)
    return _Dense(blocks, theta, rows, how, form == "woodbury")


def _jacobian(block: Block, theta: Tensor, chunk: int | None) -> Tensor:
    """A block's rows of J [N m, P]."""
    each = vmap(jacrev(block.residual), (None, 0), chunk_size=chunk)(theta, block.points)
    return each.reshape(-1, len(theta)) * block.scale


@final
class _Dense(_System):
    """By Cholesky's factors of J^T J + damping I or, where there are fewer rows than weights, of J J^T + damping I.

    (J^T J + d I)^-1 J^T = J^T (J J^T + d I)^-1.
    """

    def __init__(
        self, blocks: Sequence[Block], theta: Tensor, rows: Tensor, how: LevenbergMarquardt, by_rows: bool
    ) -> None:
        super().__init__(blocks, theta, rows, how.accelerate)
        self.jacobian = torch.cat([_jacobian(block, theta, how.chunk) for block in blocks])
        self.by_rows = by_rows
        self.gram = self.jacobian @ self.jacobian.T if by_rows else self.jacobian.T @ self.jacobian
        self.factored: tuple[float, Tensor | None] = (-1.0, None)

    def pull(self, rows: Tensor, damping: float, slope: Tensor | None = None) -> Tensor | None:
        """See `_System.pull`."""
        if self.factored[0] != damping:
            self.factored = damping, _cholesky(self.gram, damping)
        factor = self.factored[1]
        if factor is None:
            return None
        if self.by_rows:
            found = -self.jacobian.T @ torch.cholesky_solve(rows.unsqueeze(1), factor)[:, 0]
            if slope is None:
                return found
            # (J^T J + d I)^-1 = (I - J^T (J J^T + d I)^-1 J) / d.
            seen = torch.cholesky_solve((self.jacobian @ slope).unsqueeze(1), factor)[:, 0]
            return found - (slope - self.jacobian.T @ seen) / damping
        right = self.jacobian.T @ rows
        return -torch.cholesky_solve((right if slope is None else right + slope).unsqueeze(1), factor)[:, 0]

    def push(self, step: Tensor) -> Tensor:
        """See `_System.push`."""
        return self.jacobian @ step


@final
class _Free(_System):
    """By conjugate gradients on the normal equations, from products with J and J^T alone."""

    def __init__(self, blocks: Sequence[Block], theta: Tensor, rows: Tensor, how: LevenbergMarquardt) -> None:
        super().__init__(blocks, theta, rows, how.accelerate)
        self.sweeps = how.sweeps
        self._back: Callable[[Tensor], tuple[Tensor]] = vjp(lambda at: _rows(blocks, at), theta)[1]

    def pull(self, rows: Tensor, damping: float, slope: Tensor | None = None) -> Tensor | None:
        """See `_System.pull`; as near as the sweeps come."""
        residual = -self._back(rows)[0] if slope is None else -self._back(rows)[0] - slope
        found, direction = torch.zeros_like(residual), residual
        size = residual @ residual
        enough = 1e-20 * size
        for _ in range(self.sweeps):
            if not size > enough:
                break
            turned = self._back(self.push(direction))[0] + damping * direction
            length = size / (direction @ turned)
            found, residual = found + length * direction, residual - length * turned
            size, before = residual @ residual, size
            direction = residual + size / before * direction
        return found if bool(torch.isfinite(found).all()) else None

    def push(self, step: Tensor) -> Tensor:
        """See `_System.push`."""
        return jvp(lambda at: _rows(self.blocks, at), (self.theta,), (step,))[1]


def _cholesky(gram: Tensor, damping: float) -> Tensor | None:
    damped = gram.clone()
    damped.diagonal().add_(damping)
    factor, info = torch.linalg.cholesky_ex(damped)
    return factor if int(info) == 0 else None
