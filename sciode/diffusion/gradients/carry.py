"""From a start to a sample with the gradient that was asked for, and the name of the one that was used."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciode.diffusion.denoiser import Denoiser
from sciode.diffusion.gradients.backwards import through_inversion
from sciode.diffusion.gradients.continuous import by_the_adjoint
from sciode.diffusion.gradients.segments import by_segments
from sciode.diffusion.gradients.settings import Adjoint, Checkpoint, Gradient
from sciode.diffusion.path import Path
from sciode.diffusion.plan import Plan
from sciode.diffusion.run import Normals, Program
from sciode.diffusion.samplers.base import Sampler
from sciode.solvers.adjoints.choice import free_bytes
from sciode.solvers.adjoints.graph import residual_bytes

__all__ = ["Carried", "carry"]


class Carried(NamedTuple):
    """The sample, its memory, and how it is differentiated (None: it depends on nothing that requires grad)."""

    x: Tensor
    memory: tuple[Tensor, ...]
    gradient: str | None


def carry(
    sampler: Sampler, path: Path, plan: Plan, denoiser: Denoiser, x: Tensor, normals: Normals, gradient: Gradient
) -> Carried:
    """Run the sampler's plan; raises ValueError where reversible or adjoint gradients would lose a tensor's."""
    program = Program(plan, denoiser, x)
    if not torch.is_grad_enabled() or plan.calls == 0:
        return Carried(*program((x,), normals), None)
    if gradient == "direct":
        return _said(program((x,), normals), "direct")
    if gradient == "auto":
        return _fitting(program, x, normals)
    if gradient == "reversible":
        return _said(through_inversion(sampler, path, denoiser, program, x), "reversible")
    if gradient == "adjoint" or isinstance(gradient, Adjoint):
        settings = gradient if isinstance(gradient, Adjoint) else Adjoint()
        return _said(by_the_adjoint(settings, path, denoiser, program, x, normals), "adjoint")
    settings = gradient if isinstance(gradient, Checkpoint) else Checkpoint()
    registers = by_segments(program, {0: x}, normals, 0, settings.segment)
    return _said(program.ends(registers), "checkpoint")


def _said(found: tuple[Tensor, tuple[Tensor, ...]], route: str) -> Carried:
    return Carried(*found, route if found[0].requires_grad else None)


def _fitting(program: Program, x: Tensor, normals: Normals) -> Carried:
    """On one tape if that of all evaluations is likely to fit in a quarter of the free memory, else by segments."""
    lines, second = len(program.plan.lines), program.cuts()[1]
    with residual_bytes() as kept:
        registers: Any = program.advance({0: x}, normals, 0, second)
    if kept.total * program.plan.calls <= free_bytes(x.device) // 4:
        return _said(program.ends(program.advance(registers, normals, second, lines)), "direct")
    if second < lines:
        registers = by_segments(program, registers, normals, second, 1)
    return _said(program.ends(registers), "checkpoint")
