"""Operators and symbolic equations from one transformer: systems as data, symbols as tokens, a grammar, and `Prose`."""

from sciode.prose.agreement import Agreement, agreement
from sciode.prose.display import latex, to_sympy
from sciode.prose.estimator import PRETRAINED, Forecast, Prose
from sciode.prose.families import FAMILIES, Family, Fields, draw_fields, evolve_fields
from sciode.prose.field_fits import RefinedField, refine_field
from sciode.prose.fields import FieldDrawing, equations_of_family, filled_fields
from sciode.prose.grammar import Grammar, State
from sciode.prose.guesses import Guesses, Told
from sciode.prose.kept import kept
from sciode.prose.memory import Memory
from sciode.prose.model import PRESETS, Shape, Transformer
from sciode.prose.opponents import DeepONet, FourierOperator, Operator
from sciode.prose.pool import Batch, Pool, Reading, filled
from sciode.prose.programs import Programs
from sciode.prose.refine import Fit, Refined, misfit, refine
from sciode.prose.samples import Drawing, Samples, draw, equations_of, noisy, simulate
from sciode.prose.search import searched
from sciode.prose.shooting import Shot, noise_of, shoot
from sciode.prose.systems import SYSTEMS, System, of_dimension
from sciode.prose.training import Course, Training
from sciode.prose.trees import OPERATORS, Expression, constant, cos, parameter, sin, square, variable, variables
from sciode.prose.vocabulary import Vocabulary, on_grid
from sciode.prose.weights import load_model, save_model
from sciode.prose.writing import Writing, Written, write

__all__ = [
    "FAMILIES",
    "OPERATORS",
    "PRESETS",
    "PRETRAINED",
    "SYSTEMS",
    "Agreement",
    "Batch",
    "Course",
    "DeepONet",
    "Drawing",
    "Expression",
    "Family",
    "FieldDrawing",
    "Fields",
    "Fit",
    "Forecast",
    "FourierOperator",
    "Grammar",
    "Guesses",
    "Memory",
    "Operator",
    "Pool",
    "Programs",
    "Prose",
    "Reading",
    "Refined",
    "RefinedField",
    "Samples",
    "Shape",
    "Shot",
    "State",
    "System",
    "Told",
    "Training",
    "Transformer",
    "Vocabulary",
    "Writing",
    "Written",
    "agreement",
    "constant",
    "cos",
    "draw",
    "draw_fields",
    "equations_of",
    "equations_of_family",
    "evolve_fields",
    "filled",
    "filled_fields",
    "kept",
    "latex",
    "load_model",
    "misfit",
    "noise_of",
    "noisy",
    "of_dimension",
    "on_grid",
    "parameter",
    "refine",
    "refine_field",
    "save_model",
    "searched",
    "shoot",
    "simulate",
    "sin",
    "square",
    "to_sympy",
    "variable",
    "variables",
    "write",
]
