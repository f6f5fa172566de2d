"""What an evolution leaves: the network's weights at the end of every step, and how each step went."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap

from sciode.insr.body import Body
from sciode.insr.flat import Flat
from sciode.insr.schemes import last
from sciode.pde import Evolution, FieldFunction

__all__ = ["Step", "Trajectory"]


_SLACK = 1e-7
"""Times may come in float32: one so near to a stored one is that one."""


class Step(NamedTuple):
    """How the step that ends at time t went.

    loss: the least mean square of its residual, walls included, on points drawn anew; of a splitting, the largest of
    its fits'; of a Galerkin step, the share of
    the slope that the network could not follow, at its start or its end; of an elastic step, what `deform` makes least,
    per unit of volume and without its constants. iterations: of the optimiser in all attempts, or evaluations of the
    slope. status: "converged"; "accepted", above the tolerance and below what the caller accepts; else why not.
    penalties: what was measured of it, by name: of a Galerkin step, what `regularize` adds up along it; of an elastic
    one, its energies, penetration and inverted share, see `deform`.
    """

    t: float
    loss: float
    iterations: int
    attempts: int
    status: str
    penalties: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Trajectory:
    """u(x, t) as a network whose weights are known at the times `times` [n + 1]; between them, cubic in t.

    Of a `Body` u is the displacement, so that x is now at x + u; between times it is linear, as implicit Euler has it.

    thetas: [n + 1, P]. steps: the fit of the initial values, then one a step. complete: whether the last time asked for
    was reached; if not, the last step says why, and what came before it is here. seconds: of each step.
    """

    problem: Evolution | Body
    network: nn.Module
    told: int
    times: tuple[float, ...]
    thetas: Tensor
    steps: tuple[Step, ...]
    seconds: tuple[float, ...]
    complete: bool

    def field(self, index: int) -> FieldFunction:
        """The field function u(., times[index])."""
        return last(Flat(self.network).field(self.thetas[index]), self.problem.channels)

    def __call__(self, x: Tensor, t: float | Sequence[float] | Tensor) -> Tensor:
        """Return u at points x [N, d]: [N, c] at one time, [T, N, c] at several.

        Between two stored times u is the cubic that has their values and their slopes F(u); of an incompressible flow,
        whose slopes take a pressure, the cubic through the four stored times around; a body's is linear. ValueError for
        a time that was not reached.
        """
        at = torch.as_tensor(t, dtype=torch.float64)
        values = [self._at(x, time) for time in at.reshape(-1).tolist()]
        return values[0] if at.ndim == 0 else torch.stack(values)

    def _at(self, x: Tensor, t: float) -> Tensor:
        begin, end = self.times[0], self.times[-1]
        slack = _SLACK * max(1.0, abs(begin), abs(end))
        if not begin - slack <= t <= end + slack:
            raise ValueError(f"t is {t:g}; the trajectory reaches from {begin:g} to {end:g}")
        with torch.no_grad():
            left = max(min(bisect_right(self.times, t) - 1, len(self.times) - 2), 0)
            near = [k for k in (left, left + 1) if k < len(self.times) and abs(self.times[k] - t) <= slack]
            if near:
                return vmap(self.field(near[0]))(x)
            if isinstance(self.problem, Evolution) and self.problem.incompressible:
                return self._through(x, t, left)
            dt = self.times[left + 1] - self.times[left]
            share, fields = (t - self.times[left]) / dt, [self.field(k) for k in (left, left + 1)]
            low, high = (vmap(field)(x) for field in fields)
            if isinstance(self.problem, Body):
                return torch.lerp(low, high, share)
            slopes = [dt * vmap(self.problem.equation(field))(x) for field in fields]
            rest = 1.0 - share
            straight = rest * low + share * high
            bent = (1.0 - 2.0 * share) * (high - low) + (share - 1.0) * slopes[0] + share * slopes[1]
            return straight + share * (share - 1.0) * bent

    def _through(self, x: Tensor, t: float, left: int) -> Tensor:
        """By Lagrange's polynomial in t: a sum of velocities without divergence has none."""
        first = max(min(left - 1, len(self.times) - 4), 0)
        nodes = range(first, min(first + 4, len(self.times)))
        total = torch.zeros_like(x)
        for k in nodes:
            others = [self.times[j] for j in nodes if j != k]
            weight = math.prod((t - other) / (self.times[k] - other) for other in others)
            total = total + weight * vmap(self.field(k))(x)
        return total
