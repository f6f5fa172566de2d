"""Partial differential equations: elastic solids, the meshes they live on, and finite elements as opponent."""

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
from sciode.pde.finite_elements import elements, equilibrium, simulate, stored_energy, stretched
from sciode.pde.meshes import Mesh, Shape, lattice_mesh
from sciode.pde.shapes import SHAPES
from sciode.pde.strain import arap, rotation

__all__ = [
    "PRESETS",
    "SHAPES",
    "Load",
    "Material",
    "Mesh",
    "NeoHookean",
    "Plane",
    "Setup",
    "Shape",
    "Sphere",
    "arap",
    "elements",
    "equilibrium",
    "incremental_potential",
    "lattice_mesh",
    "potential",
    "rotation",
    "simulate",
    "stored_energy",
    "stretched",
]
