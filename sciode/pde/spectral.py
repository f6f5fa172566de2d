"""Periodic reference solutions in 2-D: Fourier modes in space, diffusion exactly or steps under error control."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from sciode.pde.evolution import Evolution
from sciode.solvers import solve

__all__ = ["PeriodicSolution", "solve_periodic"]

# Points of the contour on which the coefficients of ETDRK4 are means.
_CONTOUR = 32


@dataclass(frozen=True, eq=False)
class PeriodicSolution:
    """A reference solution: `values` [T, n, n, c] in float64 at `ts` [T], on the grid lower + (upper - lower) j/n.

    The values are those of a trigonometric polynomial, so that `at` is exact for it between the points too.
    """

    ts: Tensor
    values: Tensor
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def at(self, points: Tensor) -> Tensor:
        """The solution at points [N, 2] anywhere (it is periodic), [T, N, c]; cost N n^2 / 2 a time and channel."""
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"points must be [N, 2], got {tuple(points.shape)}")
        n = self.values.shape[1]
        hat = torch.fft.rfft2(self.values, dim=(1, 2)) / n**2
        # A column k > 0 stands for -k too; there is no Nyquist mode, `solve_periodic` keeps none.
        hat[:, :, 1:] *= 2.0
        points = points.to(hat.real)
        first, second = (
            torch.exp(1j * (points[:, axis, None] - self.lower[axis]) * waves.flatten())
            for axis, waves in enumerate(_waves(n, self.lower, self.upper))
        )
        return torch.einsum("pl,tplc->tpc", second, torch.einsum("pk,tklc->tplc", first, hat)).real

    @property
    def tail(self) -> Tensor:
        """The largest coefficient with a wave number from n/4 up, over the largest of all, [T]: how well n resolves."""
        n = self.values.shape[1]
        size = torch.fft.rfft2(self.values, dim=(1, 2)).abs().amax(-1)
        high = _grid_waves(n).abs().amax(-1) >= n / 4
        return (size * high).amax((1, 2)) / size.amax((1, 2)).clamp(min=1e-300)


def solve_periodic(
    problem: Evolution, n: int, ts: Tensor | Sequence[float], *, dt: float | None = None, rtol: float = 1e-10
) -> PeriodicSolution:
    """Solve a periodic problem on n x n points, pseudo-spectrally: derivatives of modes, products of values.

    Modes with a wave number of n/3 or more are dropped ("2/3 rule"): quadratic terms then alias into none that is kept;
    others, as the u^3 of Allen-Cahn, alias by as much as `PeriodicSolution.tail` leaves there.

    - `n`: even, 8 or more. `ts` [T]: two or more, increasing, from the initial time on.
    - `dt=None`: dopri8 of `sciode.solve` at relative and absolute tolerance `rtol`; its steps are limited by
      diffusion (wave number)^2 dt of about 4, fine for the problems of `sciode.pde.problems`.
    - `dt`: exponential time differencing of order 4 at steps of dt or a little less, diffusion solved exactly: for what
      is stiff, and exact for heat. `rtol` is not used.

    Raises ValueError for problems that are not periodic, in 2-D and free of a pressure.
    Source: Kassam & Trefethen (2005), SIAM J. Sci. Comput. 26; Orszag (1971), J. Atmos. Sci. 28 (the 2/3 rule).
    """
    times = torch.as_tensor(ts, dtype=torch.float64)
    _check(problem, n, times, dt)
    modes = _modes(problem, n)
    start = torch.fft.rfft2(_on_grid(problem, n), dim=(0, 1)) * modes.kept
    if dt is not None:
        values = torch.stack([_values(hat, n) for hat in _exponential_steps(problem, modes, start, times, dt)])
        return PeriodicSolution(times, values, problem.lower, problem.upper)

    def field(t: Tensor, u: Tensor) -> Tensor:
        hat = torch.fft.rfft2(u, dim=(0, 1))
        return _values(modes.decay * hat + _rate(problem, modes, hat), n)

    solution = solve(
        field, _values(start, n), times, method="dopri8", rtol=rtol, atol=rtol, batch_dims=0, engine="eager"
    )
    return PeriodicSolution(times, solution.ys, problem.lower, problem.upper)


class _Modes(NamedTuple):
    """Of the half spectrum [n, n/2 + 1, 1]: i times the waves along both axes, diffusion's rate, and which are kept."""

    first: Tensor
    second: Tensor
    decay: Tensor
    kept: Tensor


