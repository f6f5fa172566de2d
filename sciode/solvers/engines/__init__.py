"""Engines: how the transition is repeated."""

from .choice import ENGINES, CompileNotice, Engine, engine_for, readied
from .compiled import Unsound, feed, number
from .eager import run, split_clock
from .kept import KeptTurn, Walk, lift_take
from .lift import CannotCompile, Lifted, check_repeatable
from .machine import loop_of, tensors_of
from .repeat import Part, Repeat
from .witness import key_of, lift_of

__all__ = [
    "ENGINES",
    "CannotCompile",
    "CompileNotice",
    "Engine",
    "KeptTurn",
    "Lifted",
    "Part",
    "Repeat",
    "Unsound",
    "Walk",
    "check_repeatable",
    "engine_for",
    "feed",
    "key_of",
    "lift_of",
    "lift_take",
    "loop_of",
    "number",
    "readied",
    "run",
    "split_clock",
    "tensors_of",
]
