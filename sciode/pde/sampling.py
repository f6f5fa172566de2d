"""Ways of drawing points in a domain: a table of ways to fill the unit cube, and drawing where a residual is large.

To draw afresh at every iteration, give every iteration its own seed. The same seed gives the same points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats.qmc import LatinHypercube
from torch import Tensor

from .domains import Domain
from .operators import FieldFunction, over

__all__ = ["WAYS", "Way", "Weighted", "draw", "resampled", "weighted"]

_CHOICE, _SELECTION = 1, 2
"""What a seed is used for beside filling the cube: each use has a stream of its own."""


@dataclass(frozen=True)
class Way:
    """A way of drawing: fill(n, d, seed) -> at least n points of the unit cube [m, d], float64, of uniform density.

    sequence: whether the first n of more points are as good as any n (else n of them are drawn without replacement).
    error: how the error of a mean over n points falls for a smooth function of d variables. source: where it is from.
    """

    fill: Callable[[int, int, int], Tensor]
    sequence: bool
    error: str
    source: str


def _random(n: int, d: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((n, d)))


def _jittered(n: int, d: int, seed: int) -> Tensor:
    corners, side = _cells(n, d)
    return torch.from_numpy((corners + np.random.default_rng(seed).random(corners.shape)) / side)


def _grid(n: int, d: int, seed: int) -> Tensor:
    corners, side = _cells(n, d)
    return torch.from_numpy((corners + 0.5) / side)


def _sobol(n: int, d: int, seed: int) -> Tensor:
    return torch.quasirandom.SobolEngine(d, scramble=True, seed=seed).draw(n, dtype=torch.float64)


def _latin(n: int, d: int, seed: int) -> Tensor:
    return torch.from_numpy(LatinHypercube(d, rng=np.random.default_rng(seed)).random(n))


def _cells(n: int, d: int) -> tuple[np.ndarray, int]:
    """The corners [m^d, d] of the coarsest regular cells of which there are n or more, in units of a cell; and m."""
    side = round(n ** (1 / d))
    side += side**d < n
    axes = np.meshgrid(*[np.arange(side, dtype=np.float64)] * d, indexing="ij")
    return np.stack(axes, -1).reshape(-1, d), side


WAYS: Mapping[str, Way] = MappingProxyType(
    {
        "random": Way(_random, True, "n^(-1/2)", "independent uniform points"),
        "jittered": Way(
            _jittered, False, "n^(-1/2 - 1/d)", "one uniform point in each of m^d equal cells; Haber, Math. Comp. 1966"
        ),
        "sobol": Way(
            _sobol,
            True,
            "n^(-3/2) up to logarithms, for n a power of two",
            "scrambled Sobol points (torch.quasirandom); Owen, Ann. Statist. 1997",
        ),
        "latin": Way(
            _latin,
            False,
            "n^(-1/2), of sums of functions of one variable each n^(-3/2)",
            "one point in each of n slices of every axis (scipy.stats.qmc); Stein, Technometrics 1987",
        ),
        "grid": Way(_grid, False, "n^(-2/d)", "the centres of m^d equal cells; the seed only says which are left out"),
    }
)


def draw(
    domain: Domain,
    n: int,
    how: str = "random",
    seed: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return n points of a domain, [n, d], drawn with uniform density in one of the `WAYS`.

    Parameters
    ----------
    how: "random", "jittered", "sobol", "latin" or "grid". "jittered" suits points that are drawn afresh at every
        iteration: no gaps, nothing repeats, and any n will do. A fixed "grid" invites a network to fit it and to
        misbehave between.
    seed: an integer >= 0.
    dtype: None is torch's default. Points are drawn in float64 on the host: they are the same on every device.

    "jittered" and "grid" cut a box, or the polar coordinates of a ball, into m^d cells of equal volume. Where n is not
    m^d, the next larger number of cells is taken and n of them drawn without replacement. In an `Implicit` domain all
    ways fill its bounds and keep what is inside.

    Raises ValueError for an unknown way, n < 1 or a negative seed.
    """
    way = _way(how)
    _check(n, seed)
    cube = partial(_filled, way, domain.dimension, seed)
    choose = None if way.sequence else partial(_some, n, seed)
    return domain.fill(n, cube, choose).to(device=device, dtype=dtype or torch.get_default_dtype())


class Weighted(NamedTuple):
    """Points [n, d] drawn with a density, and weights [n] under which mean(w f(x)) has the domain's mean of f."""

    points: Tensor
    weights: Tensor


