"""Implicit neural spatial representations: time-dependent PDEs solved by a network of space, moved through time."""

from sciode.insr.body import Body, Held
from sciode.insr.deform import deform
from sciode.insr.evolve import evolve
from sciode.insr.galerkin import Galerkin
from sciode.insr.optimise import Fit
from sciode.insr.points import Points
from sciode.insr.schemes import Scheme, scheme_of
from sciode.insr.splitting import Splitting
from sciode.insr.trajectory import Step, Trajectory

__all__ = [
    "Body",
    "Fit",
    "Galerkin",
    "Held",
    "Points",
    "Scheme",
    "Splitting",
    "Step",
    "Trajectory",
    "deform",
    "evolve",
    "scheme_of",
]
