"""Written equations of fields fitted to readings: numbers and a smoothed start at once, by solving (`shooting`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciode.prose.arrays import numbers_in
from sciode.prose.circle import Circle, refined_grid
from sciode.prose.shooting import Model, noise_of, shot_of
from sciode.prose.trees import Expression
from sciode.solvers.status import Status

__all__ = ["RefinedField", "refine_field"]

_FEWEST = 8
_SHARES = (0.25, 0.5, 1.0)
_NUDGE = 1e-5
_LEAST = 1e-12
_HEARD = 3.0
"""A mode whose power is so many deviations above that of noise is no noise."""
_CLOSE = 3e-5
"""Steps and points are doubled until solutions move by less, as a share of the readings' spread, or ten times less than
noise."""
_GRIDS, _STEPS = (2, 4), (1, 2, 4, 8, 16, 32)


class RefinedField(NamedTuple):
    """What `refine_field` returns.

    equations: with fitted numbers, or as they were where that lowered nothing; numbers, deviation: theirs, in prefix
    order, and how far they may still be off, given the noise. before, after: relative L2 distance of solutions from the
    readings, as written from the first frame, and fitted; infinite where there is no solution. excess: mean squared
    distance over that of the noise, 1 where noise explains it. noise: its standard deviation, as differences of the
    readings tell it. start [fields, N]: the fitted start, smooth where noise is. values [Q, fields, N]: at the query
    times, NaN where the solve failed. status: of that solve, in words; solved: whether it reached the last time.
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
) -> RefinedField:
    """Fit the numbers of u_t = f(u, u_x, ..., u_xxxx) to readings of u on a circle, and solve it on to query times.

        min over numbers p and starts a of |u(p, a) - readings|^2 / noise^2 + |(p - written) / (spread written)|^2

    - equations: one a field, in the variables of `sciode.prose.fields`: u_0 to u_4 are u, u_x, ..., u_xxxx of the first
      field, u_5 to u_9 those of a second. A wave is (u_5, c^2 u_2). As the model wrote them, or as you think they are.
    - x: even points [N], the first one again left out, N >= 8. times: even, [T], T >= 8. values: [T, N] of the first
      field, or [T, fields, N]; fields that are not given start at 0 at first, and their start is fitted.
    - query_times: [Q], increasing, from times[0] on. spread: how far true numbers lie from those given, as a share.
      rounds: steps of Levenberg and Marquardt on the first quarter, the half, and all of the frames, each; 0 solves
      what is written from the first frame.

    Solutions go by Fourier modes through `sciode.solve` in a fixed number of steps, what is linear exactly, so that
    nothing hangs: an equation that blows up says so in `status`, and stays as it was. The fit never raises the distance
    from the readings. Raises ValueError for arrays that do not fit, NaN, uneven points or times, or equations that read
    fields that there are not.

    Example: `refine_field(0.01 * variable(2) - variable(0) * variable(1), x, t, u, [1.0]).values[0, 0]`.
    """
    own = (equations,) if isinstance(equations, Expression) else tuple(equations)
    given = _readings(own, x, times, values, query_times)
    if not (0 < spread < math.inf and isinstance(rounds, int) and rounds >= 0):
        raise ValueError(f"spread must be positive and rounds at least 0, got {spread} and {rounds}")
    sigma = noise_of(given.values.flatten(1), shared=True)
    basis = _basis(given, float(sigma[0]), len(own))
    circle, steps = _resolved(own, given, basis, float(sigma[0]))
    model = _model(circle, steps, given, basis, sigma)
    written = shot_of(model, [own], spread, 0, ())
    fitted = shot_of(model, [own], spread, rounds, _SHARES if rounds else ())
    best = fitted if bool(fitted.excess < written.excess) else written
    return _answer(given, circle, steps, basis, model, (written, best))


class _Given(NamedTuple):
    """Readings [T, seen, N] at even times [T] of a circle; asked [Q]: query times behind times[0]."""

    length: float
    times: Tensor
    values: Tensor
    asked: Tensor


