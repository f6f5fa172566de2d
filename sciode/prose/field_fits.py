"""Written equations of fields fitted to readings: numbers and a smoothed start at once, by solving (`shooting`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciode.prose.circle import Circle
from sciode.prose.field_readings import FieldReadings, field_readings
from sciode.prose.refine import loosened
from sciode.prose.shooting import Model, Shot, shot_of
from sciode.prose.trees import Expression
from sciode.solvers.status import Status

__all__ = ["RefinedField", "refine_field"]

_SHARES = (0.25, 0.5, 1.0)
_NUDGE = 1e-5
_LEAST = 1e-12
_CLOSE = 0.03
"""Steps and points are doubled until solutions move by less, as a share of the noise, root mean squares."""
_SURE = 1e-5
"""The same for answers, as a share of the readings."""
_CLEAN = 1e-3
"""The least share of the noise that differences tell that a fit may take for the noise."""
_FAR = 1e3
"""So many times as large as the largest reading no solution is that could be fitted."""
_GRIDS, _STEPS, _FINER = (2, 4), (1, 2, 4, 8, 16), (2, 4, 8)


class RefinedField(NamedTuple):
    """What `refine_field` returns.

    equations: with fitted numbers, or as they were where that lowered nothing; numbers, deviation: theirs, in prefix
    order, and how far they may still be off, given the noise. before, after: relative L2 distance of solutions from the
    readings, as written from the first frame less waves that noise drowns, and fitted; infinite where there is no
    solution. excess: mean squared distance over that of the noise, 1 where noise explains it, far above where the
    equations are wrong. noise: its standard deviation, as differences of the readings tell it. start [fields, N]: the
    fitted start, smooth where noise is. values [Q, fields, N]: at the query times, NaN where the solve failed. status:
    of that solve, in words; solved: whether it reached the last time.
    """

    equations: tuple[Expression, ...]
    numbers: NDArray[np.float64]
    deviation: NDArray[np.float64]
    before: float
    after: float
    excess: float
    noise: float
    start: NDArray[np.float64]
    values: NDArray[np.float64]
    status: str
    solved: bool


def refine_field(
    equations: Expression | Sequence[Expression],
    x: Any,
    times: Any,
    values: Any,
    query_times: Any = (),
    *,
    spread: float = 0.05,
    rounds: int = 6,
    loose: bool = False,
) -> RefinedField:
    """Fit the numbers of u_t = f(u, u_x, ..., u_xxxx) to readings of u on a circle, and solve it on to query times.

        min over numbers p and starts a of |u(p, a) - readings|^2 / noise^2 + |(p - written) / (spread written)|^2

    - equations: one a field, in the variables of `sciode.prose.fields`: u_0 to u_4 are u, u_x, ..., u_xxxx of the first
      field, u_5 to u_9 those of a second. A wave is (u_5, c^2 u_2). As the model wrote them, or as you think they are.
    - x: even points [N], the first one again left out, N >= 8. times: even, [T], T >= 8. values: [T, N] of the first
      field, or [T, fields, N]; fields that are not given start at 0 at first, and their start is fitted;
      all have noise of one size, and sizes alike (bring times and values to units in which that is so).
    - query_times: [Q], increasing, from times[0] on. spread: how far true numbers lie from those given, as a share: 0
      stays 0. rounds: steps of Levenberg and Marquardt on the first quarter, the half, and all of the frames, each; 0
      solves what is written from the first frame less waves that noise drowns. loose: whether terms without a number of
      their own get one, so that a wrong sign, or a term too many, can be mended where readings insist.

    Solutions go by Fourier modes through `sciode.solve` in a fixed number of steps, what is linear exactly, so that
    nothing hangs: an equation that blows up says so in `status`, and stays as it was. The fit never raises the distance
    from the readings. Raises ValueError for arrays that do not fit, NaN, uneven points or times, or equations that read
    fields that there are not.

    Example: `refine_field(0.01 * variable(2) - variable(0) * variable(1), x, t, u, [1.0]).values[0, 0]`.
    """
    own = tuple(equations) if isinstance(equations, Sequence) else (equations,)
    given = field_readings(own, x, times, values, query_times)
    own = tuple(map(loosened, own)) if loose else own
    if not (isinstance(spread, float | int) and 0 < spread < math.inf and isinstance(rounds, int) and rounds >= 0):
        raise ValueError(f"spread must be positive and rounds an int from 0 on, got {spread!r} and {rounds!r}")
    return _Task(own, given, spread).answer(rounds)


class _Grid(NamedTuple):
    """Where products are formed, and how many steps there are between frames."""

    circle: Circle
    steps: int


@final
@dataclass(frozen=True, eq=False)
class _Task:
    """What is written, beside what is read."""

    equations: tuple[Expression, ...]
    given: FieldReadings
    spread: float

    def answer(self, rounds: int) -> RefinedField:
        given = self.given
        sigma = float(given.noise[0])
        grid, before, after = self.fitted(rounds) if rounds else self.written()
        best = after if after[1] < before[1] else before
        shot, left = best
        numbers = shot.numbers[0, : len(grid.circle.constants)]
        states, status = self.solved(numbers, shot.starts[0], grid.steps)
        whole = float(given.values.square().sum().clamp(min=1e-300))
        return RefinedField(
            shot.equations[0],
            numbers.numpy(),
            shot.chances[0, : len(numbers)].norm(dim=-1).numpy(),
            math.sqrt(before[1] / whole),
            math.sqrt(left / whole),
            left / (self.degrees(shot) * sigma**2),
            sigma,
            given.on(given.points, shot.starts[0]).numpy(),
            states.numpy(),
            Status(status).message,
            status == Status.SUCCESS,
        )

    def written(self) -> tuple[_Grid, tuple[Shot, float], tuple[Shot, float]]:
        """The grid, and twice what is written, with the sum of squares that it leaves."""
        grid = self.resolved(self.equations, self.given.start)
        own = self.shot(grid, self.given.noise, 0)
        return grid, own, own

    def fitted(self, rounds: int) -> tuple[_Grid, tuple[Shot, float], tuple[Shot, float]]:
        """The grid, what is written, and the fit, on one that resolves the fitted solution; where the fit leaves less
        than the noise that was told, it is made again for one that explains what it leaves."""
        grid, before, _ = self.written()
        after = self.shot(grid, self.given.noise, rounds, _SHARES)
        if after[1] < math.inf:
            found = self.resolved(after[0].equations[0], after[0].starts[0])
            grid = _Grid(Circle([self.equations], self.given.length, found.circle.points), found.steps)
            sigma = self.given.noise * float(after[0].excess.sqrt().clamp(_CLEAN, 1.0))
            after = self.shot(grid, sigma, rounds, (1.0,), after[0])
            before = self.shot(grid, self.given.noise, 0)
        return grid, before, after

    def shot(
        self, grid: _Grid, sigma: Tensor, rounds: int, shares: Sequence[float] = (), begin: Shot | None = None
    ) -> tuple[Shot, float]:
        """A fit, and the sum of squares that it leaves."""
        found = shot_of(self.model(grid, sigma), [self.equations], self.spread, rounds, shares, begin)
        return found, float(found.excess[0]) * self.degrees(found) * float(sigma[0]) ** 2

    def degrees(self, shot: Shot) -> int:
        return max(self.given.values.numel() - int(shot.free[0]), 1)

    def model(self, grid: _Grid, sigma: Tensor) -> Model:
        given, (circle, steps) = self.given, grid
        seen, skip = given.values.shape[1], circle.points // given.points

        def follow(numbers: Tensor, starts: Tensor, frames: int) -> Tensor:
            found = circle.moved(numbers, given.on(circle.points, starts), given.times[:frames], steps).values
            return found[..., :seen, ::skip].flatten(-2)

        nudge = _NUDGE * math.sqrt(given.points) * given.values.std().clamp(min=1e-9)
        unit, nudge = sigma[:1].expand(len(given.start)), nudge.expand(len(given.start))
        values = given.values.flatten(1)
        return Model(circle.constants, circle.owners, values, sigma, given.start, unit, nudge, follow, _LEAST)

    def resolved(self, equations: tuple[Expression, ...], start: Tensor) -> _Grid:
        """The first grid and steps whose solution from a start [S] the next ones do not change; the finest, if none;
        the coarsest, if there is none that stays near the readings at all."""
        given = self.given
        grids = [Circle([equations], given.length, many * given.points) for many in _GRIDS]

        def path(circle: Circle, steps: int, frames: int | None = None) -> Tensor:
            begin = given.on(circle.points, start)[None, None]
            found = circle.moved(circle.constants, begin, given.times[:frames], steps).values
            return found[..., :: circle.points // given.points]

        def near(other: Tensor) -> bool:
            return bool((other - fine).square().mean().sqrt() < _CLOSE * given.noise[0])

        quarter, far = max(len(given.times) // 4, 2), _FAR * float(given.values.abs().max())
        least = next((k for k in _STEPS if bool((path(grids[-1], k, quarter + 1).abs() < far).all())), None)
        if least is None:
            return _Grid(grids[0], _STEPS[0])
        steps, fine = least, path(grids[-1], least)
        for more in _STEPS[_STEPS.index(least) + 1 :]:
            finer = path(grids[-1], more)
            if near(finer):
                break
            steps, fine = more, finer
        if not bool((fine.abs() < far).all()):
            return _Grid(grids[0], _STEPS[0])
        return next((_Grid(one, steps) for one in grids[:-1] if near(path(one, steps))), _Grid(grids[-1], steps))

    def solved(self, numbers: Tensor, start: Tensor, steps: int) -> tuple[Tensor, int]:
        """States at the asked times [Q, fields, N], on the finest grid, in steps of which half changes nothing, and the
        solver's status; without any, whether the last reading is reached."""
        given = self.given
        circle = Circle([self.equations], given.length, _GRIDS[-1] * given.points)
        size = _SURE * given.values.square().mean().sqrt()
        begin, asked = given.on(circle.points, start), given.asked if len(given.asked) else given.times[-1:]
        states, status = _gap_by_gap(circle, numbers, begin, asked, float(given.times[1]) / steps)
        for more in _FINER:
            before, failed = states, status != Status.SUCCESS
            states, status = _gap_by_gap(circle, numbers, begin, asked, float(given.times[1]) / (steps * more))
            if bool((states - before).square().mean().sqrt() < size) or (failed and status != Status.SUCCESS):
                break
        return states[: len(given.asked), :, :: circle.points // given.points], status


def _gap_by_gap(circle: Circle, numbers: Tensor, start: Tensor, asked: Tensor, dt: float) -> tuple[Tensor, int]:
    """States [Q, fields, points] at times after 0, even or not, in steps of dt or a little less; and the status."""
    now, clock, found, status = start[None, None], 0.0, [], int(Status.SUCCESS)
    for one in asked.tolist():
        if one > clock and status == Status.SUCCESS:
            times = torch.tensor([clock, one], dtype=torch.float64)
            moved = circle.moved(numbers, now, times, max(1, math.ceil((one - clock) / dt - 1e-9)))
            now, clock, status = moved.values[-1], one, int(moved.status)
        found.append(now[0, 0])
    return torch.stack(found), status
