"""Equations for people: sympy expressions and LaTeX, made from trees node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sciode.prose.trees import Expression

__all__ = ["latex", "to_sympy"]

_SHAPES: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "add": lambda s, a, b: a + b,
        "sub": lambda s, a, b: a - b,
        "mul": lambda s, a, b: a * b,
        "div": lambda s, a, b: a / b,
        "neg": lambda s, a: -a,
        "inv": lambda s, a: 1 / a,
        "sin": lambda s, a: s.sin(a),
        "cos": lambda s, a: s.cos(a),
        "pow2": lambda s, a: a**2,
    }
)


def to_sympy(tree: Expression) -> Any:
    """Return the tree as a sympy expression of symbols u_0, u_1, ...; numbers are shown with six digits at most."""
    import sympy

    def made(one: Expression) -> Any:
        head = one.symbols[0]
        if not isinstance(head, str):
            return sympy.Integer(int(head)) if head == int(head) else sympy.Float(f"{head:.6g}")
        if head in _SHAPES:
            return _SHAPES[head](sympy, *(made(child) for child in one.children))
        return sympy.Symbol(head)

    return made(tree)


def latex(equations: Sequence[Expression], names: Sequence[str] | None = None) -> str:
    """Return a LaTeX block of the system, one line a component. names: of the variables; u_0, u_1, ... by default.

    ValueError for another number of names.
    """
    import sympy

    if names and len(names) != len(equations):
        raise ValueError(f"there are {len(equations)} components, got {len(names)} names")

    symbols = [sympy.Symbol(f"u_{place}") for place in range(len(equations))]
    wanted = [sympy.Symbol(name) for name in names] if names else symbols
    lines = []
    for symbol, tree in zip(wanted, equations, strict=True):
        right = to_sympy(tree).subs(dict(zip(symbols, wanted, strict=True)), simultaneous=True)
        lines.append(rf"\dot{{{sympy.latex(symbol)}}} &= {sympy.latex(right)}")
    return r"\begin{aligned}" + r" \\ ".join(lines) + r"\end{aligned}"
