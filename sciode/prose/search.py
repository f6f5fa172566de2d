"""Terms that no trained system has: systems are changed by one term at a time, and kept by Schwarz's criterion.

A first system comes from regressing what components change by on integrals of terms, all sets of up to four terms; then
terms are added, dropped and exchanged, each change fitted to the whole path (`sciode.prose.shooting`), as long as one
is worth the numbers that it costs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from sciode.prose.shooting import shoot
from sciode.prose.trees import Expression, constant, cos, sin, variables

__all__ = ["DEGREE", "library", "searched"]

DEGREE = 3
_WINDOW = 6
"""Frames over which terms are integrated."""
_MOST = 4
"""Terms of a component at first."""
_SETS = 8
"""Sets of terms that are kept of each size."""
_BOLD = 4
"""Changes of a kind that are tried in a component in a round, those that regression likes best."""
_NEAR, WIDE = 0.05, 10.0
"""Priors of numbers that were written, and of those that a regression made."""
_KEPT, _CLOSE = 4, 10.0
"""Systems that a search returns, and by how much the last may be worse than the best."""

Equations = tuple[Expression, ...]
Support = tuple[tuple[int, ...], ...]
"""Places in the library, of each component's terms."""


def library(dimension: int) -> list[Expression]:
    """1, all products of up to three variables, and sines and cosines."""
    u = variables(dimension)
    found: list[Expression] = [constant(1.0)]
    for degree in range(1, DEGREE + 1):
        for chosen in itertools.combinations_with_replacement(u, degree):
            term = chosen[0]
            for one in chosen[1:]:
                term = term * one
            found.append(term)
    return found + [function(one) for one in u for function in (sin, cos)]


def searched(begin: Sequence[Equations], times: Tensor, values: Tensor, rounds: int = 8) -> list[Equations]:
    """Return the best systems for readings [T, d] at even times [T] that are found within so many rounds, up to four,
    the best first: more than one where readings cannot tell them apart.

    begin: systems that are judged beside those of the search.
    """
    slopes = _Slopes(library(values.shape[1]), times, values)
    seen: dict[Support | int, tuple[float, Equations]] = dict(enumerate(_scored(list(begin), times, values, _NEAR)))

    def likeliest(some: Sequence[Support]) -> tuple[float, Support]:
        new = [one for one in dict.fromkeys(some) if one not in seen]
        if new:
            seen.update(zip(new, _scored([slopes.system(one) for one in new], times, values, WIDE), strict=True))
        return min((seen[one][0], one) for one in some)

    score, current = likeliest([slopes.support(rank) for rank in range(3)])
    for _ in range(rounds):
        better, changed = likeliest(slopes.neighbours(current))
        if not better < score:
            break
        score, current = better, changed
    ranked = sorted(seen.values(), key=lambda one: one[0])
    return [own for worth, own in ranked[:_KEPT] if worth <= ranked[0][0] + _CLOSE] or [ranked[0][1]]


def _scored(systems: list[Equations], times: Tensor, values: Tensor, spread: float) -> list[tuple[float, Equations]]:
    """Schwarz's criterion of each, and its fit: N log of the mean squared residual, noise being the least that counts,
    and log N for each number."""
    found = shoot(systems, times, values, spread, rounds=3)
    count = values.numel()
    left = found.excess * (count - found.free).clamp(min=1) / count
    scores = count * torch.where(left.isfinite(), left, torch.inf).clamp(min=1e-3).log() + found.free * math.log(count)
    return list(zip(scores.tolist(), found.equations, strict=True))


class _Slopes:
    """Regressions of x(t + w) - x(t) on integrals of terms from t to t + w."""

    def __init__(self, terms: Sequence[Expression], times: Tensor, values: Tensor) -> None:
        self.terms, self.dimension = terms, values.shape[1]
        columns = torch.stack(
            [torch.as_tensor(one.at(values.unbind(1)), dtype=torch.float64).expand(len(times)) for one in terms], 1
        )
        grown = torch.from_numpy(CubicSpline(times.numpy(), columns.numpy()).antiderivative()(times.numpy()))
        self.columns = grown[_WINDOW:] - grown[:-_WINDOW]
        self.changes = values[_WINDOW:] - values[:-_WINDOW]
        self.scale = self.columns.square().mean(0).sqrt().clamp(min=1e-12)
        # Windows overlap: there are about so many that say something of their own.
        self.count = max(2 * len(self.changes) / _WINDOW, 8.0)
        self.ranked = [self._ranked(place) for place in range(self.dimension)]

    def fit(self, place: int, chosen: Sequence[int]) -> tuple[Tensor, float]:
        """Numbers of terms in a component, and the mean squared change that they leave."""
        matrix, wanted = self.columns[:, list(chosen)] / self.scale[list(chosen)], self.changes[:, place]
        weights = torch.linalg.lstsq(matrix, wanted[:, None], driver="gelsd").solution[:, 0]
        left = float((wanted - matrix @ weights).square().mean())
        return weights / self.scale[list(chosen)], left

    def _ranked(self, place: int) -> list[tuple[int, ...]]:
        """Sets of up to four terms by Schwarz's criterion, the best first."""
        matrix, wanted = self.columns / self.scale, self.changes[:, place]
        gram, right, whole = matrix.T @ matrix, matrix.T @ wanted, float(wanted @ wanted)
        found: list[tuple[float, tuple[int, ...]]] = []
        for size in range(1, _MOST + 1):
            sets = torch.combinations(torch.arange(len(self.terms)), size)
            own = gram[sets[:, :, None], sets[:, None, :]] + 1e-11 * len(matrix) * torch.eye(size, dtype=torch.float64)
            weights = torch.linalg.solve_ex(own, right[sets][..., None])[0][..., 0]
            left = (whole - (weights * right[sets]).sum(1)).clamp(min=1e-8 * whole + 1e-300)
            costs = self.count * left.log() + size * math.log(self.count)
            best = costs.argsort()[:_SETS]
            found += zip(costs[best].tolist(), map(tuple, sets[best].tolist()), strict=True)
        return [one for _, one in sorted(found)]

    def support(self, rank: int) -> Support:
        """The terms of each component, by their rank."""
        return tuple(own[rank] for own in self.ranked)

    def neighbours(self, support: Support) -> list[Support]:
        """A term less, one more of those that leave least, or another set of terms, in one component."""
        found = []
        for place, own in enumerate(support):
            changed = [tuple(one for one in own if one != gone) for gone in own] if len(own) > 1 else []
            rest = [one for one in range(len(self.terms)) if one not in own]
            rest.sort(key=lambda one: self.fit(place, [*own, one])[1])
            changed += [tuple(sorted((*own, one))) for one in rest[:_BOLD]]
            changed += self.ranked[place][:_BOLD]
            found += [(*support[:place], one, *support[place + 1 :]) for one in changed if one != own]
        return list(dict.fromkeys(found))

    def system(self, support: Support) -> Equations:
        """Its equations, with the numbers of the regression."""
        found = []
        for place, own in enumerate(support):
            total: Expression | None = None
            for one, number in zip(own, self.fit(place, own)[0].tolist(), strict=True):
                term = constant(number) if self.terms[one].symbols == (1.0,) else number * self.terms[one]
                total = term if total is None else total + term
            assert total is not None
            found.append(total)
        return tuple(found)
