"""A method's step and dense output as lines of Triton.

One writer a family of steppers, found by `stages_of`; a family that joins later (Rosenbrock: the Jacobian as
derivatives of the drift's expressions, and an unrolled LU) is one more class here and one more line there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...steppers import ExplicitRK, Stepper
from ...steppers.stochastic import Euler, Heun, Milstein, ReversibleHeun
from .frame import Frame, Names
from .text import Text

__all__ = ["Calls", "Stages", "Stepped", "stages_of"]


@dataclass(frozen=True)
class Calls:
    """How to call the field: size, pieces of the state; channels, of the noise (0: none).

    noise, calculus: the term's; first, diffusion: the end of the argument list of either function.
    """

    frame: Frame
    size: int
    channels: int
    noise: str
    calculus: str
    first: str
    diffusion: str

    @property
    def diagonal(self) -> bool:
        """Whether component i feels channel i alone."""
        return self.noise == "diagonal"

    def evaluate(
        self, text: Text, name: str, time: str, y: Names, function: str = "first"
    ) -> tuple[Names, list[Names]]:
        """Lines that evaluate a function; the names of the drift [D] and of the diffusion [D][1 or m]."""
        drift = [f"{name}f_{i}" for i in range(self.size)] if function == "first" else []
        columns = 1 if self.diagonal else self.channels
        matrix = [[f"{name}g_{i}_{j}" for j in range(columns)] for i in range(self.size)] if self.channels else []
        results = [*drift, *(g for row in matrix for g in row)]
        arguments = self.first if function == "first" else self.diffusion
        text.put(f"{', '.join(results)} = {function}({', '.join((self.frame.wide(time), *y))}{arguments})")
        return drift, matrix

    def driven(self, row: Names, dw: Names, i: int) -> str:
        """Component i of g dW."""
        if self.diagonal:
            return f"{row[0]} * {dw[i]}"
        return " + ".join(f"{g} * {w}" for g, w in zip(row, dw, strict=True))


class Stepped(NamedTuple):
    """Names of a step's results; k, what its dense output needs beside y and y1."""

    y1: Names
    error: Names | None
    memory: list[Names]
    k: list[Names]


class Stages(ABC):
    """Writes the step of one stepper. In its lines, `now` is the time, `step` the signed step (float64), `h` the same
    in the state's dtype, `length` and so on as in `source`."""

    @staticmethod
    def widths(stepper: Stepper, size: int, columns: int) -> tuple[int, ...]:
        """Components of the vectors handed from step to step, for a state of `size` and a diffusion [size][columns]."""
        return ()

    def __init__(self, stepper: Stepper, calls: Calls) -> None:
        self.stepper, self.calls = stepper, calls

    def start(self, y: Names, f: Names, g: list[Names]) -> list[Names]:
        """The memory of the first step, f and g having been evaluated at y: as `Stepper.start` has it."""
        return []

    @abstractmethod
    def step(self, text: Text, y: Names, memory: list[Names], dw: Names) -> Stepped:
        """Lines of one step."""

    @abstractmethod
    def prepare(self, text: Text, y: Names, stepped: Stepped) -> list[Names]:
        """Lines run only where an output is due: vectors that span the dense output."""

    @abstractmethod
    def weights(self, text: Text, count: int) -> Names:
        """Lines of the weights of those vectors at `theta`; "" where a weight is always 0."""


