"""Brownian paths as pure functions of a seed."""

from .block import BlockNoise
from .counter import CounterNoise, Ending, unit_normals
from .grid import GridNoise
from .seeds import sample_seeds

__all__ = ["BlockNoise", "CounterNoise", "Ending", "GridNoise", "sample_seeds", "unit_normals"]
