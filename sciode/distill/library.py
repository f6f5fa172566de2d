"""The library of candidate terms, as data: a term is a string, a product of powers and functions of components."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations_with_replacement, product

import torch
from torch import Tensor

__all__ = ["FUNCTIONS", "evaluate", "polynomials", "products", "trigonometric"]

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sin": torch.sin,
    "cos": torch.cos,
    "abs": torch.abs,
    "exp": torch.exp,
    "tanh": torch.tanh,
}
"""The functions a term may use, by name."""

POWER = re.compile(r"(?P<name>[A-Za-z_]\w*)(\^(?P<power>\d+))?")
CALL = re.compile(r"(?P<function>[a-z]+)\((?P<name>[A-Za-z_]\w*)\)")


def polynomials(names: Sequence[str], degree: int = 3) -> tuple[str, ...]:
    """Return all monomials of the named components up to a degree: ("1", "x", "y", "x^2", "x*y", "y^2", ...).

    Parameters
    ----------
    names: of D components. degree: 2 or 3 is usual; there are (D + degree choose degree) terms.

    Raises ValueError for degree < 0.
    """
    if degree < 0:
        raise ValueError(f"degree must be >= 0, got {degree}")
    terms = []
    for total in range(degree + 1):
        for chosen in combinations_with_replacement(names, total):
            powers = [(name, chosen.count(name)) for name in names if name in chosen]
            terms.append("*".join(name if power == 1 else f"{name}^{power}" for name, power in powers) or "1")
    return tuple(terms)


def trigonometric(names: Sequence[str]) -> tuple[str, ...]:
    """Return the sine and cosine of each named component: ("sin(x)", "cos(x)", ...), for angles in radians."""
    return tuple(f"{function}({name})" for name, function in product(names, ("sin", "cos")))


def products(left: Iterable[str], right: Iterable[str]) -> tuple[str, ...]:
    """Return each term of `left` times each of `right`, once: products(["v"], ["abs(v)"]) = ("v*abs(v)",)."""
    found = {}
    for pair in product(left, right):
        found["*".join(term for term in pair if term != "1") or "1"] = None
    return tuple(found)


def evaluate(term: str, y: Tensor, names: Sequence[str]) -> Tensor:
    """Return the value of one term on states, [*batch, D] -> [*batch].

    Parameters
    ----------
    term: factors joined by "*": "1", a component "x", a power "x^3", or a function "sin(x)" (see `FUNCTIONS`).
    names: of y's D components, in its order.

    Raises ValueError for what is no such product, naming the factor.
    """
    value = torch.ones_like(y[..., 0])
    for factor in term.replace(" ", "").split("*"):
        value = value * _factor(factor, y, names)
    return value


def _factor(factor: str, y: Tensor, names: Sequence[str]) -> Tensor:
    if factor == "1":
        return torch.ones_like(y[..., 0])
    call, power = CALL.fullmatch(factor), POWER.fullmatch(factor)
    match = call or power
    if match is None or match["name"] not in names or (call and call["function"] not in FUNCTIONS):
        raise ValueError(
            f"{factor!r} is no factor of a term: use 1, a name, name^2 or function(name) with names among "
            f"{', '.join(names)} and functions among {', '.join(FUNCTIONS)}, joined by *"
        )
    component = y[..., list(names).index(match["name"])]
    if call:
        return FUNCTIONS[call["function"]](component)
    assert power is not None
    return component ** int(power["power"] or 1)
