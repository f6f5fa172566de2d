"""Runge-Kutta coefficient tables: data in `erk.py`, the class that checks them in `base.py`; for SDEs, `srk.py`.

A method is one constant; whoever needs the list collects it from here, so there is nothing to register. Tables of
implicit methods (`implicit.py`, `multistep.py`) are for solvers of their own: `sciode.solve` has no implicit stepper.
"""

from __future__ import annotations

from sciode.solvers.suggest import unknown
from sciode.solvers.tableaux import erk, implicit, multistep, srk
from sciode.solvers.tableaux.base import Tableau
from sciode.solvers.tableaux.implicit import ImplicitTableau
from sciode.solvers.tableaux.multistep import MultistepTableau
from sciode.solvers.tableaux.srk import AdditiveTableau, ItoTableau, StratonovichTableau

__all__ = [
    "AdditiveTableau",
    "ImplicitTableau",
    "ItoTableau",
    "MultistepTableau",
    "StratonovichTableau",
    "Tableau",
    "explicit",
    "implicit_method",
    "implicit_methods",
    "stochastic",
]


def explicit() -> dict[str, Tableau]:
    """The explicit Runge-Kutta tables of the library by name, in the order of their definition in `erk.py`."""
    return {table.name: table for table in vars(erk).values() if isinstance(table, Tableau)}


def stochastic() -> dict[str, AdditiveTableau | ItoTableau | StratonovichTableau]:
    """The stochastic Runge-Kutta tables by name, in the order of their definition in `srk.py`."""
    kinds = (AdditiveTableau, ItoTableau, StratonovichTableau)
    return {table.name: table for table in vars(srk).values() if isinstance(table, kinds)}


def implicit_methods() -> dict[str, ImplicitTableau | MultistepTableau]:
    """The tables of implicit methods by name: Runge-Kutta as in `implicit.py`, then multistep as in `multistep.py`."""
    tables = [*vars(implicit).values(), *vars(multistep).values()]
    return {table.name: table for table in tables if isinstance(table, ImplicitTableau | MultistepTableau)}


def implicit_method(name: str) -> ImplicitTableau | MultistepTableau:
    """The table of this name, as in `implicit_method("radauiia5")`; ValueError, with a suggestion, if there is none.

    Capitals, hyphens, underscores and spaces in the name don't count.
    """
    known = implicit_methods()
    plain = str(name).lower().replace("_", "").replace("-", "").replace(" ", "")
    if plain not in known:
        raise unknown("method", name, known)
    return known[plain]
