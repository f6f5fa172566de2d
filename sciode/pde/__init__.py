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
from sciode.pde.penalised_flow import FluidBox, PenalisedFlow, simulate_penalised_flow
from sciode.pde.problems import PROBLEMS, problem_of
from sciode.pde.regions import Polygon, Slab
from sciode.pde.sampling import WAYS, Way, Weighted, draw, resampled, weighted
from sciode.pde.shallow_water import EARTH, Jet, Planet, Weather, balanced, jets, random_jets, simulate_shallow_water
from sciode.pde.shapes import SHAPES
from sciode.pde.spherical import SphereGrid
from sciode.pde.step_flow import Scene, SceneMesh, mesh_of, random_scene, sample_on_mesh, simulate_scenes
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
    "FluidBox",
    "Implicit",
    "Jet",
    "Load",
    "Material",
    "Mesh",
    "NeoHookean",
    "PenalisedFlow",
    "Plane",
    "Planet",
    "Polygon",
    "Scene",
    "SceneMesh",
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
    "mesh_of",
    "over",
    "partial",
    "potential",
    "problem_of",
    "random_jets",
    "random_scene",
    "random_vorticity",
    "resampled",
    "rotation",
    "sample_on_mesh",
    "simulate",
    "simulate_penalised_flow",
    "simulate_scenes",
    "simulate_shallow_water",
    "simulate_vorticity",
    "stored_energy",
    "stretched",
    "union",
    "velocity_of",
    "weighted",
]
