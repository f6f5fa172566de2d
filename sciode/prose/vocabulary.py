"""Symbols as tokens: equations in prefix order, numbers as sign, three digits and an exponent.

0.17 is "+ N170 E-3", 28 is "+ N280 E-1", whole numbers from 0 to 10 are single tokens. Components end with "|", the
last with "end". In a skeleton every number is "C".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

from sciode.prose.trees import OPERATORS, Expression

__all__ = ["DIGITS", "Vocabulary", "mantissa_of", "on_grid"]

DIGITS = 3
_LOW, _HIGH = 10 ** (DIGITS - 1), 10**DIGITS - 1
_EXPONENTS = range(-10, 11)
_WHOLE = range(11)
SPECIALS = ("pad", "start", "end", "|", "C")


def on_grid(value: float) -> float:
    """Return the nearest number that tokens can say; tiny ones are 0. ValueError for infinite and too large ones."""
    if not math.isfinite(value):
        raise ValueError(f"numbers must be finite, got {value}")
    if value == 0:
        return 0.0
    mantissa, exponent = _split(value)
    if exponent > _EXPONENTS[-1]:
        raise ValueError(f"{value} is too large: at most {_HIGH}e{_EXPONENTS[-1]}")
    return 0.0 if exponent < _EXPONENTS[0] else _joined(math.copysign(1.0, value), mantissa, exponent)


def mantissa_of(value: float) -> int:
    """Return the three digits of a number, as one: 170 of 0.17 and of -1.7, 0 of 0."""
    return _split(value)[0] if value else 0


@final
@dataclass(frozen=True)
class Vocabulary:
    """Tokens for systems of at most `dimension` components. Raises ValueError for a dimension below one."""

    dimension: int = 5

    def __post_init__(self) -> None:
        if self.dimension < 1:
            raise ValueError(f"dimension must be at least 1, got {self.dimension}")

    @cached_property
    def words(self) -> tuple[str, ...]:
        """All tokens; a token's id is its place."""
        variables = [f"u_{place}" for place in range(self.dimension)]
        mantissas = [f"N{one}" for one in range(_LOW, _HIGH + 1)]
        exponents = [f"E{one}" for one in _EXPONENTS]
        return (*SPECIALS, *OPERATORS, *variables, *map(str, _WHOLE), "+", "-", *mantissas, *exponents)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Tokens -> ids."""
        return {word: place for place, word in enumerate(self.words)}

    def encoded(self, equations: Sequence[Expression], skeleton: bool = False) -> list[int]:
        """Return ids with "end" and without "start". ValueError for more components than there are variables."""
        if not 1 <= len(equations) <= self.dimension:
            raise ValueError(f"there are tokens for 1 to {self.dimension} components, got {len(equations)}")
        words: list[str] = []
        for one in equations:
            if one.parameters:
                raise ValueError(f"parameters {', '.join(one.parameters)} have no values: call bound first")
            words += [*self._words(one, skeleton), "|"]
        return [self._id(word) for word in (*words[:-1], "end")]

    def decoded(self, ids: Iterable[int]) -> tuple[Expression, ...]:
        """Return the equations of ids that end with "end". ValueError, with the place, for what are none."""
        components: list[list[str | float]] = [[]]
        words = iter([self.words[one] for one in ids])
        for word in words:
            if word == "end":
                return tuple(Expression(tuple(one)) for one in components)
            if word == "|":
                components.append([])
            elif word in ("+", "-"):
                mantissa, exponent = next(words, "nothing"), next(words, "nothing")
                if not (mantissa[0] == "N" and exponent[0] == "E"):
                    raise ValueError(f"after {word} come digits and an exponent, got {mantissa} and {exponent}")
                components[-1].append(_joined(1.0 if word == "+" else -1.0, int(mantissa[1:]), int(exponent[1:])))
            elif word in OPERATORS or word.startswith("u_"):
                components[-1].append(word)
            elif word.isdigit():
                components[-1].append(float(word))
            else:
                raise ValueError(f"{word} stands where a symbol should")
        raise ValueError('the sequence has no "end"')

    def _words(self, equation: Expression, skeleton: bool) -> list[str]:
        words: list[str] = []
        for one in equation.symbols:
            if isinstance(one, str):
                words.append(one)
            elif skeleton:
                words.append("C")
            else:
                words += _spelt(one)
        return words

    def _id(self, word: str) -> int:
        if word not in self.ids:
            raise ValueError(f"{word} is no token of {self.dimension} variables")
        return self.ids[word]


def _spelt(value: float) -> list[str]:
    value = on_grid(value)
    if value in _WHOLE:
        return [str(int(value))]
    mantissa, exponent = _split(value)
    return ["+" if value > 0 else "-", f"N{mantissa}", f"E{exponent}"]


def _split(value: float) -> tuple[int, int]:
    """Digits and exponent: |value| is nearly digits x 10^exponent."""
    digits, exponent = f"{abs(value):.{DIGITS - 1}e}".split("e")
    return int(digits.replace(".", "")), int(exponent) - (DIGITS - 1)


def _joined(sign: float, mantissa: int, exponent: int) -> float:
    """By decimal text, so that all ways to a number end at the same bits."""
    return sign * float(f"{mantissa}e{exponent}")
