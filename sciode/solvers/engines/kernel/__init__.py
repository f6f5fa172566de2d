"""The kernel engine: the whole solve of a trajectory on chip, by Triton code written from the method's table, the
field's trace and the controller's constants."""

from .engine import run, source_of, suits, why_not

__all__ = ["run", "source_of", "suits", "why_not"]
