"""Errors that say what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["choose", "unknown"]


def unknown(argument: str, given: object, allowed: Iterable[str]) -> ValueError:
    """The error for a name that does not exist: lists those that do and guesses which one was meant."""
    names = sorted(allowed)
    close = difflib.get_close_matches(str(given).lower(), names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return ValueError(f"{argument}: unknown {given!r}.{hint} Known: {', '.join(names)}")


def choose(argument: str, given: str, allowed: Iterable[str]) -> str:
    """`given` if it is allowed, else ValueError with a suggestion."""
    names = list(allowed)
    if given not in names:
        raise unknown(argument, given, names)
    return given
