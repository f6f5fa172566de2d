"""Jets: Taylor-mode automatic differentiation of fields, at a cost polynomial in the order."""

from .jet import Jet
from .solution import taylor

__all__ = ["Jet", "taylor"]
