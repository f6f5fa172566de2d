"""Steppers: one pure step a family of methods."""

from .base import Memory, Step, Stepper
from .explicit import ExplicitRK, Stages
from .srk import from_table
from .stochastic import SDEStepper

__all__ = ["ExplicitRK", "Memory", "SDEStepper", "Stages", "Step", "Stepper", "from_table"]
