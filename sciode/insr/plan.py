"""How an evolution steps: attempts, what is taken and what is not, and the walk over all steps."""

from __future__ import annotations

import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap
from tqdm.auto import tqdm

from sciode.insr.flat import Flat
from sciode.insr.galerkin import Galerkin, moved
from sciode.insr.kept import Kept
from sciode.insr.optimise import Fit, Optimiser, Work, fitted, stepped
from sciode.insr.schemes import Scheme
from sciode.insr.splitting import Splitting, fitted_flow, split
from sciode.insr.trajectory import Step
from sciode.pde import Box, Evolution, draw
from sciode.training import Minimum

__all__ = ["Limits", "Plan", "Policy", "Stepping", "attempted", "digits", "even", "network_told", "walk"]

Policy = Literal["stop", "go on"]
_UNFIT = "not fitted"


class Limits(NamedTuple):
    """What is taken, how often it is tried, and what happens then; see `evolve`."""

    accept: float
    attempts: int
    failing: Policy


class Stepping(ABC):
    """What a walk asks of whatever is moved through time.

    name: of the problem. limits. fits: the loss below which the initial values are met.
    """

    name: str
    limits: Limits
    fits: float

    @abstractmethod
    def first(self, dt: float) -> Minimum:
        """The weights of the initial values; dt: of the step that follows."""

    @abstractmethod
    def step(self, kept: Kept, times: Sequence[float]) -> tuple[Tensor | None, Step]:
        """The weights after the next step, None if it failed, and how it went."""


def attempted(
    take: Callable[[int], Minimum], well: Callable[[Minimum], bool], limits: Limits, end: float
) -> tuple[Tensor | None, Step]:
    """The step that ends at a time by `take(attempt)`, until one goes well; the best, or None, and how it went."""
    best, spent, attempt = None, 0, 0
    for attempt in range(limits.attempts):
        found = take(attempt)
        spent += found.iterations
        if best is None or found.loss < best.loss or well(found):
            best = found
        if well(best):
            break
    assert best is not None
    taken = well(best) or (limits.failing == "go on" and math.isfinite(best.loss))
    status = "accepted" if well(best) and best.status != "converged" else best.status
    return best.theta if taken else None, Step(end, best.loss, spent, attempt + 1, status)


class Plan(Stepping):
    """How one evolution steps."""

    def __init__(
        self,
        work: Work,
        scheme: Scheme | Splitting,
        mode: str,
        optimiser: Optimiser,
        galerkin: Galerkin,
        fit: Fit,
        limits: Limits,
    ) -> None:
        self.work, self.scheme, self.mode, self.optimiser, self.galerkin = work, scheme, mode, optimiser, galerkin
        self.fit, self.limits, self.name, self.fits = fit, limits, work.problem.name, limits.accept

    def first(self, dt: float) -> Minimum:
        """See `Stepping.first`."""
        if isinstance(self.scheme, Splitting):
            return fitted_flow(self.work, self.scheme, dt, self.fit)
        return fitted(self.work, self.fit)

    def identity(self, times: Sequence[float]) -> dict[str, Any]:
        """What a folder's steps hang on, but for the times; of these a splitting's fit sees the first step."""
        work = self.work
        first = f"{times[1] - times[0]:.9e}"
        table = (self.scheme, first) if isinstance(self.scheme, Splitting) else vars(self.scheme.table)
        return {
            "problem": _told(work.problem),
            **network_told(work.flat, Box(work.problem.lower, work.problem.upper)),
            "how": [repr(x) for x in (self.optimiser, self.galerkin, self.fit, work.points, self.mode, table)],
            "limits": [*self.limits, work.seed],
        }

    def step(self, kept: Kept, times: Sequence[float]) -> tuple[Tensor | None, Step]:
        """See `Stepping.step`."""
        number = len(kept.steps)
        begin, end = times[number - 1], times[number]
        if self.mode == "galerkin":
            return self._moved(kept.thetas[-1], begin, end, number)
        thetas = kept.thetas[::-1]
        return attempted(
            lambda attempt: self._tried(thetas, end - begin, number, attempt),
            lambda found: found.loss <= self.limits.accept,
            self.limits,
            end,
        )

    def _tried(self, thetas: Sequence[Tensor], dt: float, number: int, attempt: int) -> Minimum:
        table = self.scheme
        if isinstance(table, Splitting):
            return split(self.work, table, thetas[0], dt, self.optimiser, number, attempt)
        if table.start is not None and len(thetas) < table.past:
            table = table.start
        return stepped(self.work, table, thetas, dt, self.optimiser, number, attempt)

    def _moved(self, theta: Tensor, begin: float, end: float, number: int) -> tuple[Tensor | None, Step]:
        found = moved(self.work, theta, begin, end - begin, self.galerkin, number)
        finite = bool(torch.isfinite(found.theta).all()) and math.isfinite(found.loss)
        followed = found.loss**2 <= self.limits.accept
        status = found.status if found.status != "converged" or followed else "not followed"
        taken = finite and (status == "converged" or self.limits.failing == "go on")
        return found.theta if taken else None, Step(end, found.loss, found.evaluations, 1, status, found.penalties)


