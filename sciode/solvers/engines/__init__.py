"""Engines: how the transition is repeated."""

from .eager import run, split_clock

__all__ = ["run", "split_clock"]
