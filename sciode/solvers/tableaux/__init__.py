"""Runge-Kutta coefficient tables: data in `erk.py`, the class that checks them in `base.py`; for SDEs, `srk.py`.

A method is one constant; whoever needs the list collects it from here, so there is nothing to register.
"""

from __future__ import annotations

from sciode.solvers.tableaux import erk, srk
from sciode.solvers.tableaux.base import Tableau
from sciode.solvers.tableaux.srk import AdditiveTableau, ItoTableau, StratonovichTableau

__all__ = ["AdditiveTableau", "ItoTableau", "StratonovichTableau", "Tableau", "explicit", "stochastic"]


def explicit() -> dict[str, Tableau]:
    """The explicit Runge-Kutta tables of the library by name, in the order of their definition in `erk.py`."""
    return {table.name: table for table in vars(erk).values() if isinstance(table, Tableau)}


def stochastic() -> dict[str, AdditiveTableau | ItoTableau | StratonovichTableau]:
    """The stochastic Runge-Kutta tables by name, in the order of their definition in `srk.py`."""
    kinds = (AdditiveTableau, ItoTableau, StratonovichTableau)
    return {table.name: table for table in vars(srk).values() if isinstance(table, kinds)}
