"""Expressions as trees in prefix order: data that is built, walked, evaluated and printed, and never run as code."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, final

import torch
from torch import Tensor

from sciode.solvers.suggest import choose

__all__ = [
    "OPERATORS",
    "Expression",
    "Operator",
    "constant",
    "cos",
    "parameter",
    "sin",
    "square",
    "variable",
    "variables",
]


@dataclass(frozen=True)
class Operator:
    """arity: how many arguments; apply: on tensors of one shape, of which some may be numbers."""

    arity: int
    apply: Callable[..., Any]


OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "add": Operator(2, operator.add),
        "sub": Operator(2, operator.sub),
        "mul": Operator(2, operator.mul),
        "div": Operator(2, operator.truediv),
        "neg": Operator(1, operator.neg),
        "inv": Operator(1, torch.reciprocal),
        "sin": Operator(1, torch.sin),
        "cos": Operator(1, torch.cos),
        "pow2": Operator(1, torch.square),
    }
)
"""By the name that symbols have."""

Leaf = str | float
"""A variable "u_0", a parameter "p_name", or a number."""


@final
@dataclass(frozen=True)
class Expression:
    """A tree in prefix order: ("add", "u_0", "mul", 0.5, "u_1") is u_0 + 0.5 u_1. Built by +, -, *, /, ** 2 and `sin`.

    Raises ValueError for a sequence that is no tree.
    """

    symbols: tuple[Leaf, ...]

    def __post_init__(self) -> None:
        open_ends = 1
        for place, one in enumerate(self.symbols):
            if open_ends == 0:
                raise ValueError(f"a tree ends before {self.symbols[place:]}")
            open_ends += _arity(one) - 1
        if open_ends:
            raise ValueError(f"{open_ends} arguments are missing at the end of {self.symbols}")

    def __add__(self, other: Expression | float) -> Expression:
        return _joined("add", self, other)

    def __radd__(self, other: float) -> Expression:
        return _joined("add", other, self)

    def __sub__(self, other: Expression | float) -> Expression:
        return _joined("sub", self, other)

    def __rsub__(self, other: float) -> Expression:
        return _joined("sub", other, self)

    def __mul__(self, other: Expression | float) -> Expression:
        return _joined("mul", self, other)

    def __rmul__(self, other: float) -> Expression:
        return _joined("mul", other, self)

    def __truediv__(self, other: Expression | float) -> Expression:
        return _joined("div", self, other)

    def __rtruediv__(self, other: float) -> Expression:
        return _joined("div", other, self)

    def __neg__(self) -> Expression:
        return _joined("neg", self)

    def __pow__(self, power: int) -> Expression:
        if power not in (2, 3):
            raise ValueError(f"powers are 2 or 3, got {power}: multiply for others")
        squared = _joined("pow2", self)
        return squared if power == 2 else squared * self

    @property
    def children(self) -> tuple[Expression, ...]:
        """The arguments of the outermost operator, none for a leaf."""
        found, begin = [], 1
        for _ in range(_arity(self.symbols[0])):
            end = _end(self.symbols, begin)
            found.append(Expression(self.symbols[begin:end]))
            begin = end
        return tuple(found)

    @property
    def constants(self) -> tuple[float, ...]:
        """The numbers in it, in prefix order."""
        return tuple(one for one in self.symbols if not isinstance(one, str))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its parameters, each once, in prefix order."""
        named = (one[2:] for one in self.symbols if isinstance(one, str) and one.startswith("p_"))
        return tuple(dict.fromkeys(named))

    def terms(self) -> Iterator[Expression]:
        """The terms of the sum that it is, with their signs."""
        head = self.symbols[0]
        if head not in ("add", "sub", "neg"):
            yield self
            return
        *first, last = self.children
        for one in first:
            yield from one.terms()
        yield from (last.terms() if head == "add" else (_negated(one) for one in last.terms()))

    def bound(self, values: Mapping[str, float]) -> Expression:
        """The same with numbers in the place of parameters. ValueError for a parameter without one."""
        if missing := set(self.parameters) - set(values):
            raise ValueError(f"no values for {', '.join(sorted(missing))}")
        return Expression(
            tuple(
                float(values[one[2:]]) if isinstance(one, str) and one.startswith("p_") else one for one in self.symbols
            )
        )

    def with_constants(self, values: Sequence[float]) -> Expression:
        """The same with other numbers, in prefix order. ValueError for another number of them."""
        if len(values) != len(self.constants):
            raise ValueError(f"{len(self.constants)} numbers are wanted, got {len(values)}")
        left = iter(values)
        return Expression(tuple(one if isinstance(one, str) else float(next(left)) for one in self.symbols))

    def at(self, u: Sequence[Any], parameters: Mapping[str, Any] | None = None, constants: Sequence[Any] = ()) -> Any:
        """Its value: u holds a tensor a variable; parameters and constants (in the place of numbers) may be tensors."""
        stack: list[Any] = []
        numbers = list(constants)
        for one in reversed(self.symbols):
            if not isinstance(one, str):
                stack.append(numbers.pop() if constants else one)
            elif one in OPERATORS:
                arguments = [stack.pop() for _ in range(OPERATORS[one].arity)]
                stack.append(OPERATORS[one].apply(*_with_a_tensor(arguments)))
            else:
                name = one[2:]
                stack.append((parameters or {})[name] if one.startswith("p_") else u[int(name)])
        return stack[0]


def variable(place: int) -> Expression:
    """u_place."""
    return Expression((f"u_{place}",))


def variables(dimension: int) -> tuple[Expression, ...]:
    """u_0 to u_(dimension - 1)."""
    return tuple(variable(place) for place in range(dimension))


def parameter(name: str) -> Expression:
    """A number that is drawn."""
    return Expression((f"p_{name}",))


def constant(value: float) -> Expression:
    """A number. ValueError unless it is finite."""
    if not math.isfinite(value):
        raise ValueError(f"constants must be finite, got {value}")
    return Expression((float(value),))


def sin(x: Expression) -> Expression:
    """sin x."""
    return _joined("sin", x)


def cos(x: Expression) -> Expression:
    """cos x."""
    return _joined("cos", x)


def square(x: Expression) -> Expression:
    """x^2."""
    return _joined("pow2", x)


def _joined(name: str, *parts: Expression | float) -> Expression:
    choose("operator", name, OPERATORS)
    trees = [part if isinstance(part, Expression) else constant(part) for part in parts]
    return Expression((name, *(symbol for tree in trees for symbol in tree.symbols)))


def _negated(term: Expression) -> Expression:
    """The term with the other sign, which its number takes if it begins with one."""
    head, *rest = term.symbols
    if head == "neg":
        return Expression(tuple(rest))
    if not isinstance(head, str):
        return Expression((-head,))
    if head == "mul" and not isinstance(rest[0], str):
        return Expression((head, -rest[0], *rest[1:]))
    return -term


def _arity(symbol: Leaf) -> int:
    return OPERATORS[symbol].arity if isinstance(symbol, str) and symbol in OPERATORS else 0


def _end(symbols: Sequence[Leaf], begin: int) -> int:
    """Where the tree that begins at a place ends."""
    open_ends = 1
    while open_ends:
        open_ends += _arity(symbols[begin]) - 1
        begin += 1
    return begin


def _with_a_tensor(arguments: list[Any]) -> list[Any]:
    """The arguments, of which numbers become tensors where there is none: beside one they need no copy to a device."""
    if any(isinstance(one, Tensor) for one in arguments):
        return arguments
    return [torch.tensor(one, dtype=torch.float64) for one in arguments]