class ExplicitStages(Stages):
    """Any explicit table."""

    stepper: ExplicitRK

    @staticmethod
    def widths(stepper: Stepper, size: int, columns: int) -> tuple[int, ...]:
        """The last slope, if the table hands it on."""
        assert isinstance(stepper, ExplicitRK)
        return (size,) if stepper.table.fsal else ()

    def start(self, y: Names, f: Names, g: list[Names]) -> list[Names]:
        """The first slope, where the table hands slopes on."""
        return [f] if self.stepper.table.fsal else []

    def step(self, text: Text, y: Names, memory: list[Names], dw: Names) -> Stepped:
        """All stages, the solution, the error estimate."""
        table = self.stepper.table
        k = [memory[0]] if table.fsal else [self._slope(text, 0, table.c[0], y)]
        state = y
        for i, (c, row) in enumerate(zip(table.c[1:], table.a[1:], strict=True), 1):
            state = self._state(text, f"g{i}_", y, row, k)
            k.append(self._slope(text, i, c, state))
        y1 = state if table.fsal else self._state(text, "y1_", y, table.b, k)
        error = None
        if table.b_error is not None:
            error = [text.let(f"e_{j}", f"h * ({combination(table.b_error, k, j)})") for j in range(len(y))]
        return Stepped(y1, error, [k[-1]] if table.fsal else [], k)

    def prepare(self, text: Text, y: Names, stepped: Stepped) -> list[Names]:
        """The table's extra stages."""
        table, k = self.stepper.table, list(stepped.k)
        for i, (c, row) in enumerate(zip(table.extra_c, table.extra_a, strict=True), table.stages):
            k.append(self._slope(text, i, c, self._state(text, f"g{i}_", y, row, k)))
        return k

    def weights(self, text: Text, count: int) -> Names:
        """The table's polynomials by Horner's rule."""
        assert self.stepper.table.dense is not None
        names = []
        for i, row in enumerate(self.stepper.table.dense):
            if not any(row):
                names.append("")
                continue
            total = f"{row[-1]!r} * theta"
            for c in reversed(row[:-1]):
                total = f"({total} + {c!r}) * theta" if c else f"({total}) * theta"
            names.append(text.let(f"w_{i}", f"({total}) * h"))
        return names

    def _slope(self, text: Text, i: int, c: float, y: Names) -> Names:
        time = text.let(f"t_{i}", f"now + {c!r} * step" if c else "now")
        return self.calls.evaluate(text, f"k{i}", time, y)[0]

    def _state(self, text: Text, prefix: str, y: Names, row: Sequence[float], k: list[Names]) -> Names:
        return [text.let(f"{prefix}{j}", f"{y[j]} + h * ({combination(row, k, j)})") for j in range(len(y))]


def combination(weights: Sequence[float], k: list[Names], j: int) -> str:
    """sum_i weights[i] k_i, component j, leaving out the zeros."""
    return " + ".join(f"{v[j]} * {w!r}" for w, v in zip(weights, k, strict=False) if w != 0.0)


class SDEStages(Stages):
    """What fixed-step SDE methods share: the chord as dense output."""

    def prepare(self, text: Text, y: Names, stepped: Stepped) -> list[Names]:
        """The chord."""
        return [[text.let(f"chord_{j}", f"{stepped.y1[j]} - {y[j]}") for j in range(len(y))]]

    def weights(self, text: Text, count: int) -> Names:
        """theta itself."""
        return ["theta"]

    def increment(self, text: Text, name: str, y: Names, f: Names, g: list[Names], dw: Names) -> Names:
        """y + f h + g dW."""
        return [
            text.let(f"{name}_{i}", f"{y[i]} + {f[i]} * h + {self.calls.driven(g[i], dw, i)}") for i in range(len(y))
        ]

    def mean(self, text: Text, name: str, a: Names, b: Names) -> Names:
        """Half the sum of two vectors."""
        return [text.let(f"{name}_{i}", f"0.5 * ({p} + {q})") for i, (p, q) in enumerate(zip(a, b, strict=True))]

    def means(self, text: Text, name: str, a: list[Names], b: list[Names]) -> list[Names]:
        """Half the sum of two matrices."""
        return [self.mean(text, f"{name}{i}", p, q) for i, (p, q) in enumerate(zip(a, b, strict=True))]


