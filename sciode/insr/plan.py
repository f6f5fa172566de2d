"""How an evolution steps: attempts, what is taken and what is not, and the walk over all steps."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

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

__all__ = ["Plan", "Policy", "even", "walk"]

Policy = Literal["stop", "go on"]
_UNFIT = "not fitted"


@dataclass(frozen=True)
class Plan:
    """How one evolution steps."""

    work: Work
    scheme: Scheme | Splitting
    mode: str
    optimiser: Optimiser
    galerkin: Galerkin
    accept: float
    attempts: int
    failing: Policy

    def identity(self, fit: Fit) -> dict[str, Any]:
        """What a folder's steps hang on, but for the times."""
        work = self.work
        table = self.scheme if isinstance(self.scheme, Splitting) else vars(self.scheme.table)
        return {
            "problem": _told(work.problem),
            "weights": {name: list(shape) for name, shape in work.flat.shapes.items()},
            "start": _written(work.flat, work.problem),
            "how": [repr(x) for x in (self.optimiser, self.galerkin, fit, work.points, self.mode, table)],
            "limits": [self.accept, self.attempts, self.failing, work.seed],
        }

    def start(self, fit: Fit, dt: float) -> Minimum:
        """The weights at the initial time, and how well they were fitted."""
        if isinstance(self.scheme, Splitting):
            return fitted_flow(self.work, self.scheme, dt, fit)
        return fitted(self.work, fit)

    def step(self, kept: Kept, times: Sequence[float]) -> tuple[Tensor | None, Step]:
        """The weights after the next step, None if it failed, and how it went."""
        number = len(kept.steps)
        begin, end = times[number - 1], times[number]
        if self.mode == "galerkin":
            return self._moved(kept.thetas[-1], begin, end, number)
        thetas = kept.thetas[::-1]
        best, spent = None, 0
        for attempt in range(self.attempts):
            found = self._tried(thetas, end - begin, number, attempt)
            spent += found.iterations
            if best is None or found.loss < best.loss:
                best = found
            if best.loss <= self.accept:
                break
        assert best is not None
        well = best.loss <= self.accept
        taken = well or (self.failing == "go on" and math.isfinite(best.loss))
        status = "accepted" if well and best.status != "converged" else best.status
        return best.theta if taken else None, Step(end, best.loss, spent, attempt + 1, status)

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
        followed = found.loss**2 <= self.accept
        status = found.status if found.status != "converged" or followed else "not followed"
        taken = finite and (status == "converged" or self.failing == "go on")
        return found.theta if taken else None, Step(end, found.loss, found.evaluations, 1, status, found.penalties)


def walk(plan: Plan, kept: Kept, times: Sequence[float], fit: Fit, progress: bool) -> None:
    """Fit the initial values and take the steps that are not kept yet, until one is not taken."""
    problem = plan.work.problem
    with tqdm(total=len(times), desc=problem.name, unit="step", leave=False, disable=not progress) as bar:
        if not kept.steps:
            began = time.perf_counter()
            first = plan.start(fit, times[1] - times[0])
            if not math.isfinite(first.loss):
                raise FloatingPointError("fit: the loss of the initial values is not finite")
            status = first.status if first.loss <= plan.accept else _UNFIT
            step = Step(times[0], first.loss, first.iterations, 1, status)
            kept.add(first.theta, step, time.perf_counter() - began)
        bar.update(len(kept.steps))
        fit_holds = kept.steps[0].status != _UNFIT or plan.failing == "go on"
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
    return {**numbers, **box, **{name: _digits(value) for name, value in values.items()}}


def _written(flat: Flat, problem: Evolution) -> dict[str, Any]:
    """What a field is at the start: its weights, and what the network makes of them at a few places."""
    x = draw(Box(problem.lower, problem.upper), 16, "sobol", 1, flat.theta.device, flat.theta.dtype)
    weights = hashlib.sha256(flat.theta.double().cpu().numpy().tobytes()).hexdigest()
    return {"dtype": str(flat.theta.dtype), "weights": weights, "values": _digits(vmap(flat.field(flat.theta))(x), 4)}


def _digits(values: Tensor, digits: int = 9) -> list[str]:
    """As text of so many digits: another machine may round otherwise."""
    return [f"{x:.{digits}e}" for x in values.double().reshape(-1).tolist()]


def even(times: Sequence[float]) -> bool:
    """Whether steps are of one length, as a multistep table asks."""
    lengths = [b - a for a, b in pairwise(times)]
    return max(lengths) - min(lengths) <= 1e-5 * max(lengths)