def walk(plan: Stepping, kept: Kept, times: Sequence[float], progress: bool) -> None:
    """Fit the initial values and take the steps that are not kept yet, until one is not taken."""
    with tqdm(total=len(times), desc=plan.name, unit="step", leave=False, disable=not progress) as bar:
        if not kept.steps:
            began = time.perf_counter()
            first = plan.first(times[1] - times[0])
            if not math.isfinite(first.loss):
                raise FloatingPointError("fit: the loss of the initial values is not finite")
            status = first.status if first.loss <= plan.fits else _UNFIT
            step = Step(times[0], first.loss, first.iterations, 1, status)
            kept.add(first.theta, step, time.perf_counter() - began)
        bar.update(len(kept.steps))
        fit_holds = kept.steps[0].status != _UNFIT or plan.limits.failing == "go on"
        while fit_holds and len(kept.steps) < len(times) and kept.going:
            began = time.perf_counter()
            theta, step = plan.step(kept, times)
            kept.add(theta, step, time.perf_counter() - began)
            bar.set_postfix_str(f"t = {step.t:.4g}, loss {step.loss:.1e}")
            bar.update()


def _told(problem: Evolution) -> dict[str, Any]:
    """What a problem is: its numbers, and what its functions say at a few places."""
    x = draw(Box(problem.lower, problem.upper), 16, "sobol", 1, dtype=torch.float64)
    rng = np.random.default_rng(1)
    u, slopes = (
        torch.from_numpy(rng.normal(size=(16, problem.channels, *more))) for more in ((), (problem.dimension,))
    )
    values = {"initial": vmap(problem.initial)(x)}
    if problem.rate is not None:
        values["rate"] = vmap(problem.rate)(u, slopes)
    numbers = {name: getattr(problem, name) for name in ("name", "walls", "channels", "diffusion", "incompressible")}
    box = {"lower": list(problem.lower), "upper": list(problem.upper), "parameters": dict(problem.parameters)}
    return {**numbers, **box, **{name: digits(value) for name, value in values.items()}}


def network_told(flat: Flat, box: Box) -> dict[str, Any]:
    """What a field is at the start: its weights, and what the network makes of them at a few places of a box."""
    x = draw(box, 16, "sobol", 1, flat.theta.device, flat.theta.dtype)
    weights = hashlib.sha256(flat.theta.double().cpu().numpy().tobytes()).hexdigest()
    values = digits(vmap(flat.field(flat.theta))(x), 4)
    return {
        "weights": {name: list(shape) for name, shape in flat.shapes.items()},
        "start": {"dtype": str(flat.theta.dtype), "weights": weights, "values": values},
    }


def digits(values: Tensor, count: int = 9) -> list[str]:
    """As text of so many digits: another machine may round otherwise."""
    return [f"{x:.{count}e}" for x in values.double().reshape(-1).tolist()]


def even(times: Sequence[float]) -> bool:
    """Whether steps are of one length, as a multistep table asks."""
    lengths = [b - a for a, b in pairwise(times)]
    return max(lengths) - min(lengths) <= 1e-5 * max(lengths)
