"""Engines: how the transition is repeated."""

from . import compiled
from .compiled import key_of, lift_of
from .eager import run, split_clock
from .lift import CannotCompile, Lifted, check_repeatable
from .repeat import in_one_loop

__all__ = [
    "CannotCompile",
    "Lifted",
    "check_repeatable",
    "compiled",
    "in_one_loop",
    "key_of",
    "lift_of",
    "run",
    "split_clock",
]
