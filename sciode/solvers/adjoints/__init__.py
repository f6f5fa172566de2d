"""Adjoints: how a repetition of steps is differentiated."""

from .backsolve import Backsolve, backsolve
from .choice import ADJOINTS, choose_adjoint
from .recompute import recompute

__all__ = ["ADJOINTS", "Backsolve", "backsolve", "choose_adjoint", "recompute"]
