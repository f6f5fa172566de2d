"""The gradient of the exact flow at constant memory: AdjointDPM's adjoint equation in exponential-integrator form."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sciode.diffusion.denoiser import Denoiser, noise_at
from sciode.diffusion.gradients.known import begin, check_known, conditions, with_conditions
from sciode.diffusion.gradients.settings import Adjoint
from sciode.diffusion.path import Path
from sciode.diffusion.run import Normals, Program
from sciode.diffusion.samplers.runge_kutta import tableau_of
from sciode.solvers import Tableau, solve
from sciode.solvers.adjoints.graph import clock

__all__ = ["by_the_adjoint"]


class _Work(NamedTuple):
    settings: Adjoint
    path: Path
    program: Program
    registers: dict[int, Tensor]
    line: int
    normals: Normals
    conditions: int


def by_the_adjoint(
    settings: Adjoint, path: Path, denoiser: Denoiser, program: Program, x: Tensor, normals: Normals
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The sample by the sampler's own steps, its gradient by `Adjoint`; the memory has none.

    Raises ValueError where the log-SNR is infinite at the start.
    """
    if path.nodes[0].alpha == 0:
        raise ValueError("gradient: alpha is 0 at t_start, and log-SNR infinite; use 'checkpoint', or begin below it")
    begun, given = begin(program, x, normals, "adjoint"), conditions(denoiser)
    work = _Work(settings, path, program, begun.registers, begun.line, normals, len(given))
    found, *memory = _Continuous.apply(work, x, *given, *begun.leaves)  # type: ignore[misc]
    return found, tuple(memory)


class _Continuous(torch.autograd.Function):
    """Inputs x, conditions, leaves; outputs the sample and its memory, which has no gradient."""

    @staticmethod
    def forward(ctx: Any, work: _Work, x: Tensor, *sources: Tensor) -> Any:
        lines = len(work.program.plan.lines)
        registers = work.program.advance(work.registers, work.normals, work.line, lines)
        found, memory = work.program.ends(registers)
        ctx.work = work._replace(registers={})
        ctx.save_for_backward(found, *sources)
        memory = tuple(m.view_as(m) for m in memory)
        ctx.mark_non_differentiable(*memory)
        return found.view_as(found), *memory

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor, *_: Any) -> Any:
        found, *sources = ctx.saved_tensors
        work: _Work = ctx.work
        fresh = [s.detach().requires_grad_() for s in sources[: work.conditions]]
        sources = [*fresh, *sources[work.conditions :]]
        denoiser = with_conditions(work.program.denoiser, fresh)
        first, last = work.path.nodes[0], work.path.nodes[-1]
        start = _Pair(found / last.alpha, cotangent * last.alpha)
        settings, within = work.settings, denoiser.tolerance
        solution = solve(
            _slopes(denoiser, sources), start._asdict(), [last.lam, first.lam], method=settings.method,
            rtol=within(settings.rtol), atol=within(settings.atol), max_steps=settings.max_steps,
            batch_dims=1, engine="eager", save="steps" if sources else "ts",
        )  # fmt: skip
        if not sources:
            return None, solution.ys["a"][-1] / first.alpha
        # A batch of one has times [T].
        times = solution.ts.reshape(len(solution.ts), -1).expand(-1, found.shape[0])
        table = tableau_of(settings.method)
        del solution
        end, totals = _replayed(table, denoiser, start, times, sources)
        return None, end.a / first.alpha, *totals


class _Pair(NamedTuple):
    """y = x / alpha and a = dL / dy [B, ...] at one time of each sample's own."""

    y: Tensor
    a: Tensor


def _pulled(
    denoiser: Denoiser, pair: _Pair, lam: Tensor, sources: list[Tensor], weight: Tensor | None
) -> tuple[_Pair, list[Tensor | None]]:
    """The slopes of a pair at lambda [B], and w rho a^T d eps / dtheta for weights w that broadcast against y."""
    since = clock()
    with torch.enable_grad():
        y = pair.y.detach().requires_grad_()
        eps, _, rho = noise_at(denoiser, y, lam)
    check_known([eps], [y, *sources], since, "adjoint")
    pull = rho * pair.a if weight is None else weight * rho * pair.a
    inputs = [y] if weight is None else [y, *sources]
    a, *pulled = torch.autograd.grad(eps, inputs, pull, allow_unused=True)
    a = torch.zeros_like(y) if a is None else a
    theta: list[Tensor | None] = list(pulled)
    if weight is not None:
        # One pull serves both: a's is the same, times the weight; a sample that has arrived has none.
        a = torch.where(weight == 0, 0.0, a / torch.where(weight == 0, 1.0, weight))
    return _Pair(-rho * eps.detach(), a), theta


def _slopes(denoiser: Denoiser, sources: list[Tensor]) -> Any:
    """d(y, a) / dlambda, as `solve` takes it."""

    def slope(lam: Tensor, state: Any) -> Any:
        return _pulled(denoiser, _Pair(**state), lam.reshape(-1), sources, None)[0]._asdict()

    return slope


def _replayed(
    table: Tableau, denoiser: Denoiser, pair: _Pair, times: Tensor, sources: list[Tensor]
) -> tuple[_Pair, list[Tensor]]:
    """The steps at times [T, B] once more, and the integral of rho a^T d eps / dtheta by the table's own weights.

    While steps are still being chosen, a sum over samples that each have their own would belong to no time.
    """
    totals = [torch.zeros_like(s) for s in sources]
    for now, then in pairwise(times):
        h = (then - now).to(pair.y).reshape(-1, *[1] * (pair.y.ndim - 1))
        known: list[_Pair] = []
        for c, row, b in zip(table.c, table.a, table.b, strict=True):
            if b == 0 and len(known) == table.stages - 1:
                break
            at = _moved(pair, h, row, known)
            slopes, theta = _pulled(denoiser, at, now + c * (then - now), sources, h * b if b else None)
            known.append(slopes)
            totals = [t if g is None else t + g for t, g in zip(totals, theta or [None] * len(totals), strict=True)]
        pair = _moved(pair, h, table.b, known)
    return pair, totals


def _moved(pair: _Pair, h: Tensor, weights: Sequence[float], slopes: Sequence[_Pair]) -> _Pair:
    """A pair and h times the weighted sum of slopes."""
    used = [(w, s) for w, s in zip(weights, slopes, strict=False) if w]
    parts = zip(pair, *(s for _, s in used), strict=True)
    return _Pair(*(x + h * sum(w * k for (w, _), k in zip(used, ks, strict=True)) for x, *ks in parts))