def _readings(equations: Sequence[Any], x: Any, times: Any, values: Any, query_times: Any) -> _Given:
    for one in equations:
        if not isinstance(one, Expression):
            raise ValueError(f"an equation is an Expression of variable(0), ..., got {one!r}")
        if one.parameters:
            raise ValueError(f"the equations have parameters without numbers: {', '.join(one.parameters)}; see `bound`")
    places, t, u = (numbers_in(name, own) for name, own in (("x", x), ("times", times), ("values", values)))
    asked = np.atleast_1d(numbers_in("query_times", query_times))
    u = u[:, None] if u.ndim == 2 else u
    if places.ndim != 1 or t.ndim != 1 or u.ndim != 3 or (len(t), len(places)) != (len(u), u.shape[2]):
        raise ValueError(
            f"expected x [N], times [T] and values [T, N] or [T, fields, N], got {places.shape}, {t.shape}, {u.shape}"
        )
    if not 1 <= u.shape[1] <= len(equations) or len(t) < _FEWEST or len(places) < _FEWEST:
        raise ValueError(
            f"there are {len(equations)} equations, {u.shape[1]} fields are given at {len(t)} times on "
            f"{len(places)} points: give at most as many fields as equations, {_FEWEST} times and points or more"
        )
    if not all(np.isfinite(one).all() for one in (places, t, u, asked)):
        raise ValueError("x, times, values and query_times must be finite: leave frames with NaN out at the ends")
    for name, own in (("x", places), ("times", t)):
        gaps = np.diff(own)
        if not (gaps[0] > 0 and np.allclose(gaps, gaps[0], rtol=1e-4, atol=0)):
            raise ValueError(f"{name} must increase evenly: lay the readings on an even grid first (a cubic spline)")
    if asked.ndim != 1 or (len(asked) and (asked[0] < t[0] - 1e-12 or (np.diff(asked) <= 0).any())):
        raise ValueError(f"query_times must increase, and begin at {t[0]:g} or later")
    even = torch.linspace(0, float(t[-1] - t[0]), len(t), dtype=torch.float64)
    length = float(places[-1] - places[0]) * len(places) / (len(places) - 1)
    return _Given(length, even, torch.tensor(u), torch.tensor(asked - t[0]).clamp(min=0.0))


def _basis(given: _Given, sigma: float, fields: int) -> list[Tensor]:
    """Orthonormal waves [modes, N] for the start of each field: up to the last that is heard above the noise.

    A field that is not given has those that are heard in all frames together.
    """
    _, seen, points = given.values.shape
    x = 2 * math.pi * torch.arange(points, dtype=torch.float64) / points
    found = []
    for field in range(fields):
        frames = given.values[:1, field] if field < seen else given.values.flatten(0, 1)
        # Of white noise these are means of chi squared of two degrees: 1, less or more by one over the root of frames.
        power = torch.fft.rfft(frames, dim=-1).abs().square().mean(0) / (points * sigma**2)
        heard = (power > 1 + _HEARD / math.sqrt(len(frames))).nonzero()
        last = int(heard.amax()) if len(heard) else 0
        waves = [torch.full_like(x, 1 / math.sqrt(points))]
        for k in range(1, last + 1):
            alone = 2 * k == points
            waves.append(torch.cos(k * x) * math.sqrt((1 if alone else 2) / points))
            waves += [] if alone else [torch.sin(k * x) * math.sqrt(2 / points)]
        found.append(torch.stack(waves))
    return found


def _start(given: _Given, basis: Sequence[Tensor]) -> Tensor:
    """Of the first frame, what the waves hold; 0 of fields that are not given."""
    seen = given.values.shape[1]
    return torch.cat([
        waves @ given.values[0, field] if field < seen else waves.new_zeros(len(waves))
        for field, waves in enumerate(basis)
    ])  # fmt: skip


def _fields(basis: Sequence[Tensor], start: Tensor, points: int) -> Tensor:
    """Starts [..., S] as fields [..., fields, points]."""
    parts = start.split([len(waves) for waves in basis], -1)
    return refined_grid(torch.stack([own @ waves for own, waves in zip(parts, basis, strict=True)], -2), points)


