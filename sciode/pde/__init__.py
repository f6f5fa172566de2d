"""Partial differential equations: operators on field functions, domains, and ways to draw points in them.

A field function maps one point x [d] to values [c]; batches are made by `torch.func.vmap` (`over`).
"""

from sciode.pde.domains import Ball, Boundary, Box, Domain, Implicit, difference, intersection, union
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
from sciode.pde.sampling import WAYS, Way, Weighted, draw, weighted

__all__ = [
    "WAYS",
    "Ball",
    "Boundary",
    "Box",
    "Domain",
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
