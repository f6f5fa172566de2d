"""What `solve` was given, looked at before anything is made of it: kinds that were mistaken for one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sciode.pinn.balance import Balance
from sciode.pinn.causal import Causal
from sciode.pinn.decomposition import Decomposition
from sciode.pinn.loss import Weights
from sciode.pinn.networks import Network
from sciode.pinn.problem import Problem
from sciode.pinn.terms import Numbers
from sciode.pinn.training import Redraw

__all__ = ["check_kinds", "several"]

KINDS: Mapping[str, tuple[type, str]] = MappingProxyType(
    {
        "problem": (Problem, "Problem(...)"),
        "decomposition": (Decomposition, "strips(...), grid(...) or Decomposition(domain, pieces)"),
        "network": (Network, "Network(width, hidden)"),
        "numbers": (Numbers, "Numbers(inside, data, interface)"),
        "redraw": (Redraw, "Redraw(every, RAD())"),
        "weights": (Weights, "Weights(own={...})"),
        "balance": (Balance, "NTK(), ReLoBRaLo(), ..."),
        "causal": (Causal, "Causal(epsilon)"),
    }
)
"""What an argument has to be, and how that is written."""


def check_kinds(**given: Any) -> None:
    """Raise ValueError for an argument of another kind; None is of all but that of a problem."""
    for name, value in given.items():
        kind, written = KINDS[name]
        if not isinstance(value, kind) and (value is not None or name == "problem"):
            raise ValueError(f"{name}: {value!r} is no {kind.__name__}: give {written}")


def several(name: str, given: Any, kind: Any) -> list[Any]:
    """Return what was given as a list, one alone as a list of one. ValueError for what is neither."""
    if isinstance(given, kind):
        return [given]
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ValueError(f"{name}: give a list, got {given!r}")
    return list(given)