def _check(problem: Evolution, n: int, times: Tensor, dt: float | None) -> None:
    if not problem.periodic or problem.dimension != 2 or problem.incompressible:
        raise ValueError(f"{problem.name!r} is not a periodic problem in 2-D without pressure: modes do not apply")
    if n < 8 or n % 2:
        raise ValueError(f"n is {n}; it must be even, and 8 at least")
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0.0).all()):
        raise ValueError("ts must be two times or more, increasing, the initial time first")
    if dt is not None and not 0.0 < dt < math.inf:
        raise ValueError(f"dt is {dt}; it must be positive, or None for steps under error control")


def _grid_waves(n: int) -> Tensor:
    """Integer wave numbers of the half spectrum, [n, n/2 + 1, 2]."""
    first = torch.fft.fftfreq(n, 1.0 / n, dtype=torch.float64)
    second = torch.fft.rfftfreq(n, 1.0 / n, dtype=torch.float64)
    return torch.stack(torch.meshgrid(first, second, indexing="ij"), -1)


def _waves(n: int, lower: tuple[float, ...], upper: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    whole = _grid_waves(n)
    scales = [2.0 * math.pi / (high - low) for low, high in zip(lower, upper, strict=True)]
    return whole[:, :1, 0] * scales[0], whole[:1, :, 1] * scales[1]


def _modes(problem: Evolution, n: int) -> _Modes:
    first, second = (waves[..., None] for waves in _waves(n, problem.lower, problem.upper))
    kept = _grid_waves(n).abs().amax(-1, keepdim=True) < n / 3
    return _Modes(1j * first, 1j * second, -problem.diffusion * (first**2 + second**2), kept.to(torch.float64))


def _on_grid(problem: Evolution, n: int) -> Tensor:
    axes = [
        low + (high - low) / n * torch.arange(n, dtype=torch.float64)
        for low, high in zip(problem.lower, problem.upper, strict=True)
    ]
    return vmap(vmap(problem.initial))(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1))


def _values(hat: Tensor, n: int) -> Tensor:
    return torch.fft.irfft2(hat, s=(n, n), dim=(0, 1))


def _rate(problem: Evolution, modes: _Modes, hat: Tensor) -> Tensor:
    """Modes of rate(u, grad u), [n, n/2 + 1, c], of u's."""
    if problem.rate is None:
        return torch.zeros_like(hat)
    n, hat = len(hat), hat * modes.kept
    slopes = torch.stack((_values(modes.first * hat, n), _values(modes.second * hat, n)), -1)
    return torch.fft.rfft2(problem.rate(_values(hat, n), slopes), dim=(0, 1)) * modes.kept


class _Step(NamedTuple):
    """ETDRK4's coefficients for one step size: exp(z), exp(z/2), and the weights of rates, with z = dt decay."""

    whole: Tensor
    half: Tensor
    inner: Tensor
    begin: Tensor
    middle: Tensor
    end: Tensor


def _coefficients(decay: Tensor, dt: float) -> _Step:
    """Means over a circle around each z: there the formulas, which cancel near z = 0, are safe."""
    z = dt * decay
    angles = math.pi * (torch.arange(_CONTOUR, dtype=torch.float64) + 0.5) / _CONTOUR
    # z is real, so that the other half of the circle gives the conjugates.
    w = z[..., None] + torch.polar(torch.ones_like(angles), angles)
    e = torch.exp(w)
    inner = (torch.exp(w / 2.0) - 1.0) / w
    begin = (-4.0 - w + e * (4.0 - 3.0 * w + w**2)) / w**3
    middle = (2.0 + w + e * (w - 2.0)) / w**3
    end = (-4.0 - 3.0 * w - w**2 + e * (4.0 - w)) / w**3
    return _Step(z.exp(), (z / 2.0).exp(), *(dt * mean.real.mean(-1) for mean in (inner, begin, middle, end)))


def _exponential_steps(problem: Evolution, modes: _Modes, hat: Tensor, times: Tensor, dt: float) -> list[Tensor]:
    states = [hat]
    sizes: dict[float, _Step] = {}
    for gap in times.diff().tolist():
        count = max(1, math.ceil(gap / dt - 1e-9))
        # Gaps of a uniform grid differ by rounding: they share their coefficients.
        size = float(f"{gap / count:.13g}")
        if size not in sizes:
            sizes[size] = _coefficients(modes.decay, size)
        for _ in range(count):
            hat = _exponential_step(problem, modes, sizes[size], hat)
        states.append(hat)
    return states


def _exponential_step(problem: Evolution, modes: _Modes, step: _Step, hat: Tensor) -> Tensor:
    first = _rate(problem, modes, hat)
    a = step.half * hat + step.inner * first
    second = _rate(problem, modes, a)
    b = step.half * hat + step.inner * second
    third = _rate(problem, modes, b)
    c = step.half * a + step.inner * (2.0 * third - first)
    fourth = _rate(problem, modes, c)
    return step.whole * hat + step.begin * first + 2.0 * step.middle * (second + third) + step.end * fourth
