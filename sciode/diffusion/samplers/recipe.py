"""The unified sampling framework: every step of a sampler with decisions of its own, kept as JSON, run as a plan.

Time, prediction (noise, data, or DPM-Solver-v3's), values that are interpolated, how derivatives are estimated, a
relaxation of the first one, a corrector, and whether the first value is known without an evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path as File
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciode.diffusion.path import Node, Path
from sciode.diffusion.plan import Plan
from sciode.diffusion.samplers.base import Sampler
from sciode.diffusion.samplers.dpm_v3 import exponential_step
from sciode.diffusion.statistics import ModelStatistics
from sciode.diffusion.weights import derivative_basis, keep, kernel_between
from sciode.training.checkpoint import write_atomically

__all__ = ["KINDS", "Recipe", "Step"]

Array = NDArray[np.float64]

KINDS = ("noise", "data", "ems")
"""What a step interpolates: eps (DPM-Solver), x0 (DPM-Solver++), or f of DPM-Solver-v3, which needs statistics."""
_SOURCE = "Liu et al. (2023), a unified sampling framework for solver searching of diffusion models"


@dataclass(frozen=True)
class Step:
    """Decisions of one step.

    - kind: one of KINDS.
    - nodes: values that are interpolated, as far as there are any: the order of the step.
    - nearest: derivative k from the k + 1 nearest values only (pseudo-order), else all of them from all values.
    - relax: the estimated first derivative is multiplied by 1 + relax.
    - corrector: values of a corrector, the new one among them; 0 = none. It costs nothing, except that the last step
      has none.
    """

    kind: str = "data"
    nodes: int = 2
    nearest: bool = False
    relax: float = 0.0
    corrector: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if not 1 <= self.nodes <= 4 or self.corrector not in (0, 2, 3, 4):
            raise ValueError(f"expected nodes 1 to 4 and corrector 0, 2, 3 or 4, got {self.nodes}, {self.corrector}")


@dataclass(frozen=True)
class Recipe:
    """A whole sampler: `sample(model, x, schedule, sampler=recipe, ems=...)` takes its times as the grid.

    - times [N + 1]: from t_start to t_end.
    - steps [N].
    - first: None, or the mean of the data, a number or one sample as nested lists: the first value is then that data
      prediction, without an evaluation (the "analytic first step").
    """

    times: tuple[float, ...]
    steps: tuple[Step, ...]
    first: Any = None

    def __post_init__(self) -> None:
        if len(self.times) != len(self.steps) + 1 or not self.steps:
            raise ValueError(f"expected one time more than steps, got {len(self.times)} and {len(self.steps)}")

    @property
    def evaluations(self) -> int:
        """Calls of the model."""
        return len(self.steps) - (self.first is not None)

    @property
    def needs_statistics(self) -> bool:
        """Whether a step is of kind "ems"."""
        return any(step.kind == "ems" for step in self.steps)

    def sampler(self, name: str = "recipe") -> Sampler:
        """As samplers are; no order is claimed, for nothing says how to refine it."""
        return Sampler(
            name, None, self.plan, evaluations=self._calls, source=_SOURCE, times=self.times,
            wants="ems" if self.needs_statistics else None,
        )  # fmt: skip

    def _calls(self, steps: int) -> int:
        return steps - (self.first is not None)

    def plan(self, path: Path, ems: ModelStatistics | None = None) -> Plan:
        """The program on its own times."""
        if path.steps != len(self.steps):
            raise ValueError(f"grid: the recipe has {len(self.steps)} steps, the grid {path.steps}")
        plan, x = Plan(), 0
        known: list[_Value] = [_first(plan, x, path.nodes[0], self.first)]
        for i, ((s, t), step) in enumerate(zip(pairwise(path.nodes), self.steps, strict=True)):
            start, used = x, known[: step.nodes]
            x = _stepped(plan, start, s, t, used, step, ems)
            if i + 1 == path.steps:
                break
            new = _Value(t, x, plan.call(x, t, "noise"))
            if step.corrector:
                both = [known[0], new, *known[1 : step.corrector - 1]]
                x = _stepped(plan, start, s, t, both, step, ems, relaxed=False)
            known = [new, *known[:3]]
        plan.result = x
        return plan

    def to_json(self) -> str:
        """Text that `from_json` reads."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Recipe:
        """Raises ValueError for anything but a recipe."""
        try:
            found = json.loads(text)
            steps = tuple(Step(**step) for step in found["steps"])
            return Recipe(tuple(float(t) for t in found["times"]), steps, found["first"])
        except (KeyError, TypeError, json.JSONDecodeError) as fault:
            raise ValueError(f"recipe: the text is none ({fault!r}); write one with Recipe.to_json") from fault

    def save(self, file: File) -> None:
        """Write the JSON whole or not at all."""
        write_atomically(file, (self.to_json() + "\n").encode())

    @staticmethod
    def load(file: File) -> Recipe:
        """Read what `save` wrote."""
        return Recipe.from_json(file.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class _Value:
    """A node, the state that was evaluated there, and its eps."""

    node: Node
    x: int
    eps: int


def _first(plan: Plan, x: int, at: Node, mean: Any) -> _Value:
    if mean is None:
        return _Value(at, x, plan.call(x, at, "noise"))
    # eps = (x - alpha mean) / sigma: what the model would nearly say where there is hardly anything but noise.
    constant = -at.alpha / at.sigma * np.asarray(mean, dtype=np.float64)
    return _Value(at, x, plan.mix((x, 1 / at.sigma), constant=constant))


def _stepped(
    plan: Plan, x: int, s: Node, t: Node, known: Sequence[_Value], step: Step, ems: ModelStatistics | None,
    relaxed: bool = True,
) -> int:  # fmt: skip
    """From s to t; derivatives are those at s, which is the node of known[0]."""

    def basis(at: Array) -> list[Array]:
        lams = [value.node.lam for value in known]
        return derivative_basis(at, lams, step.nearest, step.relax if relaxed else 0.0)

    if step.kind == "ems":
        assert ems is not None
        kept, weights, constant = exponential_step(ems, s, t, [value.node for value in known], basis)
    else:
        at, kernel = kernel_between(step.kind, s, t)
        kept, weights, constant = keep(step.kind, s, t), [float((kernel * b).sum()) for b in basis(at)], None
    terms: list[tuple[int, Any]] = []
    for value, w in zip(known, weights, strict=True):
        on_x, on_eps = _as(step.kind, value.node, ems)
        terms += [(value.x, w * on_x), (value.eps, w * on_eps)]
    return plan.mix((x, kept), *terms, constant=constant)


def _as(kind: str, at: Node, ems: ModelStatistics | None) -> tuple[Any, Any]:
    """What a step interpolates, by state and eps."""
    if kind == "noise":
        return 0.0, 1.0
    if kind == "data":
        return 1 / at.alpha, -at.sigma / at.alpha
    assert ems is not None
    return -ems.value("l", [at.lam])[0] / at.alpha, at.rho
