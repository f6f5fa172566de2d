"""Equations that are wrong in one term: what a model is told when nobody knows the system exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sciode.prose.trees import Expression, constant, variable

__all__ = ["misspecified", "with_another_term", "without_a_term"]

Equations = tuple[Expression, ...]


def misspecified(equations: Sequence[Expression], generator: np.random.Generator, share: float = 0.15) -> Equations:
    """Return the system with a term too many (probability `share`), one too few (`share`), or as it is."""
    if not 0 <= share <= 0.5:
        raise ValueError(f"share must lie in [0, 0.5], got {share}")
    drawn = generator.random()
    if drawn < share:
        return with_another_term(equations, generator)
    return without_a_term(equations, generator) if drawn < 2 * share else tuple(equations)


def with_another_term(equations: Sequence[Expression], generator: np.random.Generator) -> Equations:
    """Return the system with c u_i or c u_i u_j added to a component, c uniform in [-2, 2]."""
    place, count = int(generator.integers(len(equations))), len(equations)
    term = constant(float(generator.uniform(-2, 2))) * variable(int(generator.integers(count)))
    if generator.random() < 0.5:
        term = term * variable(int(generator.integers(count)))
    return (*equations[:place], equations[place] + term, *equations[place + 1 :])


def without_a_term(equations: Sequence[Expression], generator: np.random.Generator) -> Equations:
    """Return the system less one term of a component that has several; as it is where none has."""
    several = [place for place, one in enumerate(equations) if len(list(one.terms())) > 1]
    if not several:
        return tuple(equations)
    place = several[int(generator.integers(len(several)))]
    terms = list(equations[place].terms())
    del terms[int(generator.integers(len(terms)))]
    left = terms[0]
    for one in terms[1:]:
        left = left + one
    return (*equations[:place], left, *equations[place + 1 :])