def _resolved(
    equations: tuple[Expression, ...], given: _Given, basis: Sequence[Tensor], sigma: float
) -> tuple[Circle, int]:
    """The first grid and number of steps a gap whose solution the next ones do not change; the finest where none is."""
    points = given.values.shape[-1]
    close = max(_CLOSE * float(given.values.std()), 0.1 * sigma)
    start = _start(given, basis)
    grids = [Circle([equations], given.length, many * points) for many in _GRIDS]

    def path(circle: Circle, steps: int) -> Tensor:
        begin = _fields(basis, start, circle.points)[None, None]
        found = circle.moved(circle.constants, begin, given.times, steps).values
        return found[..., :: circle.points // points]

    steps, fine = _STEPS[0], path(grids[-1], _STEPS[0])
    for more in _STEPS[1:]:
        finer = path(grids[-1], more)
        if bool((finer - fine).abs().amax() < close):
            break
        steps, fine = more, finer
    for circle in grids[:-1]:
        if bool((path(circle, steps) - fine).abs().amax() < close):
            return circle, steps
    return grids[-1], steps


def _model(circle: Circle, steps: int, given: _Given, basis: Sequence[Tensor], sigma: Tensor) -> Model:
    _, seen, points = given.values.shape
    skip = circle.points // points

    def follow(numbers: Tensor, starts: Tensor, frames: int) -> Tensor:
        begin = _fields(basis, starts, circle.points)
        found = circle.moved(numbers, begin, given.times[:frames], steps).values
        return found[..., :seen, ::skip].flatten(-2)

    start = _start(given, basis)
    unit = sigma[:1].expand(len(start))
    nudge = torch.full_like(start, _NUDGE * float(given.values.std().clamp(min=1e-9)) * math.sqrt(points))
    values = given.values.flatten(1)
    return Model(circle.constants, circle.owners, values, sigma, start, unit, nudge, follow, _LEAST)


def _answer(
    given: _Given, circle: Circle, steps: int, basis: Sequence[Tensor], model: Model, shots: tuple[Any, Any]
) -> RefinedField:
    best = shots[1]
    count, points = len(circle.constants), given.values.shape[-1]
    size = float(given.values.square().mean().sqrt().clamp(min=1e-300))
    degrees = [max(given.values.numel() - int(one.free[0]), 1) / given.values.numel() for one in shots]
    noise = float(model.sigma[0])
    before, after = (
        math.sqrt(float(one.excess[0]) * share) * noise / size for one, share in zip(shots, degrees, strict=True)
    )
    begin = _fields(basis, best.starts[0], circle.points)
    solved, status = _solved(circle, best.numbers[0, :count], begin, given, steps)
    return RefinedField(
        best.equations[0],
        best.numbers[0, :count].numpy(),
        best.chances[0, :count].norm(dim=-1).numpy(),
        before,
        after,
        float(best.excess[0]),
        noise,
        _fields(basis, best.starts[0], points).numpy(),
        solved[..., :: circle.points // points].numpy(),
        Status(status).message,
        status == Status.SUCCESS,
    )


def _solved(circle: Circle, numbers: Tensor, start: Tensor, given: _Given, steps: int) -> tuple[Tensor, int]:
    """States at the asked times, [Q, fields, points], and the solver's status; gap by gap, for they may be uneven.

    Without any, whether the solution reaches the last reading.
    """
    gap, now, clock, found, status = float(given.times[1]), start[None, None], 0.0, [], int(Status.SUCCESS)
    for asked in given.asked.tolist() or given.times[-1:].tolist():
        if asked > clock and status == Status.SUCCESS:
            count = max(1, math.ceil(steps * (asked - clock) / gap - 1e-9))
            moved = circle.moved(numbers, now, torch.tensor([clock, asked], dtype=torch.float64), count)
            now, clock, status = moved.values[-1], asked, int(moved.status)
        found.append(now[0, 0] if status == Status.SUCCESS else torch.full_like(start, torch.nan))
    return torch.stack(found[: len(given.asked)]) if len(given.asked) else start.new_zeros(0, *start.shape), status
