"""Explicit Runge-Kutta methods, any table of `sciode.solve`, on the ODE in the form that takes away its stiff part.

In y = x / alpha: dy / drho = eps ("rho": DEIS rhoRK); in w = x / sigma: dw / d(e^lambda) = D ("snr"); plainly in time:
dx / dt = flow ("t": flow models).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from sciode.diffusion.path import Node, Path
from sciode.diffusion.plan import Plan
from sciode.diffusion.samplers.base import Sampler
from sciode.solvers import Tableau, methods
from sciode.solvers.methods import stepper_of
from sciode.solvers.steppers import ExplicitRK

__all__ = ["RUNGE_KUTTA", "plan_runge_kutta", "runge_kutta", "tableau_of"]

# fmt: off
KUTTA3 = Tableau(
    name="kutta3", order=3, c=(0, 1 / 2, 1), a=((), (1 / 2,), (-1, 2)), b=(1 / 6, 2 / 3, 1 / 6),
    reference="Kutta (1901), Z. Math. Phys. 46",
)
RALSTON3 = Tableau(
    name="ralston3", order=3, c=(0, 1 / 2, 3 / 4), a=((), (1 / 2,), (0, 3 / 4)), b=(2 / 9, 1 / 3, 4 / 9),
    reference="Ralston (1962), Math. Comp. 16",
)
HOUWEN3 = Tableau(
    name="houwen3", order=3, c=(0, 8 / 15, 2 / 3), a=((), (8 / 15,), (1 / 4, 5 / 12)), b=(1 / 4, 0, 3 / 4),
    reference="van der Houwen (1977), Wray (1990)",
)
SSPRK3 = Tableau(
    name="ssprk3", order=3, c=(0, 1, 1 / 2), a=((), (1,), (1 / 4, 1 / 4)), b=(1 / 6, 1 / 6, 2 / 3),
    reference="Shu, Osher (1988), J. Comput. Phys. 77",
)
# fmt: on

_Map = tuple[str, Callable[[Node], float], Callable[[Node], float], Callable[[Path, float], Node]]
_FORMS: dict[str, _Map] = {
    "rho": ("noise", lambda n: n.rho, lambda n: n.alpha, lambda path, u: path.at_rho(u)),
    "snr": ("data", lambda n: float(np.exp(n.lam)), lambda n: n.sigma, lambda path, u: path.at(float(np.log(u)))),
    "t": ("flow", lambda n: n.t, lambda n: 1.0, lambda path, u: path.at_time(u)),
}
"""By form: the prediction, the variable, what the state is divided by, and the node at a value of the variable."""


def plan_runge_kutta(path: Path, tableau: Tableau, form: str) -> Plan:
    """Every interval of the grid is one step; an evaluation at its end serves the next one where the table says so."""
    kind, variable, scale, at = _FORMS[form]
    plan, x, first = Plan(), 0, None
    for s, t in pairwise(path.nodes):
        u, h = variable(s), variable(t) - variable(s)
        values: list[int] = []
        # Nobody needs the slope at the very end.
        stages = tableau.stages - (tableau.fsal and t is path.nodes[-1])
        for c, row in zip(tableau.c[:stages], tableau.a[:stages], strict=True):
            node = s if c == 0 else t if c == 1 else at(path, u + c * h)
            if not row:
                values.append(plan.call(x, s, kind) if first is None else first)
                continue
            terms = [(k, scale(node) * h * a) for k, a in zip(values, row, strict=True) if a]
            values.append(plan.call(plan.mix((x, scale(node) / scale(s)), *terms), node, kind))
        terms = [(k, scale(t) * h * b) for k, b in zip(values, tableau.b, strict=False) if b]
        x = plan.mix((x, scale(t) / scale(s)), *terms)
        first = values[-1] if tableau.fsal else None
    plan.result = x
    return plan


def tableau_of(method: str | Tableau) -> Tableau:
    """The explicit table of a name. Raises ValueError for methods of another kind."""
    if isinstance(method, Tableau):
        return method
    stepper = stepper_of(method, "ode", "method")
    if not isinstance(stepper, ExplicitRK):
        raise ValueError(f"method: {method!r} is not an explicit Runge-Kutta method")
    return stepper.table


def runge_kutta(
    method: str | Tableau, form: str = "rho", name: str | None = None, source: str | None = None
) -> Sampler:
    """A sampler of any explicit Runge-Kutta table, one step an interval of the grid.

    method: a name of `sciode.methods("ode")` or a `Tableau`; name, source: None = the table's. form: "rho" (dy / drho =
    eps, y = x / alpha, rho = sigma / alpha), "snr" (dw / d(1 / rho) = x_0, w = x / sigma) or "t" (dx / dt = flow).
    Raises ValueError for other forms and for methods that are not explicit.
    """
    if form not in _FORMS:
        raise ValueError(f"form: expected one of {', '.join(_FORMS)}, got {form!r}")
    table = tableau_of(method)
    each = table.stages - table.fsal
    return Sampler(
        name or f"rk-{table.name}", table.order, plan_runge_kutta,
        evaluations=lambda steps: steps * each, options={"tableau": table, "form": form}, in_time=form == "t",
        source=table.reference if source is None else source,
    )  # fmt: skip


def _table() -> list[Sampler]:
    deis = "Zhang, Chen (2023), DEIS rhoRK"
    tables = {"euler": "euler", "heun": "heun", "heun3": "heun3", "rk4": "rk4"}
    own = {table.name: table for table in (KUTTA3, RALSTON3, HOUWEN3, SSPRK3)}
    rows = [runge_kutta(table, "rho", f"deis-rho-rk-{name}", deis) for name, table in (tables | own).items()]
    rows.append(runge_kutta("euler", "t", "flow-euler", "Liu et al. (2023), rectified flow"))
    rows.append(runge_kutta("midpoint", "t", "rf-solver", "Wang et al. (2024), RF-Solver: it is the midpoint rule"))
    explicit = [name for name in methods("ode") if isinstance(stepper_of(name, "ode", "method"), ExplicitRK)]
    rows += [runge_kutta(name) for name in explicit]
    return rows


RUNGE_KUTTA: tuple[Sampler, ...] = tuple(_table())
"""deis-rho-rk-*; flow-euler and rf-solver in time; rk-* in rho, for every explicit table of the backend."""
