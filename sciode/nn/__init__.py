"""Layers and fields shared by the modules: networks, and learned dynamics with structure."""

from sciode.nn.augmented import Augmented, augment, project
from sciode.nn.cnf import CNF
from sciode.nn.hamiltonian import Hamiltonian
from sciode.nn.hybrid import Hybrid, starts_at_zero
from sciode.nn.joined import Autonomous, Joined
from sciode.nn.lagrangian import Lagrangian
from sciode.nn.mechanistic import Mechanistic
from sciode.nn.mlp import mlp
from sciode.nn.ode_rnn import Encoded, OdeRnn, SolveGaps, StepGaps
from sciode.nn.second_order import SecondOrder
from sciode.nn.siren import HardBoundary, PeriodicEmbedding, Siren
from sciode.nn.solenoidal import Solenoidal
from sciode.nn.stacked import members_of, rowwise, stack, unstack

__all__ = [
    "CNF",
    "Augmented",
    "Autonomous",
    "Encoded",
    "Hamiltonian",
    "HardBoundary",
    "Hybrid",
    "Joined",
    "Lagrangian",
    "Mechanistic",
    "OdeRnn",
    "PeriodicEmbedding",
    "SecondOrder",
    "Siren",
    "Solenoidal",
    "SolveGaps",
    "StepGaps",
    "augment",
    "members_of",
    "mlp",
    "project",
    "rowwise",
    "stack",
    "starts_at_zero",
    "unstack",
]
