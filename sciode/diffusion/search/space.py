"""The space of recipes with so many evaluations: where a search begins, how recipes change, and what describes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sciode.diffusion.grids import times_of
from sciode.diffusion.samplers.recipe import KINDS, Recipe, Step
from sciode.diffusion.schedules.base import Schedule

__all__ = ["Space"]

Array = NDArray[np.float64]

_GRIDS = ("quadratic", "uniform", "log-snr", "beta", "karras")
_SHARE = 0.3
"""How likely a decision changes when a recipe is mutated."""
_NODES, _NODES_ODDS = (1, 2, 3, 4), (0.2, 0.4, 0.3, 0.1)
_CORRECTORS, _CORRECTOR_ODDS = (0, 2, 3, 4), (0.4, 0.2, 0.3, 0.1)
_GAP = 0.02
"""The smallest step, as a share of all of lambda."""


@dataclass(frozen=True, eq=False)
class Space:
    """Recipes with `evaluations` calls between two times.

    kinds: what steps may interpolate; mean: of the data, for the analytic first step, or None for recipes without;
    jitter: standard deviation of a moved time as a share of the mean step, and of a relaxation, before narrowing.
    """

    schedule: Schedule
    evaluations: int
    t_start: float
    t_end: float
    kinds: tuple[str, ...] = KINDS
    mean: Any = None
    jitter: tuple[float, float] = (0.4, 0.1)

    def known(self) -> list[Recipe]:
        """What multistep samplers do, on five grids: on what it sees a search is never worse than the best of these."""
        found = []
        for grid in _GRIDS:
            for first in (None,) if self.mean is None else (None, self.mean):
                n = self.evaluations + (first is not None)
                times = tuple(times_of(grid, self.schedule, n, self.t_start, self.t_end).tolist())
                for kind in self.kinds:
                    for nodes, corrector in ((1, 0), (2, 0), (3, 0), (2, 3), (3, 3), (3, 4)):
                        for lowered in (False, True):
                            steps = (Step(kind, min(nodes, n - i) if lowered else nodes, False, 0.0, corrector)
                                     for i in range(n))  # fmt: skip
                            found.append(Recipe(times, tuple(steps), first))
        return list({recipe.to_json(): recipe for recipe in found}.values())

    def random(self, rng: np.random.Generator) -> Recipe:
        """Decisions drawn one by one; times between those of a named grid."""
        first = self.mean if self.mean is not None and rng.random() < 0.5 else None
        n = self.evaluations + (first is not None)
        one, other = rng.choice(len(_GRIDS), 2)
        grids = [self._lambda(times_of(_GRIDS[g], self.schedule, n, self.t_start, self.t_end)) for g in (one, other)]
        share = rng.random()
        lams = self._apart(share * grids[0] + (1 - share) * grids[1])
        return self._recipe(lams, tuple(self._step(rng) for _ in range(n)), first)

    def mutated(self, recipe: Recipe, rng: np.random.Generator, narrow: float = 1.0, decide: bool = True) -> Recipe:
        """Times and relaxations jittered by `narrow` times the standard deviations, and some decisions drawn anew.

        decide=False: numbers alone.
        """
        lams = self._lambda(recipe.times)
        step = (lams[-1] - lams[0]) / len(recipe.steps)
        inner = lams[1:-1]
        moved = rng.random(inner.shape) < max(_SHARE, 0.0 if decide else 0.6)
        inner = inner + moved * rng.normal(size=inner.shape) * self.jitter[0] * narrow * step
        lams[1:-1] = np.clip(inner, lams[0], lams[-1])
        steps = tuple(self._changed(s, rng, narrow, decide) for s in recipe.steps)
        return self._recipe(self._apart(np.sort(lams)), steps, recipe.first)

    def crossed(self, one: Recipe, other: Recipe, rng: np.random.Generator) -> Recipe:
        """Each step's decisions from one of two recipes of as many steps, times in between theirs."""
        if len(one.steps) != len(other.steps):
            return one
        share = rng.random()
        lams = share * self._lambda(one.times) + (1 - share) * self._lambda(other.times)
        steps = tuple(a if rng.random() < 0.5 else b for a, b in zip(one.steps, other.steps, strict=True))
        return self._recipe(lams, steps, one.first)

    def features(self, recipes: Sequence[Recipe]) -> Array:
        """What a predictor sees: [recipes, numbers], of order 1; absent steps of those without a first value are 0."""
        return np.stack([self._described(recipe) for recipe in recipes])

    def _described(self, recipe: Recipe) -> Array:
        lams = self._lambda(recipe.times)
        place = (lams - lams[0]) / (lams[-1] - lams[0])
        rows = []
        for i, step in enumerate(recipe.steps):
            seen = min(step.nodes, i + 1)
            kind = [float(step.kind == k) for k in KINDS]
            last = i + 1 == len(recipe.steps)
            corrected = 0.0 if last else min(step.corrector, i + 2) / 2
            pseudo = float(step.nearest and seen > 2)
            rows.append([4 * place[i + 1], *kind, seen / 2, pseudo, 5 * step.relax * (seen > 1), corrected])
        longest = self.evaluations + (self.mean is not None)
        empty = [[0.0] * len(rows[0])] * (longest - len(rows))
        return np.array([float(recipe.first is not None), *np.ravel(empty + rows)])

    def _step(self, rng: np.random.Generator) -> Step:
        return Step(
            str(rng.choice(self.kinds)), int(rng.choice(_NODES, p=_NODES_ODDS)), bool(rng.random() < 0.5),
            0.0, int(rng.choice(_CORRECTORS, p=_CORRECTOR_ODDS)),
        )  # fmt: skip

    def _changed(self, step: Step, rng: np.random.Generator, narrow: float, decide: bool) -> Step:
        drawn, which = self._step(rng), rng.random(5)
        relax = step.relax + (which[4] < 2 * _SHARE) * float(rng.normal()) * self.jitter[1] * narrow
        if not decide:
            return replace(step, relax=relax)
        names = ("kind", "nodes", "nearest", "corrector")
        # Half as often as numbers: five steps have twenty of them.
        new = {name: getattr(drawn, name) for name, p in zip(names, which, strict=False) if p < 0.5 * _SHARE}
        return replace(step, relax=relax, **new)

    def _lambda(self, times: Any) -> Array:
        return self.schedule.half_log_snr(torch.as_tensor(np.asarray(times), dtype=torch.float64)).numpy().copy()

    def _apart(self, lams: Array) -> Array:
        """The same, no step shorter than a small share of all."""
        gaps = np.maximum(np.diff(lams), _GAP * (lams[-1] - lams[0]))
        gaps *= (lams[-1] - lams[0]) / gaps.sum()
        return np.concatenate((lams[:1], lams[0] + np.cumsum(gaps)))

    def _recipe(self, lams: Array, steps: tuple[Step, ...], first: Any) -> Recipe:
        inner = self.schedule.t_of(torch.as_tensor(lams[1:-1], dtype=torch.float64))
        return Recipe((self.t_start, *inner.tolist(), self.t_end), steps, first)
