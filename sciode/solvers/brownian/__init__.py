"""Brownian paths as pure functions of a seed."""

from .block import BlockNoise, block_size
from .counter import CounterNoise, Ending, unit_normals
from .grid import GridNoise
from .seeds import sample_seeds
from .tree import BrownianTree, levels_for

__all__ = [
    "BlockNoise",
    "BrownianTree",
    "CounterNoise",
    "Ending",
    "GridNoise",
    "block_size",
    "levels_for",
    "sample_seeds",
    "unit_normals",
]
