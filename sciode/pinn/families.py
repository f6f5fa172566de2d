"""Six families of problems with a parameter each, with exact solutions or fine references, to compare methods on.

Equations, domains and cuts are those of Li, Penwarden, Xu, Tillinghast, Narayan, Kirby, Zhe: METALIC (ICML 2023), but
that KdV ends at 5 (theirs at 20) and is cut in the middle of that. Their code also tells networks of time-dependent
families the exact values at the LAST time, which is what is asked for: `official_supervision=True` does so, too; the
default does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from scipy.fft import dstn, idstn
from torch import Tensor

from sciode.pde import Box
from sciode.pinn.conditions import Condition, Edge, Face, Periodic, dirichlet
from sciode.pinn.decomposition import Decomposition, strips
from sciode.pinn.derivatives import Names
from sciode.pinn.problem import Problem, Reference

__all__ = ["FAMILIES", "Family", "advection", "burgers", "heat", "kdv", "poisson", "reaction"]

_XT, _XY = Names(("x", "t"), ("u",)), Names(("x", "y"), ("u",))
_HERMITE = 100
_SOURCE = "Li et al.: METALIC (ICML 2023)"


@dataclass(frozen=True)
class Family:
    """make(parameter, official_supervision=...) -> a problem; the parameter's range; how the authors cut the domain."""

    make: Callable[..., Problem]
    low: float
    high: float
    cut: Callable[[Problem], Decomposition]


