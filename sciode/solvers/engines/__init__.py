"""Engines: how the transition is repeated."""

from .choice import ENGINES, CompileNotice, Engine, engine_for
from .compiled import feed, key_of, lift_of, loop_of
from .eager import run, split_clock
from .kept import KeptTurn, Walk, lift_take
from .lift import CannotCompile, Lifted, check_repeatable

__all__ = [
    "ENGINES",
    "CannotCompile",
    "CompileNotice",
    "Engine",
    "KeptTurn",
    "Lifted",
    "Walk",
    "check_repeatable",
    "engine_for",
    "feed",
    "key_of",
    "lift_of",
    "lift_take",
    "loop_of",
    "run",
    "split_clock",
]