def weighted(
    domain: Domain,
    residual: FieldFunction,
    n: int,
    how: str = "random",
    candidates: int | None = None,
    seed: int = 0,
    *,
    power: float = 1.0,
    floor: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Weighted:
    """Return n points drawn where a residual is large, with density p ~ |r|^k / mean|r|^k + c, and their weights.

    `candidates` points are drawn in the way `how`, r is evaluated on them without gradients, and n of them are taken,
    x_i with probability q_i ~ p(x_i) a turn. With weights w_i = 1 / (candidates q_i), mean_i w_i f(x_i) is unbiased for
    the domain's mean of f. Leave the weights out, as the method's authors do, to train on another mean that presses
    large residuals down.

    Parameters
    ----------
    residual: a field function, x [d] -> [c]; |r| is the norm of its components.
    candidates: None takes 10 n. A candidate may be taken several times; with many more candidates than n, seldom.
    seed: an integer >= 0.
    power, floor: k >= 0 and c >= 0. k = c = 1 (default) is the authors' usual choice; larger k or smaller c
        concentrates more. c = 0 leaves out points where r is zero, and with them the promise about the mean.

    Points are taken by stratified resampling, one in each n-th part of the cumulative q: on average n q_i times, with
    less scatter than independent draws.
    Raises ValueError for bad numbers, an unknown way, or residuals that are not finite.
    Source: Wu, Zhu, Tan, Kartha, Lu: A comprehensive study of non-adaptive and residual-based adaptive sampling for
    physics-informed neural networks (arXiv 2207.10289): RAD.
    """
    many = 10 * n if candidates is None else candidates
    if many < 1 or not 0 <= power < math.inf or not 0 <= floor < math.inf:
        raise ValueError(f"candidates must be >= 1, power and floor >= 0, got {many}, {power} and {floor}")
    _check(n, seed)
    places = draw(domain, many, how, seed, device, dtype)
    with torch.no_grad():
        size = over(residual, places).to(torch.float64).flatten(1).norm(dim=1)
    if not bool(size.isfinite().all()):
        raise ValueError(f"the residual is not finite at {int((~size.isfinite()).sum())} of {many} points")
    chance = _chances(size, power, floor)
    taken = _stratified(chance, n, seed)
    return Weighted(places[taken], (1 / (many * chance[taken])).to(places.dtype))


def resampled(size: Tensor, n: int, seed: int, power: float = 1.0, floor: float = 1.0) -> Tensor:
    """Return which n of the candidates along the last axis of |r| [..., m] `weighted` would take: int64 [..., n].

    Each row is drawn from on its own, with the same strata.
    """
    _check(n, seed)
    return _stratified(_chances(size, power, floor), n, seed)


def _chances(size: Tensor, power: float, floor: float) -> Tensor:
    """The chance of each candidate [..., m], from the size of its residual."""
    # Scaled first: the power of a large residual would overflow.
    raised = (size / size.amax(-1, keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)) ** power
    mean = raised.mean(-1, keepdim=True)
    density = raised / torch.where(mean > 0, mean, 1.0) + floor
    density = torch.where(density.sum(-1, keepdim=True) > 0, density, 1.0)
    return density / density.sum(-1, keepdim=True)


def _stratified(chance: Tensor, n: int, seed: int) -> Tensor:
    """One candidate of each n-th part of the cumulative chances [..., m]."""
    strata = np.arange(n) + np.random.default_rng([seed, _SELECTION]).random(n)
    edges = chance.cumsum(-1)
    marks = torch.from_numpy(strata / n).to(chance.device) * edges[..., -1:]
    return torch.searchsorted(edges, marks.contiguous(), right=True).clamp(max=chance.shape[-1] - 1)


def _filled(way: Way, dimension: int, seed: int, n: int) -> Tensor:
    return way.fill(n, dimension, seed)


def _some(n: int, seed: int, many: int) -> Tensor:
    """Which n of many, in ascending order."""
    chosen = np.random.default_rng([seed, _CHOICE]).choice(many, n, replace=False, shuffle=False)
    return torch.from_numpy(np.sort(chosen))


def _way(how: str) -> Way:
    if how not in WAYS:
        raise ValueError(f"how is {how!r}: give one of {', '.join(WAYS)}")
    return WAYS[how]


def _check(n: int, seed: int) -> None:
    if n < 1 or seed < 0:
        raise ValueError(f"n must be >= 1 and the seed an integer >= 0, got n={n} and seed={seed}")
