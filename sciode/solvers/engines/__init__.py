"""Engines: how the transition is repeated."""

from .choice import ENGINES, CompileNotice, Engine, engine_for, readied
from .compiled import Unsound, feed
from .eager import run, split_clock
from .kept import KeptTurn
from .lift import CannotCompile, Lifted, check_repeatable, operations_of, own_code, quietly
from .machine import in_order, tensors_of, wiring_of
from .march import Stride, restep
from .products import Postponed, postpone
from .turnstile import alone
from .walk import Walk, WayBack
from .witness import key_of, lift_of

__all__ = [
    "ENGINES",
    "CannotCompile",
    "CompileNotice",
    "Engine",
    "KeptTurn",
    "Lifted",
    "Postponed",
    "Stride",
    "Unsound",
    "Walk",
    "WayBack",
    "alone",
    "check_repeatable",
    "engine_for",
    "feed",
    "in_order",
    "key_of",
    "lift_of",
    "operations_of",
    "own_code",
    "postpone",
    "quietly",
    "readied",
    "restep",
    "run",
    "split_clock",
    "tensors_of",
    "wiring_of",
]
