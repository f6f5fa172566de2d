"""Which tensors a model's output depends on, found at its first evaluation: no gradient is silently missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sciode.diffusion.denoiser import Denoiser
from sciode.diffusion.run import Normals, Program
from sciode.solvers.adjoints.graph import clock, hang_on_others, leaves_behind

__all__ = ["Begun", "begin", "check_known", "conditions", "with_conditions"]


class Begun(NamedTuple):
    """After the first evaluation: registers, the next line, and the captured leaves."""

    registers: dict[int, Tensor]
    line: int
    leaves: list[Tensor]


def conditions(denoiser: Denoiser) -> list[Tensor]:
    """The tensors in the model's keyword arguments that require grad."""
    return [v for v in pytree.tree_leaves(dict(denoiser.cond)) if isinstance(v, Tensor) and v.requires_grad]


def with_conditions(denoiser: Denoiser, tensors: Iterable[Tensor]) -> Denoiser:
    """The denoiser with these tensors in the place of `conditions(denoiser)`."""
    flat, spec = pytree.tree_flatten(dict(denoiser.cond))
    fresh = iter(tensors)
    filled = [next(fresh) if isinstance(v, Tensor) and v.requires_grad else v for v in flat]
    cond: Mapping[str, Any] = pytree.tree_unflatten(filled, spec)
    return replace(denoiser, cond=cond)


def begin(program: Program, x: Tensor, normals: Normals, route: str) -> Begun:
    """Everything up to the second evaluation, the leaves behind it, and no tape.

    Raises ValueError where the model reads a tensor that requires grad and was computed before.
    """
    line = program.cuts()[1]
    cond = [c.detach().requires_grad_() for c in conditions(program.denoiser)]
    since = clock()
    with torch.enable_grad():
        start = x.detach().requires_grad_()
        watched = program.with_denoiser(with_conditions(program.denoiser, cond))
        registers = watched.advance({0: start}, normals, 0, line)
    leaves, older = leaves_behind(registers.values(), since, [start, *cond])
    if older:
        raise ValueError(
            f"gradient: the model reads a tensor that requires grad and was computed before sampling, which "
            f"{route!r} would lose; pass it through cond=, or use gradient='checkpoint'"
        )
    return Begun({r: v.detach() for r, v in registers.items()}, line, leaves)


def check_known(outputs: Iterable[Tensor], known: Iterable[Tensor], since: int, route: str) -> None:
    """RuntimeError where `outputs` hang on a tensor that the first evaluation did not read."""
    if hang_on_others(outputs, known, since):
        raise RuntimeError(
            f"gradient: the model reads a tensor that requires grad and that its first evaluation did not, so that "
            f"{route!r} cannot give its gradient; pass it through cond=, or use gradient='checkpoint'"
        )
