"""A sampler's program: what is evaluated, drawn and added, in which order, with every coefficient a number beforehand.

All samplers with a grid are linear: between two calls of the model they add up states, model values and normal draws
with coefficients that depend on the schedule alone. A sampler is therefore a function from a `Path` to a `Plan`, and
one loop (`run.py`) interprets all plans; multistep histories, corrected values and coupled states are registers. The
host computes a plan in float64 and the device never asks it anything again, so a loop can be captured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sciode.diffusion.path import Node

__all__ = ["Call", "Draw", "Mix", "Plan"]


@dataclass(frozen=True)
class Call:
    """Register `out` = the model at state `state` and a node, as "data", "noise" or "flow" prediction."""

    out: int
    state: int
    node: Node
    kind: str


@dataclass(frozen=True)
class Mix:
    """Register `out` = sum of coefficient x register (+ constant).

    A coefficient is a number, an array [B] (plans with a time a sample), or an array of one sample's shape.
    """

    out: int
    terms: tuple[tuple[int, Any], ...]
    constant: Any = None


@dataclass(frozen=True)
class Draw:
    """Register `out` = the number-th standard normal draw of every sample's own stream."""

    out: int
    number: int


@dataclass(eq=False)
class Plan:
    """The lines of a program, made by the three methods below; each returns the register that it writes.

    Registers below `inputs` hold what is given: the state, and what an exact inversion starts from beside it. `result`
    is the register of the sample, `memory` those that an exact inversion needs beside it.
    """

    inputs: int = 1
    lines: list[Call | Mix | Draw] = field(default_factory=list)
    result: int = 0
    memory: tuple[int, ...] = ()
    _draws: int = 0

    def call(self, state: int, node: Node, kind: str) -> int:
        """Evaluate the model."""
        self.lines.append(Call(self._next, state, node, kind))
        return self._next - 1

    def mix(self, *terms: tuple[int, Any], constant: Any = None) -> int:
        """Add up registers, given as (register, coefficient)."""
        self.lines.append(Mix(self._next, terms, constant))
        return self._next - 1

    def draw(self) -> int:
        """Draw standard normals."""
        self.lines.append(Draw(self._next, self._draws))
        self._draws += 1
        return self._next - 1

    def follow(self, other: Plan, *inputs: int) -> tuple[int, tuple[int, ...]]:
        """Append another program whose inputs are these registers; returns its result and its memory.

        Raises ValueError for the wrong number of inputs.
        """
        if len(inputs) != other.inputs:
            raise ValueError(f"inputs: a program of {other.inputs} inputs got {len(inputs)}")
        first = self._next

        def here(register: int) -> int:
            return inputs[register] if register < other.inputs else first + register - other.inputs

        for line in other.lines:
            if isinstance(line, Call):
                self.call(here(line.state), line.node, line.kind)
            elif isinstance(line, Draw):
                self.draw()
            else:
                self.mix(*((here(register), c) for register, c in line.terms), constant=line.constant)
        return here(other.result), tuple(here(register) for register in other.memory)

    @property
    def _next(self) -> int:
        return self.inputs + len(self.lines)

    @property
    def calls(self) -> int:
        """Evaluations of the model."""
        return sum(isinstance(line, Call) for line in self.lines)

    @property
    def draws(self) -> int:
        """Normal draws."""
        return self._draws

    def reads(self, n: int) -> list[int]:
        """The registers that line n reads, each once."""
        line = self.lines[n]
        if isinstance(line, Mix):
            return list(dict.fromkeys(register for register, _ in line.terms))
        return [line.state] if isinstance(line, Call) else []

    def last_uses(self) -> dict[int, int]:
        """For each register the last line that reads it; those that are handed out are read after the end."""
        uses: dict[int, int] = {}
        for n in range(len(self.lines)):
            uses.update(dict.fromkeys(self.reads(n), n))
        return uses | dict.fromkeys((self.result, *self.memory), len(self.lines))
