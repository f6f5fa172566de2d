"""`evolve`: a time-dependent PDE solved by a network of space alone, whose weights are moved through time."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from sciode.insr.flat import Flat
from sciode.insr.galerkin import Galerkin
from sciode.insr.incompressible import check_closed, check_incompressible, is_solenoidal, vorticities
from sciode.insr.kept import Kept
from sciode.insr.optimise import Fit, Optimiser, Work
from sciode.insr.plan import Limits, Plan, Policy, even, walk
from sciode.insr.points import Points, check_periodic
from sciode.insr.schemes import Scheme, last, scheme_of
from sciode.insr.splitting import Splitting, WithPressure, check_splitting
from sciode.insr.trajectory import Trajectory
from sciode.pde import Evolution
from sciode.solvers.suggest import choose
from sciode.solvers.tableaux import ImplicitTableau, MultistepTableau
from sciode.training import LevenbergMarquardt

__all__ = ["evolve"]


def evolve(
    problem: Evolution,
    field: nn.Module,
    ts: Sequence[float] | Tensor,
    *,
    dt: float,
    mode: Literal["optimise", "galerkin"] = "optimise",
    scheme: str | ImplicitTableau | MultistepTableau | Splitting | None = None,
    optimiser: Optimiser | None = None,
    galerkin: Galerkin | None = None,
    fit: Fit | None = None,
    points: Points | None = None,
    seed: int = 0,
    accept: float = 1e-6,
    attempts: int = 3,
    failing: Policy = "stop",
    folder: str | Path | None = None,
    progress: bool = False,
) -> Trajectory:
    """Solve u_t = F(u) by a network u(x; theta): theta is fitted to u(x, 0), then moved from time to time.

    mode="optimise": theta^{n+1} minimises mean |residual of the time scheme|^2 + weight mean |walls|^2 over points that
    are drawn afresh at every iteration (Chen, Wu, Grinspun, Zheng & Chen, ICML 2023). mode="galerkin": theta' = argmin
    mean |J theta' - F(u)|^2 is an ODE, solved by `sciode.solve`.

    Parameters
    ----------
    problem: an `Evolution`, as from `sciode.pde.PROBLEMS["advection"]()`. An incompressible one takes either a field
        without divergence (`sciode.nn.Solenoidal`): then no pressure is needed, both modes look at the curl of what
        they look at otherwise, losses are those of curls, and the mean over a periodic box stays what the field makes
        of it; or, with mode="optimise", a network of the velocity and scheme=`Splitting`(a network of the pressure).
    field: a network x [..., d] -> [..., told c], in float64 for errors below 1e-4. It is copied, not changed. With
        mode="optimise" it tells `scheme_of(scheme).told` fields, u last: one, but for tables of several stages.
    ts: times, increasing; ts[0] is that of the initial values. Steps of dt lead from one to the next, cut to fit.
    scheme: of mode="optimise": a name in `sciode.solvers.tableaux.implicit_methods()`, or a table, or a `Splitting`;
        None = "cranknicolson".
    optimiser: `LevenbergMarquardt` (default: 20 iterations, tolerance 1e-12), or `Descent`; `sciode.training.INSR` is
        the paper's recipe.
    accept: the loss below which the fit or a step is taken; a step above it is tried again, on other points,
        `attempts` times in all. In Galerkin mode a step's is the square of the share of F(u) that was not followed.
    failing: "stop" ends the trajectory before such a step, "go on" takes the best attempt; NaN always stops.
    folder: where every step is kept; the same call, or one with further ts, goes on from there to the same numbers.

    Good values: Siren with omega = 10, a `PeriodicEmbedding` where that is true, float64, one thread. Raises ValueError
    for a field that does not fit, or numbers that make no sense; FloatingPointError if the fit's loss is not finite.
    """
    choose("mode", mode, ("optimise", "galerkin"))
    choose("failing", failing, ("stop", "go on"))
    table = scheme if isinstance(scheme, Splitting) else scheme_of("cranknicolson" if scheme is None else scheme)
    told = table.told if mode == "optimise" and isinstance(table, Scheme) else 1
    flat, times = Flat(copy.deepcopy(field)), _times(ts, dt)
    how = optimiser or LevenbergMarquardt(tolerance=min(1e-12, accept)), galerkin or Galerkin()
    _check(problem, flat, told)
    _check_mode(mode, None if scheme is None else table, times, optimiser, galerkin)
    _check_limits(accept, attempts, how[0])
    work = _work(Work(problem, flat, told, points or Points(), seed), table)
    plan = Plan(work, table, mode, *how, fit or Fit(), Limits(accept, attempts, failing))
    kept = Kept.opened(folder, plan.identity(times), times, work.flat.theta)
    walk(plan, kept, times, progress)
    return kept.trajectory(problem, work.flat.network, told, times)


def _work(work: Work, table: Scheme | Splitting) -> Work:
    """Of an incompressible problem: beside a pressure, or looked at by its curl."""
    problem, like = work.problem, work.flat.theta
    field = last(work.flat.field(work.flat.elsewhere()), problem.channels)
    if isinstance(table, Splitting):
        solenoidal = problem.incompressible and is_solenoidal(problem, field, like)
        check_splitting(problem, table, work.points, like, solenoidal)
        check_closed(problem, field, work.points, like)
        return work._replace(flat=Flat(WithPressure(copy.deepcopy(table.pressure), work.flat.network, solenoidal)))
    if problem.incompressible:
        check_incompressible(problem, field, like)
        check_closed(problem, field, work.points, like)
        return work._replace(view=vorticities)
    return work


def _times(ts: Sequence[float] | Tensor, dt: float) -> list[float]:
    """The ends of all steps, the times asked for among them."""
    asked = torch.as_tensor(ts, dtype=torch.float64).tolist()
    if not isinstance(asked, list) or len(asked) < 2 or not all(a < b for a, b in pairwise(asked)):
        raise ValueError("ts: give two times at least, increasing")
    if not all(map(math.isfinite, asked)):
        raise ValueError(f"ts must be finite, got {asked[0]} to {asked[-1]}")
    if not 0 < dt < math.inf:
        raise ValueError(f"dt must be positive, got {dt}")
    times = [asked[0]]
    for begin, end in pairwise(asked):
        # Times may come in float32, and three of its steps of 0.1 are not four.
        count = max(math.ceil((end - begin) / dt * (1.0 - 1e-5)), 1)
        times += [begin + (end - begin) * k / count for k in range(1, count)] + [end]
    return times


def _check_limits(accept: float, attempts: int, optimiser: Optimiser) -> None:
    """Raise ValueError for limits that contradict one another."""
    if not accept > 0 or attempts < 1:
        raise ValueError(f"accept must be positive and attempts at least 1, got {accept} and {attempts}")
    if optimiser.tolerance > accept:
        raise ValueError(f"accept is {accept:g}, below the optimiser's tolerance {optimiser.tolerance:g}: lower that")


def _check_mode(
    mode: str,
    table: Scheme | Splitting | None,
    times: Sequence[float],
    optimiser: Optimiser | None,
    galerkin: Galerkin | None,
) -> None:
    """Raise ValueError for what belongs to the other mode, or steps that a multistep table cannot take; None: no table
    was given."""
    if (optimiser if mode == "galerkin" else galerkin) is not None:
        other = "optimiser: it belongs to mode='optimise'" if mode == "galerkin" else "galerkin: give mode='galerkin'"
        raise ValueError(f"{other}; this is mode={mode!r}")
    if isinstance(table, Splitting):
        if mode == "galerkin":
            raise ValueError("scheme: a splitting optimises; in mode='galerkin' give a field without divergence")
        return
    if table is not None and mode == "galerkin":
        raise ValueError("scheme: it belongs to mode='optimise'; in mode='galerkin' give galerkin=Galerkin(method)")
    if table is not None and table.past > 1 and not even(times):
        raise ValueError(f"scheme: {table.table.name} takes steps of one length: give ts that dt divides")


def _check(problem: Evolution, flat: Flat, told: int) -> None:
    """Raise ValueError unless the field tells what is asked of it."""
    low, high = flat.theta.new_tensor(problem.lower), flat.theta.new_tensor(problem.upper)
    try:
        shape = tuple(flat.field(flat.theta)((low + high) / 2).shape)
    except RuntimeError as error:
        raise ValueError(f"field: it cannot be called with a point [{problem.dimension}]: {error}") from error
    if shape != (told * problem.channels,):
        raise ValueError(
            f"field: it gives {list(shape)} at a point; {problem.name} has {problem.channels} channels and the scheme "
            f"asks for {told} fields of them: make its outputs {told * problem.channels}"
        )
    check_periodic(problem, last(flat.field(flat.elsewhere()), problem.channels), flat.theta)
