"""Runge-Kutta coefficient tables: data in `erk.py`, the class that checks them in `base.py`.

A method is one `Tableau` constant; whoever needs the list collects it from here, so there is nothing to register.
"""

from __future__ import annotations

from sciode.solvers.tableaux import erk
from sciode.solvers.tableaux.base import Tableau

__all__ = ["Tableau", "explicit"]


def explicit() -> dict[str, Tableau]:
    """The explicit Runge-Kutta tables of the library by name, in the order of their definition in `erk.py`."""
    return {table.name: table for table in vars(erk).values() if isinstance(table, Tableau)}
