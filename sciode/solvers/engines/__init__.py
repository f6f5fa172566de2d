"""Engines: how the transition is repeated."""

from .choice import ENGINES, CompileNotice, Engine, engine_for
from .compiled import key_of, lift_of
from .eager import run, split_clock
from .lift import CannotCompile, Lifted, check_repeatable
from .repeat import in_one_loop

__all__ = [
    "ENGINES",
    "CannotCompile",
    "CompileNotice",
    "Engine",
    "Lifted",
    "check_repeatable",
    "engine_for",
    "in_one_loop",
    "key_of",
    "lift_of",
    "run",
    "split_clock",
]
