"""What a sampler is: a name, the order that it claims, and a function from a grid to a program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from sciode.diffusion.path import Path
from sciode.diffusion.plan import Plan

__all__ = ["Adaptive", "Sampler"]


def _one_a_step(steps: int) -> int:
    """Evaluations of a multistep sampler."""
    return steps


@dataclass(frozen=True, eq=False)
class Sampler:
    """A sampler on a grid.

    - order: p of the global error O(h^p); of the mean's equation for an SDE sampler; None where nothing converges
      to the ODE (consistency models).
    - plan(path, options) -> Plan: its program on a grid; `options` are those below.
    - kind: "ode", "sde" (draws noise), or "consistency" (jumps to the data and back).
    - weak: order of the variance that an SDE sampler gives Gaussian data.
    - evaluations(steps) -> calls of the model.
    - inverse(path, options) -> Plan: exact inversion from the state and its memory; None = none but approximate.
    - growth(path, options): by what factor the exact inversion may blow rounding up.
    - pairs(path, options) -> [(Plan, Plan)]: the same step by step, there and back, for gradients at constant memory.
    - wants: "ems" where `sample` needs empirical model statistics.
    - in_time: whether it steps in t alone, so that alpha may be 0 at the start.
    - times: its own grid, where it works on no other.
    - source: paper.
    """

    name: str
    order: int | None
    plan: Callable[..., Plan]
    kind: Literal["ode", "sde", "consistency"] = "ode"
    weak: int | None = None
    evaluations: Callable[[int], int] = _one_a_step
    inverse: Callable[..., Plan] | None = None
    growth: Callable[..., float] | None = None
    pairs: Callable[..., list[tuple[Plan, Plan]]] | None = None
    wants: str | None = None
    in_time: bool = False
    times: tuple[float, ...] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    source: str = ""

    def steps_for(self, nfe: int) -> int:
        """The most steps that take at most `nfe` evaluations. Raises ValueError if one step takes more."""
        steps = 0
        while self.evaluations(steps + 1) <= nfe:
            steps += 1
        if steps == 0:
            raise ValueError(f"nfe: {self.name} takes {self.evaluations(1)} evaluations for one step, got {nfe}")
        return steps

    def program(self, path: Path, **extra: Any) -> Plan:
        """The plan on a path, by this sampler's options."""
        return self.plan(path, **self.options, **extra)

    def backward(self, path: Path) -> Plan:
        """The program that undoes `program(path)`: inputs are the state and its memory."""
        assert self.inverse is not None
        return self.inverse(path, **self.options)


@dataclass(frozen=True, eq=False)
class Adaptive:
    """A sampler whose steps follow its own error estimate, per sample: walk(denoiser, path, x, options) -> Walked.

    order: of the solution that is carried on; `path` has two nodes, the start and the end.
    """

    name: str
    order: int
    walk: Callable[..., Any]
    kind: Literal["ode"] = "ode"
    options: dict[str, Any] = field(default_factory=dict)
    source: str = ""
