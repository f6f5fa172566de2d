"""How an evolution steps: attempts, what is taken and what is not, and the walk over all steps."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import vmap
from tqdm.auto import tqdm

from sciode.insr.galerkin import Galerkin, moved
from sciode.insr.kept import Kept
from sciode.insr.optimise import Fit, Optimiser, Work, fitted, stepped
from sciode.insr.schemes import Scheme
from sciode.insr.trajectory import Step
from sciode.pde import Evolution

__all__ = ["Plan", "Policy", "walk"]

Policy = Literal["stop", "go on"]


@dataclass(frozen=True)
class Plan:
    """How one evolution steps."""

    work: Work
    scheme: Scheme
    mode: str
    optimiser: Optimiser
    galerkin: Galerkin
    accept: float
    attempts: int
    failing: Policy

    def identity(self, fit: Fit) -> dict[str, Any]:
        """What a folder's steps hang on, but for the times."""
        work, table = self.work, vars(self.scheme.table)
        return {
            "problem": [work.problem.name, *_told(work.problem)],
            "weights": {name: list(shape) for name, shape in work.flat.shapes.items()},
            "start": float(work.flat.theta.double().square().sum()),
            "how": [repr(x) for x in (self.optimiser, self.galerkin, fit, work.points, self.mode, table)],
            "limits": [self.accept, self.attempts, self.failing, work.seed],
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
        return found.theta if taken else None, Step(end, found.loss, found.evaluations, 1, status, found.penalties)


def walk(plan: Plan, kept: Kept, times: Sequence[float], fit: Fit, progress: bool) -> None:
    """Fit the initial values and take the steps that are not kept yet, until one is not taken."""
    problem = plan.work.problem
    with tqdm(total=len(times), desc=problem.name, unit="step", leave=False, disable=not progress) as bar:
        if not kept.steps:
            began = time.perf_counter()
            first = fitted(plan.work, fit)
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


def _told(problem: Evolution) -> list[Any]:
    """What a problem's functions say at a few places: two that say the same there are taken for one problem."""
    low, high = (torch.tensor(x, dtype=torch.float64) for x in (problem.lower, problem.upper))
    places = low + (high - low) * torch.tensor([[0.13], [0.5], [0.81]], dtype=torch.float64)
    values = [vmap(field)(places) for field in (problem.initial, problem.equation(problem.initial))]
    # To ten digits: another machine may round otherwise.
    return [*problem.lower, *problem.upper, *(f"{x:.9e}" for x in torch.cat(values).reshape(-1).tolist())]


def _even(times: Sequence[float]) -> bool:
    """Whether steps are of one length, as a multistep table asks."""
    lengths = [b - a for a, b in pairwise(times)]
    return max(lengths) - min(lengths) <= 1e-9 * max(lengths)
