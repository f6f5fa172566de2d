"""Operators and symbolic equations from one transformer: systems as data, symbols as tokens, and a grammar."""

from sciode.prose.display import latex, to_sympy
from sciode.prose.grammar import Grammar, State
from sciode.prose.model import PRESETS, Shape, Transformer
from sciode.prose.programs import Programs
from sciode.prose.refine import Fit, Refined, misfit, refine
from sciode.prose.samples import Drawing, Samples, draw, equations_of, noisy, simulate
from sciode.prose.systems import SYSTEMS, System, of_dimension
from sciode.prose.trees import OPERATORS, Expression, constant, cos, parameter, sin, square, variable, variables
from sciode.prose.vocabulary import Vocabulary, on_grid
from sciode.prose.writing import Writing, Written, write
from sciode.prose.wrong_terms import misspecified, with_another_term, without_a_term

__all__ = [
    "OPERATORS",
    "PRESETS",
    "SYSTEMS",
    "Drawing",
    "Expression",
    "Fit",
    "Grammar",
    "Programs",
    "Refined",
    "Samples",
    "Shape",
    "State",
    "System",
    "Transformer",
    "Vocabulary",
    "Writing",
    "Written",
    "constant",
    "cos",
    "draw",
    "equations_of",
    "latex",
    "misfit",
    "misspecified",
    "noisy",
    "of_dimension",
    "on_grid",
    "parameter",
    "refine",
    "simulate",
    "sin",
    "square",
    "to_sympy",
    "variable",
    "variables",
    "with_another_term",
    "without_a_term",
    "write",
]
