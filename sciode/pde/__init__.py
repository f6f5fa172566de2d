"""Partial differential equations: problems as data, operators, domains and points in them, solvers.

A field function maps one point x [d] to values [c]; batches are made by `torch.func.vmap` (`over`).
"""

from sciode.pde.domains import Ball, Boundary, Box, Domain, Implicit, difference, intersection, union
from sciode.pde.elastic import (
    PRESETS,
    Load,
    Material,
    NeoHookean,
    Plane,
    Setup,
    Sphere,
    incremental_potential,
    potential,
)
from sciode.pde.evolution import Evolution
from sciode.pde.finite_elements import elements, equilibrium, simulate, stored_energy, stretched
from sciode.pde.meshes import Mesh, Shape, lattice_mesh
from sciode.pde.operators import (
    FieldFunction,
    curl,
    divergence,
    expansion,
    gradient,
    hessian,
    jacobian,
    laplacian,
    over,
    partial,
)
from sciode.pde.problems import PROBLEMS, problem_of
from sciode.pde.regions import Polygon, Slab
from sciode.pde.sampling import WAYS, Way, Weighted, draw, resampled, weighted
from sciode.pde.shapes import SHAPES
from sciode.pde.strain import arap, rotation
from sciode.pde.vorticity import diagonal_forcing, random_vorticity, simulate_vorticity, velocity_of

__all__ = [
    "PRESETS",
    "PROBLEMS",
    "SHAPES",
    "WAYS",
    "Ball",
    "Boundary",
    "Box",
    "Domain",
    "Evolution",
    "FieldFunction",
    "Implicit",
    "Load",
    "Material",
    "Mesh",
    "NeoHookean",
    "Plane",
    "Polygon",
    "Setup",
    "Shape",
    "Slab",
    "Sphere",
    "Way",
    "Weighted",
    "arap",
    "curl",
    "diagonal_forcing",
    "difference",
    "divergence",
    "draw",
    "elements",
    "equilibrium",
    "expansion",
    "gradient",
    "hessian",
    "incremental_potential",
    "intersection",
    "jacobian",
    "laplacian",
    "lattice_mesh",
    "over",
    "partial",
    "potential",
    "problem_of",
    "random_vorticity",
    "resampled",
    "rotation",
    "simulate",
    "simulate_vorticity",
    "stored_energy",
    "stretched",
    "union",
    "velocity_of",
    "weighted",
]
