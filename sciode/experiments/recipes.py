"""Ways to make a learned field cheap to integrate, as data: what is penalised, how strongly, which times are moved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sciode.solvers import Error, Jacobian, Kinetic, Local, Regularizer, Solution, Stiffness, Taylor, steer
from sciode.training import decaying

__all__ = ["ALONG_ODES", "RECIPES", "Penalty", "Recipe"]


@dataclass(frozen=True)
class Penalty:
    """A regularizer, its weight at the first training step, and by how much the weight has been divided at the last."""

    regularizer: Regularizer | Local
    weight: float
    fall: float = 1.0

    def at(self, step: int, steps: int) -> float:
        """The weight at a training step."""
        return decaying(self.weight, self.weight / self.fall, steps)(step)


@dataclass(frozen=True)
class Recipe:
    """What a training run does beside fitting.

    name; kind: "vanilla", "global", "local" or "baseline"; penalties; spread: of the random times, as a part of the
    gaps between them, the interval where there are but two (STEER). weights: by which factors the penalties are tried;
    validation chooses one.
    """

    name: str
    kind: str
    penalties: tuple[Penalty, ...] = ()
    spread: float = 0.0
    weights: tuple[float, ...] = field(default=(1.0,))

    @property
    def regularize(self) -> tuple[Regularizer | Local, ...]:
        """What `solve` is asked for."""
        return tuple(penalty.regularizer for penalty in self.penalties)

    @property
    def said(self) -> list[str]:
        """What a training run hangs on beside its strength: a row made under another weight is another row."""
        spread = [f"random times, spread {self.spread:g}"] if self.spread else []
        return [f"{p.regularizer!r}, weight {p.weight:g}, divided by {p.fall:g}" for p in self.penalties] + spread

    def times(self, ts: Tensor, seed: int) -> Tensor:
        """The times of one training step."""
        return steer(ts, self.spread, seed, which="gaps") if self.spread else ts

    def on(self, part: int) -> Recipe:
        """The same where only the first components of the state are a place to be: see `Kinetic`."""
        penalties = tuple(
            replace(penalty, regularizer=replace(penalty.regularizer, part=part))
            if isinstance(penalty.regularizer, Kinetic | Jacobian | Taylor)
            else penalty
            for penalty in self.penalties
        )
        return replace(self, penalties=penalties)

    def loss(self, found: Solution, factor: float, step: int, steps: int) -> Tensor | float:
        """The weighted penalties of a training step, averaged over samples and summed over models [S, B]."""
        parts = [
            factor * penalty.at(step, steps) * found.penalties[penalty.regularizer.name].mean(-1).sum()
            for penalty in self.penalties
        ]
        return torch.stack(parts).sum() if parts else 0.0


_TRIED = (0.1, 1.0, 10.0)
# Around those at which 150 steps on a CPU changed the evaluations but hardly the accuracy. The error is scaled by the
# tolerance, so these are far from the weights of authors who train at other tolerances.

RECIPES: tuple[Recipe, ...] = (
    Recipe("vanilla", "vanilla"),
    Recipe("error", "global", (Penalty(Error(), 10.0, 10.0),), weights=_TRIED),
    Recipe("error squared", "global", (Penalty(Error(power=2), 1.0, 10.0),), weights=_TRIED),
    Recipe("stiffness", "global", (Penalty(Stiffness(), 0.1),), weights=_TRIED),
    Recipe("error and stiffness", "global", (Penalty(Error(), 10.0, 10.0), Penalty(Stiffness(), 0.1)), weights=_TRIED),
    Recipe("local, uniform", "local", (Penalty(Local(step="solver"), 10.0, 10.0),), weights=_TRIED),
    Recipe("local, accepted", "local", (Penalty(Local(at="accepted", step="solver"), 10.0, 10.0),), weights=_TRIED),
    Recipe("local, heuristic step", "local", (Penalty(Local(), 1e4, 10.0),), weights=_TRIED),
    Recipe("local, frozen", "local", (Penalty(Local(state="frozen", step="solver"), 10.0, 10.0),), weights=_TRIED),
    Recipe("local, attached", "local", (Penalty(Local(state="attached", step="solver"), 10.0, 10.0),), weights=_TRIED),
    Recipe("local stiffness", "local", (Penalty(Local("stiffness", step="solver"), 0.1),), weights=_TRIED),
    Recipe("kinetic and Jacobian", "baseline", (Penalty(Kinetic(), 0.01), Penalty(Jacobian(), 0.01)), weights=_TRIED),
    Recipe("Taylor 2", "baseline", (Penalty(Taylor(2), 0.01),), weights=_TRIED),
    Recipe("Taylor 3", "baseline", (Penalty(Taylor(3), 0.01),), weights=_TRIED),
    Recipe("random end", "baseline", spread=0.5),
)  # fmt: skip
"""Every way that is compared; a new one is one line here."""

_NO_PAIR = "no table for SDEs has two stages at one node, so there is no stiffness estimate"
_NO_VELOCITY = "a path of an SDE has no derivative to be integrated"

ALONG_ODES = {
    "stiffness": _NO_PAIR,
    "error and stiffness": _NO_PAIR,
    "local stiffness": _NO_PAIR,
    "local, frozen": "methods for SDEs hand no slope on that could be frozen",
    "kinetic and Jacobian": _NO_VELOCITY,
    "Taylor 2": _NO_VELOCITY,
    "Taylor 3": _NO_VELOCITY,
}
"""Recipes that go with ODEs alone, and why."""
