"""Numbers of written equations, fitted to the data through `sciode.solve`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sciode.prose.programs import Programs
from sciode.prose.trees import Expression
from sciode.solvers import solve
from sciode.training import Broyden

__all__ = ["Fit", "Refined", "loosened", "misfit", "refine"]


_ROUNDING = 1e-14
"""Misfits below this are that of the solver."""


@dataclass(frozen=True)
class Fit:
    """iterations: of `sciode.training.Broyden`, half of them without regard to what was written. loose: whether terms
    without a number of their own get one, so that a wrong sign can be mended. steps: of RK4 between frames.

    ahead: frames that each start from the data is followed, few, to keep chaos out of the fit.

    spread: how far true numbers lie from written ones, as a share of their size: the fit is the likeliest one for that
    and for noise of a size that the data tell. Where there is none, the written numbers do not matter; where there is
    much, they stay.

    Raises ValueError for bad numbers.
    """

    iterations: int = 90
    ahead: int = 4
    steps: int = 2
    spread: float = 0.05
    loose: bool = True

    def __post_init__(self) -> None:
        if min(self.iterations, self.ahead, self.steps) < 1 or not self.spread > 0:
            raise ValueError(f"iterations, ahead and steps must be at least 1 and spread positive, got {self}")


class Refined(NamedTuple):
    """equations: with fitted numbers, or as they were where that lowered nothing. before, after: misfits [B]."""

    equations: list[tuple[Expression, ...]]
    before: Tensor
    after: Tensor


def misfit(programs: Programs, times: Tensor, values: Tensor, how: Fit, constants: Tensor | None = None) -> Tensor:
    """Return the mean squared distance of short solutions from the data, relative to the data's spread, [B].

    times: [T], evenly spaced. values: [B, T, D]. Each frame is a start that is followed for `ahead` frames by RK4.
    """
    starts = values[:, : -how.ahead]
    size = (values - values.mean(1, keepdim=True)).square().mean((1, 2)).clamp(min=1e-30)
    gap = float(times[1] - times[0])

    def field(t: Tensor, y: Tensor, numbers: Tensor) -> Tensor:
        return programs(y, numbers)

    ts = torch.linspace(0, how.ahead * gap, how.ahead + 1, dtype=torch.float64, device=values.device)
    numbers = programs.constants if constants is None else constants
    found = solve(field, starts, ts, method="rk4", dt=gap / how.steps, args=numbers, throw=False, engine="eager").ys[1:]
    wanted = torch.stack([values[:, k : len(times) - how.ahead + k] for k in range(1, how.ahead + 1)])
    return (found - wanted).square().mean((0, 2, 3)) / size


def refine(systems: Sequence[tuple[Expression, ...]], times: Tensor, values: Tensor, how: Fit | None = None) -> Refined:
    """Fit the numbers of B systems to their trajectories [B, T, D], each as if alone, all in one batch.

    Numbers are moved in units of their own size. A system that blows up, or that no fit improves, stays as it is.
    Raises ValueError for fewer frames than are followed, or uneven times.
    """
    how = how or Fit()
    gaps = times.diff()
    if len(times) <= how.ahead + 1 or not bool(((gaps - gaps[0]).abs() <= 1e-6 * gaps[0].abs()).all()):
        raise ValueError(
            f"times must be even and more than {how.ahead + 1} for Fit(ahead={how.ahead}), got {len(times)}"
        )
    fitting = [tuple(map(loosened, one)) for one in systems] if how.loose else list(systems)
    programs = Programs(fitting, values.shape[-1], values)
    owners, size = programs.owners, len(systems)
    counts = torch.bincount(owners, minlength=size)
    width = max(int(counts.max()) if len(counts) else 0, 1)
    place = torch.arange(len(owners), device=owners.device) - (counts.cumsum(0) - counts)[owners]
    unit = programs.constants.abs().clamp(min=0.1)

    def numbers(theta: Tensor) -> Tensor:
        return programs.constants + unit * theta[owners, place]

    before = misfit(programs, times, values, how)
    weight = 1 / (values[0].numel() * how.spread**2)

    def level(error: Tensor) -> Tensor:
        return torch.where(error.isfinite(), error, 1.0).clamp(min=_ROUNDING)

    theta, noise, trust = values.new_zeros(size, width), level(before), 0.0
    stage = Broyden(max(how.iterations // 2, 1))
    # At first the data alone, which tell the noise and may turn signs; then the posterior for that noise.
    for _ in range(2):
        objective = _Misfits(
            lambda moved, noise=noise, trust=trust: (
                misfit(programs, times, values, how, numbers(moved)) / noise + trust * moved.square().sum(1)
            )
        )
        memory = stage.begin(theta)
        for k in range(stage.iterations):
            memory = stage.step(memory, objective, k)
        theta = memory["theta"]
        noise, trust = level(misfit(programs, times, values, how, numbers(theta))), weight
    fitted = numbers(theta)
    after = misfit(programs, times, values, how, fitted)
    better = after < before
    equations = []
    for sample, own in enumerate(systems):
        left = iter(fitted[owners == sample].tolist())
        new = tuple(one.with_constants([next(left) for _ in one.constants]) for one in fitting[sample])
        equations.append(new if bool(better[sample]) else own)
    return Refined(equations, before, torch.where(better, after, before))


def loosened(tree: Expression) -> Expression:
    """Return the sum with a number before every term."""
    found: Expression | None = None
    for term in tree.terms():
        head, *rest = term.symbols
        bare = isinstance(head, str) and not (head == "mul" and not isinstance(rest[0], str))
        own = 1.0 * term if bare else term
        found = own if found is None else found + own
    assert found is not None
    return found


class _Misfits:
    """An `Objective`: misfits and their gradients, each sample's its own."""

    def __init__(self, value: Callable[[Tensor], Tensor]) -> None:
        self.value = value

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        leaf = theta.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.value(leaf)
            gradient = torch.autograd.grad(torch.where(loss.isfinite(), loss, 0.0).sum(), leaf)[0]
        return loss.detach(), gradient

    def curvature(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        """Quasi-Newton methods ask for none."""
        raise NotImplementedError