class EulerStages(SDEStages):
    """Euler-Maruyama."""

    def step(self, text: Text, y: Names, memory: list[Names], dw: Names) -> Stepped:
        """One evaluation."""
        f, g = self.calls.evaluate(text, "k", "now", y)
        return Stepped(self.increment(text, "y1", y, f, g, dw), None, [], [])


class HeunStages(SDEStages):
    """Heun's predictor and corrector."""

    def step(self, text: Text, y: Names, memory: list[Names], dw: Names) -> Stepped:
        """Two evaluations."""
        f, g = self.calls.evaluate(text, "k", "now", y)
        fp, gp = self.calls.evaluate(text, "kp", "now + step", self.increment(text, "p", y, f, g, dw))
        f, g = self.mean(text, "mf", f, fp), self.means(text, "mg", g, gp)
        return Stepped(self.increment(text, "y1", y, f, g, dw), None, [], [])


class MilsteinStages(SDEStages):
    """Milstein without derivatives."""

    def step(self, text: Text, y: Names, memory: list[Names], dw: Names) -> Stepped:
        """One evaluation of the drift, two of the diffusion."""
        f, g = self.calls.evaluate(text, "k", "now", y)
        euler = self.increment(text, "p", y, f, g, dw)
        if self.calls.noise == "additive":
            return Stepped(euler, None, [], [])
        ito = self.calls.calculus == "ito"
        text.put("size = tl.abs(h)", f"root = {text.sqrt('size')}")
        drifted = " + {f} * h" if ito else ""
        support = [text.let(f"s_{i}", f"{y[i]}{drifted.format(f=f[i])} + {g[i][0]} * root") for i in range(len(y))]
        _, gs = self.calls.evaluate(text, "ks", "now", support, "diffusion")
        y1 = []
        text.put("safe = tl.where(root > 0, 2.0 * root, 1.0)")
        for i in range(len(y)):
            w = dw[i if self.calls.diagonal else 0]
            square = f"({w} * {w} - size)" if ito else f"({w} * {w})"
            slope = text.let(f"d_{i}", f"tl.where(root > 0, ({gs[i][0]} - {g[i][0]}) / safe, 0.0)")
            y1.append(text.let(f"y1_{i}", f"{euler[i]} + {slope} * {square}"))
        return Stepped(y1, None, [], [])


class ReversibleHeunStages(SDEStages):
    """Reversible Heun; memory: the twin, and drift and diffusion there."""

    @staticmethod
    def widths(stepper: Stepper, size: int, columns: int) -> tuple[int, ...]:
        """All three."""
        return size, size, size * columns

    def start(self, y: Names, f: Names, g: list[Names]) -> list[Names]:
        """The twin starts where y starts."""
        return [y, f, [x for row in g for x in row]]

    def step(self, text: Text, y: Names, memory: list[Names], dw: Names) -> Stepped:
        """One evaluation, at the new twin."""
        z, f, flat = memory
        columns = len(flat) // len(y)
        g = [flat[i * columns : (i + 1) * columns] for i in range(len(y))]
        mirrored = [text.let(f"m_{i}", f"2.0 * {y[i]} - {z[i]}") for i in range(len(y))]
        z1 = self.increment(text, "z1", mirrored, f, g, dw)
        f1, g1 = self.calls.evaluate(text, "k", "now + step", z1)
        y1 = self.increment(text, "y1", y, self.mean(text, "mf", f, f1), self.means(text, "mg", g, g1), dw)
        return Stepped(y1, None, [z1, f1, [x for row in g1 for x in row]], [])


_FAMILIES: dict[type[Stepper], type[Stages]] = {
    ExplicitRK: ExplicitStages,
    Euler: EulerStages,
    Heun: HeunStages,
    Milstein: MilsteinStages,
    ReversibleHeun: ReversibleHeunStages,
}


def stages_of(stepper: Stepper) -> type[Stages] | None:
    """Who writes this stepper's steps; None if nobody does."""
    return _FAMILIES.get(type(stepper))