def poisson(sharpness: float = 20.0, official_supervision: bool = False, cells: int = 800) -> Problem:
    """u_xx + u_yy = f on the unit square, u = 0 on its boundary; f is 1 in the middle half, with sharp edges.

    f = g(x) g(y) / max, g(x) = erf s(x - 1/4) - erf s(x - 3/4). The reference is the five-point scheme on cells^2, by
    sine transforms, at 101^2 points. There is no time, so nothing to leak.
    """

    def force(x: Tensor, y: Tensor, s: float | Tensor) -> Tensor:
        def bump(along: Tensor) -> Tensor:
            return torch.erf(s * (along - 0.25)) - torch.erf(s * (along - 0.75))

        return bump(x) * bump(y) / bump(torch.full_like(x, 0.5)) ** 2

    every = max(cells // 100, 1)
    axis = torch.linspace(0, 1, cells + 1, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    values = torch.from_numpy(five_point(force(points[..., 0], points[..., 1], sharpness).numpy(), 1 / cells))
    coarse = points[::every, ::every].reshape(-1, 2), values[::every, ::every].reshape(-1, 1)
    return Problem(
        name="poisson",
        names=_XY,
        domain=Box((0, 0), (1, 1)),
        equation=lambda d, p: d.u_xx + d.u_yy - force(d.x, d.y, p.sharpness),
        conditions=(dirichlet(Edge(), lambda x: torch.zeros_like(x[..., :1]), name="boundary"),),
        parameters={"sharpness": sharpness},
        reference=Reference(*coarse),
        source=_SOURCE,
    )


def advection(speed: float = 10.0, official_supervision: bool = False) -> Problem:
    """u_t + speed u_x = 0 on [0, 2 pi] x [0, 1]; exact: sin(x - speed t)."""
    return _evolving(
        "advection",
        Box((0, 0), (2 * math.pi, 1)),
        lambda d, p: d.u_t + p.speed * d.u_x,
        lambda x: torch.sin(x[..., :1] - speed * x[..., 1:]),
        {"speed": speed},
        official_supervision,
    )


def reaction(rate: float = 5.0, official_supervision: bool = False) -> Problem:
    """u_t = rate u (1 - u) on [0, 2 pi] x [0, 1], from h = exp(-(x - pi)^2 / (2 (pi/4)^2)); each x on its own."""

    def exact(x: Tensor) -> Tensor:
        start = torch.exp(-((x[..., :1] - math.pi) ** 2) / (2 * (math.pi / 4) ** 2))
        grown = start * torch.exp(rate * x[..., 1:])
        return grown / (grown + 1 - start)

    return _evolving(
        "reaction",
        Box((0, 0), (2 * math.pi, 1)),
        lambda d, p: d.u_t - p.rate * d.u * (1 - d.u),
        exact,
        {"rate": rate},
        official_supervision,
    )


def burgers(viscosity: float = 0.01, official_supervision: bool = False) -> Problem:
    """u_t + u u_x = viscosity u_xx on [-1, 1] x [0, 1] from -sin pi x, 0 at the walls; exact by Cole and Hopf.

    u = -sum_i w_i sin(pi y_i) / sum_i w_i with y_i = x - 2 sqrt(viscosity t) z_i and w_i = W_i exp(-cos(pi y_i) / (2 pi
    viscosity)), z and W being Gauss and Hermite's 100 nodes and weights.
    """
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite.hermgauss(_HERMITE))

    def exact(x: Tensor) -> Tensor:
        reach = 2 * (viscosity * x[..., 1:]).clamp(min=1e-300).sqrt()
        y = x[..., :1] - reach * nodes.to(x)
        logs = weights.to(x).log() - torch.cos(math.pi * y) / (2 * math.pi * viscosity)
        return -(torch.softmax(logs, -1) * torch.sin(math.pi * y)).sum(-1, keepdim=True)

    def given(x: Tensor) -> Tensor:
        # At the start the square root of time has no slope, and at the walls the quadrature leaves rounding.
        return torch.where(x[..., 1:] > 0, exact(x), -torch.sin(math.pi * x[..., :1]))

    return _evolving(
        "burgers",
        Box((-1, 0), (1, 1)),
        lambda d, p: d.u_t + d.u * d.u_x - p.viscosity * d.u_xx,
        given,
        {"viscosity": viscosity},
        official_supervision,
        flux=lambda d, p: (d.u**2 / 2 - p.viscosity * d.u_x, d.u),
    )


def heat(
    a: float = 1.0, b: float = -1.0, c: float = 1.0, d: float = 1.0, official_supervision: bool = False
) -> Problem:
    """u_t = u_xx on [-1, 1] x [0, 1]: two modes that decay and two that grow, with coefficients a to d in [-2, 2]."""

    def exact(x: Tensor) -> Tensor:
        place, t = x[..., :1], x[..., 1:]
        decaying = a * torch.exp(-(math.pi**2) * t) * torch.cos(math.pi * place) + b * torch.exp(
            -4 * math.pi**2 * t
        ) * torch.cos(2 * math.pi * place)
        growing = c * torch.exp(4 * t - 4) * torch.cosh(2 * place) + d * torch.exp(t - 1) * torch.sinh(place)
        return decaying + growing

    return _evolving(
        "heat",
        Box((-1, 0), (1, 1)),
        lambda fields, p: fields.u_t - fields.u_xx,
        exact,
        {"a": a, "b": b, "c": c, "d": d},
        official_supervision,
    )


def kdv(
    coupling: float = 6.0,
    official_supervision: bool = False,
    end: float = 5.0,
    speeds: tuple[float, float] = (1.6, 0.6),
    centres: tuple[float, float] = (5.0, 12.0),
    modes: int = 256,
) -> Problem:
    """u_t + coupling u u_x + u_xxx = 0 on [0, 20] x [0, end], periodic, from two solitons, the faster one behind.

    Each begins as (3 v / coupling) / cosh^2(sqrt(v) (x - centre) / 2). The authors' end is 20; 5 holds the collision's
    beginning. The reference is Fourier's, `modes` of them, the third derivative exact and RK4 for the rest. No exact
    solution for two on a periodic line: official supervision takes the reference.
    """
    line = 20.0

    def start(x: Tensor) -> Tensor:
        total = torch.zeros_like(x[..., :1])
        for v, centre in zip(speeds, centres, strict=True):
            for turn in (-line, 0.0, line):
                total = total + 3 * v / coupling / torch.cosh(math.sqrt(v) / 2 * (x[..., :1] - centre - turn)) ** 2
        return total

    grid = torch.linspace(0, line, modes + 1, dtype=torch.float64)[:-1, None]
    times = np.linspace(0, end, 51)
    values = fourier_kdv(start(torch.cat((grid, 0 * grid), 1))[:, 0].numpy(), line, coupling, times)
    places = torch.cartesian_prod(torch.from_numpy(times), grid[:, 0]).flip(1)
    known = torch.from_numpy(values).reshape(-1, 1)
    conditions: tuple[Condition | Periodic, ...] = (
        dirichlet(Face("t", -1), start, name="initial"),
        Periodic("x", 2),
    )
    if official_supervision:
        last = torch.from_numpy(values[-1])

        def ended(x: Tensor) -> Tensor:
            # Linear between grid points; the grid is fine.
            at = x[..., 0] / line * modes
            low = at.floor().long()
            share = (at - low).unsqueeze(-1)
            return (1 - share) * last[low % modes].unsqueeze(-1) + share * last[(low + 1) % modes].unsqueeze(-1)

        conditions += (dirichlet(Face("t", 1), ended, name="final"),)
    return Problem(
        name="kdv",
        names=_XT,
        domain=Box((0, 0), (line, end)),
        equation=lambda d, p: d.u_t + p.coupling * d.u * d.u_x + d.u_xxx,
        conditions=conditions,
        parameters={"coupling": coupling},
        reference=Reference(places, known),
        time="t",
        source=_SOURCE,
    )


def five_point(force: np.ndarray, h: float) -> np.ndarray:
    """Solve the five-point scheme of Lap u = f on a square grid of spacing h, u = 0 on its boundary, by sines."""
    inner = force[1:-1, 1:-1]
    count = len(inner)
    k = np.arange(1, count + 1) * np.pi / (2 * (count + 1))
    own = -4 / h**2 * np.sin(k) ** 2
    waves = np.asarray(dstn(inner, type=1))
    found = np.asarray(idstn(waves / (own[:, None] + own[None, :]), type=1))
    return np.pad(found, 1)


def fourier_kdv(start: np.ndarray, line: float, coupling: float, times: np.ndarray, dt: float = 1e-3) -> np.ndarray:
    """u at `times` [T, n] for u_t + coupling u u_x + u_xxx = 0, periodic: integrating factor, RK4, no aliases."""
    k = 2 * np.pi / line * np.arange(len(start) // 2 + 1)
    kept = k <= 2 / 3 * k[-1]
    found, v = [start], np.fft.rfft(start) * kept

    def rate(v: np.ndarray) -> np.ndarray:
        return -0.5j * coupling * k * kept * np.fft.rfft(np.fft.irfft(v, len(start)) ** 2)

    for begin, end in pairwise(times.tolist()):
        steps = max(round((end - begin) / dt), 1)
        h = (end - begin) / steps
        half = np.exp(1j * k**3 * h / 2)
        for _ in range(steps):
            a = rate(v)
            b = rate(half * (v + h / 2 * a))
            c = rate(half * v + h / 2 * b)
            d = rate(half**2 * v + h * half * c)
            v = half**2 * v + h / 6 * (half**2 * a + 2 * half * (b + c) + d)
        found.append(np.fft.irfft(v, len(start)))
    return np.stack(found)


def _evolving(
    name: str,
    domain: Box,
    equation: Callable[..., Any],
    exact: Callable[[Tensor], Tensor],
    parameters: Mapping[str, float],
    official_supervision: bool,
    flux: Callable[..., Any] | None = None,
) -> Problem:
    """A problem in x and t that is told its exact values at the start and the walls; at the end, if officially so."""
    conditions = [dirichlet(Face("t", -1), exact, name="initial"), dirichlet(Face("x"), exact, name="walls")]
    if official_supervision:
        conditions.append(dirichlet(Face("t", 1), exact, name="final"))
    return Problem(
        name=name,
        names=_XT,
        domain=domain,
        equation=equation,
        conditions=tuple(conditions),
        parameters=parameters,
        flux=flux,
        exact=exact,
        time="t",
        source=_SOURCE,
    )


def _halved(problem: Problem) -> Decomposition:
    assert isinstance(problem.domain, Box)
    low, high = problem.domain.low[1], problem.domain.high[1]
    return strips(problem.domain, 1, [(low + high) / 2])


def _around_the_front(problem: Problem) -> Decomposition:
    """One network for both outer strips, one for |x| < 0.1."""
    assert isinstance(problem.domain, Box)
    outer = (Box((-1, 0), (-0.1, 1)), Box((0.1, 0), (1, 1)))
    return Decomposition(problem.domain, (outer, (Box((-0.1, 0), (0.1, 1)),)))


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "poisson": Family(poisson, 1.0, 50.0, _halved),
        "advection": Family(advection, 1.0, 30.0, _halved),
        "reaction": Family(reaction, 1.0, 15.0, _halved),
        "burgers": Family(burgers, 0.001, 0.05, _around_the_front),
        "heat": Family(heat, -2.0, 2.0, _halved),
        "kdv": Family(kdv, 1.0, 10.0, _halved),
    }
)
"""By name."""
