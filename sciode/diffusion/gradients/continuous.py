"""The gradient of the exact flow at constant memory: AdjointDPM's adjoint equation in exponential-integrator form."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sciode.diffusion.denoiser import Denoiser, noise_at
from sciode.diffusion.gradients.known import begin, check_known, conditions, with_conditions
from sciode.diffusion.gradients.settings import Adjoint
from sciode.diffusion.path import Path
from sciode.diffusion.run import Normals, Program
from sciode.solvers import solve
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
    """The sample by the sampler's own steps, its gradient by `Adjoint`; the memory has none."""
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
        state = {
            "y": found / last.alpha, "a": cotangent * last.alpha, "theta": [torch.zeros_like(s) for s in sources],
        }  # fmt: skip
        settings = work.settings
        solution = solve(
            _augmented(denoiser, sources), state, [last.lam, first.lam], method=settings.method, rtol=settings.rtol,
            atol=settings.atol, max_steps=settings.max_steps, batch_dims=0, engine="eager",
        )  # fmt: skip
        return None, solution.ys["a"][-1] / first.alpha, *(g[-1] for g in solution.ys["theta"])


def _augmented(denoiser: Denoiser, sources: list[Tensor]) -> Any:
    """d(y, a, theta) / dlambda."""

    def slope(lam: Tensor, state: Any) -> Any:
        since = clock()
        with torch.enable_grad():
            y = state["y"].detach().requires_grad_()
            eps, _, rho = noise_at(denoiser, y, lam.reshape(1).expand(y.shape[0]))
        check_known([eps], [y, *sources], since, "adjoint")
        inputs = [y, *sources]
        pulled = torch.autograd.grad(eps, inputs, rho * state["a"], allow_unused=True)
        a, *theta = (torch.zeros_like(v) if g is None else g for v, g in zip(inputs, pulled, strict=True))
        return {"y": -rho * eps.detach(), "a": a, "theta": theta}

    return slope
