"""Written equations fitted to a whole trajectory: numbers and the start at once, with what they may still be.

The path from a start, fitted too, lies beside all readings, whose noise is then white and counted once: short solutions
from noisy readings (`sciode.prose.refine`) see it twice, as wrong starts and as wrong ends, and bend numbers for it.
Residuals at the best fit tell whether the equations can be those of the readings; the curvature there, how far numbers
may be moved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sciode.prose.programs import Programs
from sciode.prose.trees import Expression
from sciode.solvers import solve

__all__ = ["Model", "Shot", "noise_of", "shoot", "shot_of", "with_numbers"]

_STEPS = 2
_NUDGE = 1e-5
_SHARES = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
_FAR = 1e6
_STILL = 1e-9
"""A step that promises to lower the objective, which noise makes of the order of readings, by less is not made."""
_ALIKE = 1.3
_LEAST = 3e-4
"""Noise is taken to be at least this share of a component's spread: the solver's own error is below."""


class Shot(NamedTuple):
    """Of B systems: equations with fitted numbers; starts [B, d]; excess [B]: mean squared residual, 1 where noise
    explains it; total [B]: sum of squared residuals and of what the prior adds; volume [B]: logarithm of the share that
    numbers have of what they had before; free [B]: how many numbers are fitted, starts included.

    numbers, chances: fitted [B, K + d] (the equations' in prefix order, zeros behind each system's own, then the start)
    and a square root [B, K + d, K + d] of their covariance, which is that of a noise which explains what is left.
    """

    equations: list[tuple[Expression, ...]]
    starts: Tensor
    excess: Tensor
    total: Tensor
    volume: Tensor
    free: Tensor
    numbers: Tensor
    chances: Tensor

    @property
    def evidence(self) -> Tensor:
        """Log-probabilities of the readings [B], but for a number that all share, by Laplace's approximation.

        Where noise explains none of the systems, what the best one leaves is taken for noise.
        """
        least = self.excess.amin().clamp(min=1.0)
        return torch.where(self.excess.isfinite(), self.volume - 0.5 * self.total / least, -torch.inf)


class Model(NamedTuple):
    """How paths follow from numbers and starts, and what they are beside.

    constants, owners [K]: numbers of B systems and whose they are, as `Programs` has them. values [T, R], sigma [R]:
    readings and the deviation of their noise. start, unit, nudge [S]: a first guess at what a start is made of, in what
    it is counted, and how far it is moved for slopes. follow: numbers [K, N], starts [B, N, S] and how many frames ->
    paths [frames, B, N, R]. least: numbers are counted in shares of their size, but not of a smaller one.
    """

    constants: Tensor
    owners: Tensor
    values: Tensor
    sigma: Tensor
    start: Tensor
    unit: Tensor
    nudge: Tensor
    follow: Callable[[Tensor, Tensor, int], Tensor]
    least: float = 0.1


def noise_of(values: Tensor, shared: bool = False) -> Tensor:
    """Return the standard deviation of white noise in even readings [T, d], of each component, [d].

    By differences of orders 2 to 8, of which a smooth curve leaves the less the higher they are, while those of noise
    stay and scatter the more: the lowest order whose root mean square is within 30 % of the least. Not below 3e-4 of a
    component's spread. shared: whether all components, points of a field, have the same.
    """
    found, apart = [], values
    for order in range(1, min(9, len(values) - 4)):
        apart = apart.diff(dim=0)
        if order > 1:
            found.append((apart.square().mean(0) / math.comb(2 * order, order)).sqrt())
    spread, each = values.std(0, correction=0), torch.stack(found)
    if shared:
        spread, each = (one.square().mean(-1, keepdim=True).sqrt().expand_as(one) for one in (spread, each))
    spread = spread.clamp(min=1e-9 * float(values.abs().max()) + 1e-12)
    lowest = (each <= _ALIKE * each.amin(0)).int().argmax(0)
    return torch.maximum(each.gather(0, lowest[None])[0], _LEAST * spread)


def shoot(
    systems: Sequence[tuple[Expression, ...]],
    times: Tensor,
    values: Tensor,
    spread: float = 0.05,
    rounds: int = 4,
) -> Shot:
    """Fit B systems to one trajectory values [T, d] at even times [T], by Levenberg and Marquardt.

    spread: how far true numbers lie from those that are given, as a share of their size (of 0.1 at least): a Gaussian
    prior. rounds: iterations on the first eighth, quarter, and so on up to all of the readings, each: from a start that
    is off, a long path has other minima. Systems whose path stops, or goes away by a million times the noise, have
    infinite `excess`.
    """
    programs, gap = Programs(systems, values.shape[1], values), float(times[1] - times[0])

    def field(t: Tensor, y: Tensor, numbers: Tensor) -> Tensor:
        return programs(y, numbers)

    def follow(numbers: Tensor, starts: Tensor, frames: int) -> Tensor:
        with torch.no_grad():
            return solve(
                field, starts, times[:frames], method="rk4", dt=gap / _STEPS, args=numbers, throw=False, engine="eager"
            ).ys

    sigma = noise_of(values)
    nudge = _NUDGE * values.std(0).clamp(min=1e-9)
    model = Model(programs.constants, programs.owners, values, sigma, values[0], sigma, nudge, follow)
    return shot_of(model, systems, spread, rounds)


def shot_of(
    model: Model,
    systems: Sequence[tuple[Expression, ...]],
    spread: float,
    rounds: int,
    shares: Sequence[float] = _SHARES,
    begin: Shot | None = None,
) -> Shot:
    """The same for paths that follow by another rule. shares: of the readings, one after another. begin: an earlier fit
    of the same systems, from which this one goes on."""
    problem = _Problem(systems, model, spread)
    theta = problem.begun(begin)
    for frames in dict.fromkeys(max(int(share * len(model.values)), 8) for share in shares):
        theta = problem.fitted(theta, frames, rounds)
    return problem.shot(theta)


class _Problem:
    """Numbers in units of their prior, starts in their own, behind them; one row a system."""

    def __init__(self, systems: Sequence[tuple[Expression, ...]], model: Model, spread: float) -> None:
        self.systems, self.model = list(systems), model
        owners, count = model.owners, len(systems)
        self.counts = torch.bincount(owners, minlength=count)
        self.numbers = int(self.counts.max())
        self.place = torch.arange(len(owners)) - (self.counts.cumsum(0) - self.counts)[owners]
        self.unit = spread * model.constants.abs().clamp(min=model.least)
        self.width = self.numbers + len(model.start)
        self.own = torch.arange(self.width) < self.counts[:, None]
        self.own[:, self.numbers :] = True
        # Numbers have a prior of unit size; those that a system lacks, too, which keeps matrices regular.
        self.prior = (torch.arange(self.width) < self.numbers).double()

    def begun(self, shot: Shot | None) -> Tensor:
        """The numbers of an earlier fit; what is written, and the first guess at a start, without one."""
        theta = torch.zeros(len(self.systems), self.width, dtype=torch.float64)
        if shot is not None:
            own = (self.model.owners, self.place)
            theta[own] = (shot.numbers[own] - self.model.constants) / self.unit
            theta[:, self.numbers :] = (shot.starts - self.model.start) / self.model.unit
        return theta

    def constants(self, theta: Tensor) -> Tensor:
        """[K, ...] of theta [B, ..., P]."""
        moved = theta[self.model.owners, ..., :].gather(
            -1, self.place.view(-1, *[1] * (theta.ndim - 1)).expand(-1, *theta.shape[1:-1], 1)
        )[..., 0]
        return (
            self.model.constants.view(-1, *[1] * (moved.ndim - 1)) + self.unit.view(-1, *[1] * (moved.ndim - 1)) * moved
        )

    def starts(self, theta: Tensor) -> Tensor:
        return self.model.start + self.model.unit * theta[..., self.numbers :]

    def looked(self, theta: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        """Residuals [B, R], their slopes [B, R, P], and the objective [B], infinite where a path stops."""
        nudged = torch.cat((theta[:, None], theta[:, None] + self.nudges), 1)
        found = self.model.follow(self.constants(nudged), self.starts(nudged), frames)
        scaled = ((found - self.model.values[:frames, None, None]) / self.model.sigma).permute(1, 2, 0, 3).flatten(2)
        residual = scaled[:, 0]
        slopes = ((scaled[:, 1:] - residual[:, None]) / self.nudges.diagonal()[:, None]).transpose(1, 2)
        total = residual.square().sum(1) + (self.prior * theta.square()).sum(1)
        fine = scaled.isfinite().flatten(1).all(1) & (residual.abs().amax(1) < _FAR)
        return residual, slopes * self.own[:, None], torch.where(fine, total, torch.inf)

    @property
    def nudges(self) -> Tensor:
        size = torch.full((self.width,), _NUDGE / 0.05, dtype=torch.float64)
        size[self.numbers :] = self.model.nudge / self.model.unit
        return torch.diag(size)

    def fitted(self, theta: Tensor, frames: int, rounds: int) -> Tensor:
        damping = torch.full((len(theta), 1), 1e-2, dtype=torch.float64)
        residual, slopes, total = self.looked(theta, frames)
        for _ in range(rounds):
            right = (slopes.transpose(1, 2) @ residual[..., None])[..., 0] + self.prior * theta
            curved = self.curved(slopes)
            eased = curved + torch.diag_embed(damping * curved.diagonal(dim1=1, dim2=2))
            step = torch.linalg.solve_ex(eased, right[..., None])[0][..., 0].nan_to_num(0.0, 0.0, 0.0)
            step = step * self.own
            promise = (step * right).sum(1)
            # Where there are no slopes there is nowhere to go; where the path is far off there may be.
            if bool((promise.isnan() | (total.isfinite() & (promise <= _STILL * (1 + total)))).all()):
                break
            trial = theta - step
            new_residual, new_slopes, new_total = self.looked(trial, frames)
            better = new_total < total
            theta = torch.where(better[:, None], trial, theta)
            residual = torch.where(better[:, None], new_residual, residual)
            slopes = torch.where(better[:, None, None], new_slopes, slopes)
            total = torch.where(better, new_total, total)
            damping = torch.where(better[:, None], damping / 8, damping * 6).clamp(1e-9, 1e9)
        return theta

    def curved(self, slopes: Tensor) -> Tensor:
        """Half the second derivatives of the objective, ones for numbers that a system lacks."""
        diagonal = self.prior + 1e-9
        return slopes.transpose(1, 2) @ slopes + torch.diag(diagonal)

    def shot(self, theta: Tensor) -> Shot:
        residual, slopes, total = self.looked(theta, len(self.model.values))
        free = self.counts + len(self.model.start)
        fine = total.isfinite()
        degrees = (residual.shape[1] - free).clamp(min=1)
        excess = torch.where(fine, residual.square().sum(1) / degrees, torch.inf)
        curved = torch.where(fine[:, None, None], self.curved(slopes), torch.eye(self.width, dtype=torch.float64))
        factor = torch.linalg.cholesky_ex(curved)[0]
        volume = -factor.diagonal(dim1=1, dim2=2).log().sum(1)
        eye = torch.eye(self.width, dtype=torch.float64).expand_as(factor)
        root = torch.linalg.solve_triangular(factor.transpose(1, 2), eye, upper=True) * self.own[:, :, None]
        root = root * excess.clamp(1.0, 1e6).sqrt()[:, None, None]
        numbers, units = torch.zeros_like(theta), torch.zeros_like(theta)
        own = (self.model.owners, self.place)
        numbers[own], units[own] = self.constants(theta), self.unit
        numbers[:, self.numbers :], units[:, self.numbers :] = self.starts(theta), self.model.unit
        equations = [with_numbers(one, row) for one, row in zip(self.systems, numbers.tolist(), strict=True)]
        return Shot(equations, self.starts(theta), excess, total, volume, free, numbers, units[..., None] * root)


def with_numbers(system: Sequence[Expression], numbers: Sequence[float]) -> tuple[Expression, ...]:
    """Return a system with other numbers, in prefix order; those behind its own are not looked at."""
    left = iter(numbers)
    return tuple(one.with_constants([next(left) for _ in one.constants]) for one in system)
