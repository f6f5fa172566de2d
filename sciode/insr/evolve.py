"""`evolve`: a time-dependent PDE solved by a network of space alone, whose weights are moved through time."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from sciode.insr.flat import Flat
from sciode.insr.galerkin import Galerkin, moved
from sciode.insr.kept import Kept
from sciode.insr.optimise import Fit, Optimiser, Work, fitted, stepped
from sciode.insr.points import Points, check_periodic
from sciode.insr.schemes import Scheme, last, scheme_of
from sciode.insr.trajectory import Step, Trajectory
from sciode.pde import Evolution
from sciode.solvers.suggest import choose
from sciode.solvers.tableaux import ImplicitTableau, MultistepTableau
from sciode.training import LevenbergMarquardt

__all__ = ["evolve"]

Policy = Literal["stop", "go on"]


def evolve(
    problem: Evolution,
    field: nn.Module,
    ts: Sequence[float] | Tensor,
    *,
    dt: float,
    mode: Literal["optimise", "galerkin"] = "optimise",
    scheme: str | ImplicitTableau | MultistepTableau = "cranknicolson",
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
    problem: an `Evolution`, as from `sciode.pde.PROBLEMS["advection"]()`; not an incompressible one.
    field: a network x [..., d] -> [..., told c], in float64 for errors below 1e-4. It is copied, not changed. With
        mode="optimise" it tells `scheme_of(scheme).told` fields, u last: one, but for tables of several stages.
    ts: times, increasing; ts[0] is that of the initial values. Steps of dt lead from one to the next, cut to fit.
    scheme: a name in `sciode.solvers.tableaux.implicit_methods()`, or a table.
    optimiser: `LevenbergMarquardt` (default: 20 iterations, tolerance 1e-12), or `Descent`; `sciode.training.INSR` is
        the paper's recipe.
    accept: the loss below which a step is taken; one above it is tried again, with other points, `attempts` times in
        all. In Galerkin mode a loss is the share of F(u) that was not followed, and accept is compared with its square.
    failing: "stop" ends the trajectory before such a step, "go on" takes the best attempt. A loss that is not finite
        always stops.
    folder: where every step is kept; the same call goes on from there, to the same numbers.

    Returns a `Trajectory`: u at any (x, t), the steps' losses and statuses. Good values: Siren with omega = 10, a
    `PeriodicEmbedding` where the problem is periodic, float64, one thread for small networks.

    Raises ValueError for a field that does not fit the problem or the scheme, or numbers that make no sense;
    FloatingPointError if the initial values cannot be fitted at all.
    """
    choose("mode", mode, ("optimise", "galerkin"))
    choose("failing", failing, ("stop", "go on"))
    table = scheme_of(scheme)
    told = table.told if mode == "optimise" else 1
    flat = Flat(copy.deepcopy(field))
    times = _times(ts, dt)
    _check(problem, flat, told, accept, attempts)
    work = Work(problem, flat, told, points or Points(), seed)
    plan = _Plan(
        work, table, mode, optimiser or LevenbergMarquardt(), galerkin or Galerkin(), accept, attempts, failing
    )
    kept = Kept.opened(folder, plan.identity(times, fit or Fit()), flat.theta)
    with tqdm(total=len(times), desc=problem.name, unit="step", leave=False, disable=not progress) as bar:
        if not kept.steps:
            began = time.perf_counter()
            first = fitted(work, fit or Fit())
            if first.status == "non-finite":
                raise FloatingPointError("fit: the loss of the initial values is not finite: lower the descent's lr")
            step = Step(times[0], first.loss, first.iterations, 1, first.status)
            kept.add(first.theta, step, time.perf_counter() - began)
        bar.update(len(kept.steps))
        while len(kept.steps) < len(times) and kept.going:
            began = time.perf_counter()
            theta, step = plan.step(kept, times)
            kept.add(theta, step, time.perf_counter() - began)
            bar.set_postfix_str(f"t = {step.t:.4g}, loss {step.loss:.1e}")
            bar.update()
    done = len(kept.thetas)
    return Trajectory(
        problem, flat.network, told, tuple(times[:done]), torch.stack(kept.thetas), tuple(kept.steps),
        tuple(kept.seconds), done == len(times),
    )  # fmt: skip


