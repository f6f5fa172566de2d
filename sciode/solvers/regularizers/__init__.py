"""Regularizers: quantities the solver knows about its own work, as differentiable outputs."""

from .base import Regularizer
from .choice import Chosen, as_regularizers
from .divergence import Divergence
from .error import Error
from .integral import Jacobian, Kinetic
from .local import Local
from .steer import steer
from .stiffness import Stiffness
from .taylor import Taylor

__all__ = [
    "Chosen",
    "Divergence",
    "Error",
    "Jacobian",
    "Kinetic",
    "Local",
    "Regularizer",
    "Stiffness",
    "Taylor",
    "as_regularizers",
    "steer",
]
