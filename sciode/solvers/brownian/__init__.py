"""Brownian paths as pure functions of a seed."""

from .counter import CounterNoise
from .grid import GridNoise
from .seeds import sample_seeds

__all__ = ["CounterNoise", "GridNoise", "sample_seeds"]