@dataclass(frozen=True)
class _Plan:
    """How one evolution steps."""

    work: Work
    scheme: Scheme
    mode: str
    optimiser: Optimiser
    galerkin: Galerkin
    accept: float
    attempts: int
    failing: Policy

    def identity(self, times: Sequence[float], fit: Fit) -> dict[str, Any]:
        """What a folder's steps hang on."""
        work = self.work
        return {
            "problem": work.problem.name,
            "parameters": {name: float(value) for name, value in work.problem.parameters.items()},
            "weights": {name: list(shape) for name, shape in work.flat.shapes.items()},
            "start": float(work.flat.theta.double().square().sum()),
            "how": [repr(x) for x in (self.optimiser, self.galerkin, fit, work.points, self.mode, self.scheme)],
            "limits": [self.accept, self.attempts, self.failing, work.seed],
            "times": list(times),
        }

    def step(self, kept: Kept, times: Sequence[float]) -> tuple[Tensor | None, Step]:
        """The weights after the next step, None if it failed, and how it went."""
        number = len(kept.steps)
        begin, end = times[number - 1], times[number]
        if self.mode == "galerkin":
            return self._moved(kept.thetas[-1], begin, end, number)
        thetas = kept.thetas[::-1]
        table = self.scheme
        if len(thetas) < table.past or not _even(times[number - table.past : number + 1]):
            if table.start is None and len(thetas) < table.past:
                raise ValueError("scheme: it reads earlier fields that are not there, and has no scheme to start with")
            table = table.start or table
        best, spent = None, 0
        for attempt in range(self.attempts):
            found = stepped(self.work, table, thetas, end - begin, self.optimiser, number, attempt)
            spent += found.iterations
            if best is None or found.loss < best.loss:
                best = found
            if best.loss <= self.accept:
                break
        assert best is not None
        taken = best.loss <= self.accept or (self.failing == "go on" and math.isfinite(best.loss))
        status = best.status if best.status == "converged" else "accepted" if best.loss <= self.accept else best.status
        return best.theta if taken else None, Step(end, best.loss, spent, attempt + 1, status)

    def _moved(self, theta: Tensor, begin: float, end: float, number: int) -> tuple[Tensor | None, Step]:
        found = moved(self.work, theta, begin, end - begin, self.galerkin, number)
        finite = bool(torch.isfinite(found.theta).all()) and math.isfinite(found.loss)
        followed = found.loss**2 <= self.accept
        status = found.status if found.status != "converged" or followed else "not followed"
        taken = finite and (status == "converged" or self.failing == "go on")
        return found.theta if taken else None, Step(end, found.loss, found.evaluations, 1, status)


def _times(ts: Sequence[float] | Tensor, dt: float) -> list[float]:
    """The ends of all steps, the times asked for among them."""
    asked = torch.as_tensor(ts, dtype=torch.float64).tolist()
    if not isinstance(asked, list) or len(asked) < 2 or not all(a < b for a, b in pairwise(asked)):
        raise ValueError("ts: give two times at least, increasing")
    if not 0 < dt < math.inf:
        raise ValueError(f"dt must be positive, got {dt}")
    times = [asked[0]]
    for begin, end in pairwise(asked):
        count = max(math.ceil((end - begin) / dt - 1e-9), 1)
        times += [begin + (end - begin) * k / count for k in range(1, count)] + [end]
    return times


def _even(times: Sequence[float]) -> bool:
    """Whether steps are of one length, as a multistep table asks."""
    lengths = [b - a for a, b in pairwise(times)]
    return max(lengths) - min(lengths) <= 1e-9 * max(lengths)


def _check(problem: Evolution, flat: Flat, told: int, accept: float, attempts: int) -> None:
    """Raise ValueError unless the field tells what is asked of it."""
    if problem.incompressible:
        raise ValueError(f"problem: {problem.name} is incompressible, which takes a splitting, not one residual")
    if not accept > 0 or attempts < 1:
        raise ValueError(f"accept must be positive and attempts at least 1, got {accept} and {attempts}")
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
    check_periodic(problem, last(flat.field(flat.theta), problem.channels), flat.theta)
