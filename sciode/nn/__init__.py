"""Layers and fields shared by the modules: networks, and learned dynamics with structure."""

from sciode.nn.augmented import Augmented, augment, project
from sciode.nn.hamiltonian import Hamiltonian
from sciode.nn.hybrid import Hybrid, starts_at_zero
from sciode.nn.joined import Autonomous, Joined
from sciode.nn.lagrangian import Lagrangian
from sciode.nn.mechanistic import Mechanistic
from sciode.nn.mlp import mlp
from sciode.nn.second_order import SecondOrder

__all__ = [
    "Augmented",
    "Autonomous",
    "Hamiltonian",
    "Hybrid",
    "Joined",
    "Lagrangian",
    "Mechanistic",
    "SecondOrder",
    "augment",
    "mlp",
    "project",
    "starts_at_zero",
]
