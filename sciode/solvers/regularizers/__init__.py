"""Regularizers: quantities the solver knows about its own work, as differentiable outputs."""

from .base import Regularizer, as_regularizers
from .error import Error
from .stiffness import Stiffness

__all__ = ["Error", "Regularizer", "Stiffness", "as_regularizers"]
