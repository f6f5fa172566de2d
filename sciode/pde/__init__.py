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
from sciode.pde.shallow_water import EARTH, Jet, Planet, Weather, balanced, jets, random_jets, simulate_shallow_water
from sciode.pde.shapes import SHAPES
from sciode.pde.spherical import SphereGrid
from sciode.pde.strain import arap, rotation
from sciode.pde.vorticity import diagonal_forcing, random_vorticity, simulate_vorticity, velocity_of

__all__ = [
    "EARTH",
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
    "Jet",
    "Load",
    "Material",
    "Mesh",
    "NeoHookean",
    "Plane",
    "Planet",
    "Polygon",
    "Setup",
    "Shape",
    "Slab",
    "Sphere",
    "SphereGrid",
    "Way",
    "Weather",
    "Weighted",
    "arap",
    "balanced",
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
    "jets",
    "laplacian",
    "lattice_mesh",
    "over",
    "partial",
    "potential",
    "problem_of",
    "random_jets",
    "random_vorticity",
    "resampled",
    "rotation",
    "simulate",
    "simulate_shallow_water",
    "simulate_vorticity",
    "stored_energy",
    "stretched",
    "union",
    "velocity_of",
    "weighted",
]
