"""A share of what is drawn, solved again by SciPy's LSODA at a tight tolerance, for as long as that can mean anything.

Chaos makes of every error a large one in the end, whoever made it. What a solution is worth is therefore judged up to
its horizon: the first time at which LSODA itself, at the drawing's own tolerances, is 1 % of the trajectory's size away
from LSODA at the tight one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from sciode.prose.programs import Programs
from sciode.prose.samples import Drawing, Samples

__all__ = ["Agreement", "agreement"]

_APART = 0.01
_TOGETHER = 16
"""Trajectories that LSODA solves as one system, whose Jacobian has blocks."""


class Agreement(NamedTuple):
    """compared: trajectories. median, worst: relative L2 deviations up to their horizons. horizon: the median one;
    whole: the share whose horizon is the last time. all_times: the median deviation over all times, meaningful or not.
    """

    system: str
    compared: int
    median: float
    worst: float
    horizon: float
    whole: float
    all_times: float


def agreement(samples: Samples, how: Drawing, share: float = 0.01, rtol: float = 1e-9, least: int = 8) -> Agreement:
    """Compare a share of samples, at least `least`, spread evenly over them, with LSODA's.

    rtol: of LSODA, absolute too. Raises ValueError for a share outside (0, 1] or no samples.
    """
    count = len(samples.values)
    if not 0 < share <= 1 or not count:
        raise ValueError(f"share must lie in (0, 1] and there must be samples, got {share} of {count}")
    wanted = min(max(round(share * count), least), count)
    rows = torch.arange(wanted) * count // wanted
    values = samples.values[rows.to(samples.values.device)].cpu().double()
    systems = [samples.equations[place] for place in samples.owner[rows].tolist()]
    parts = []
    for first in range(0, wanted, _TOGETHER):
        own = slice(first, first + _TOGETHER)
        parts.append(_two_ways(Programs(systems[own], values.shape[-1]), values[own, 0], how, rtol))
    reference, loose = (np.concatenate(both) for both in zip(*parts, strict=True))
    found = values.numpy()
    size = np.sqrt((reference**2).sum(-1).mean(1))
    lost = np.sqrt(((loose - reference) ** 2).sum(-1)) > _APART * size[:, None]
    until = np.where(lost.any(1), lost.argmax(1), lost.shape[1])
    good = np.arange(lost.shape[1]) < until[:, None]
    near, all_times = _relative(found, reference, good), _relative(found, reference, np.ones_like(good))
    times = how.times.numpy()
    horizon = float(np.median(times[np.minimum(until, len(times) - 1)]))
    whole = float((until == lost.shape[1]).mean())
    worst = float(near.max())
    return Agreement(samples.system, wanted, float(np.median(near)), worst, horizon, whole, float(np.median(all_times)))


def _two_ways(programs: Programs, start: Tensor, how: Drawing, rtol: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """LSODA's trajectories [n, T, d] at the tight tolerance and at the drawing's."""
    count, dimension = start.shape

    def field(t: float, y: NDArray[np.float64]) -> NDArray[np.float64]:
        return programs(torch.from_numpy(y).view(count, dimension)).flatten().numpy()

    band = dimension - 1
    found = []
    for relative, absolute in ((rtol, rtol), (how.rtol, how.atol)):
        path = solve_ivp(
            field, (0.0, how.end), start.flatten().numpy(), "LSODA", how.times.numpy(), rtol=relative, atol=absolute,
            lband=band, uband=band,
        )  # fmt: skip
        if not path.success:
            raise ArithmeticError(f"LSODA gave up at t = {path.t[-1] if len(path.t) else 0:g}: {path.message}")
        found.append(path.y.T.reshape(len(how.times), count, dimension).transpose(1, 0, 2))
    return found[0], found[1]


def _relative(found: NDArray[Any], reference: NDArray[Any], good: NDArray[np.bool_]) -> NDArray[np.float64]:
    error, size = (((x**2).sum(-1) * good).sum(1) for x in (found - reference, reference))
    return np.sqrt(error / np.maximum(size, 1e-30))
