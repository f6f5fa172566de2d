"""Partial differential equations: problems as data, operators, domains and points in them, solvers on grids.

A field function maps one point x [d] to values [c]; batches are made by `torch.func.vmap` (`over`).
"""

from sciode.pde.domains import Ball, Boundary, Box, Domain, Implicit, difference, intersection, union
from sciode.pde.evolution import Evolution
from sciode.pde.operators import (
    FieldFunction,
    curl,
    divergence,
    gradient,
    hessian,
    jacobian,
    laplacian,
    over,
    partial,
)
from sciode.pde.problems import PROBLEMS
from sciode.pde.sampling import WAYS, Way, Weighted, draw, weighted

__all__ = [
    "PROBLEMS",
    "WAYS",
    "Ball",
    "Boundary",
    "Box",
    "Domain",
    "Evolution",
    "FieldFunction",
    "Implicit",
    "Way",
    "Weighted",
    "curl",
    "difference",
    "divergence",
    "draw",
    "gradient",
    "hessian",
    "intersection",
    "jacobian",
    "laplacian",
    "over",
    "partial",
    "union",
    "weighted",
]
