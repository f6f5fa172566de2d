"""The answer in float64 that every library's error is measured against, and when an error lets a ratio count."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from sciode.bench.contestants import Answer, read_torch, torch_call
from sciode.bench.problems import Problem

__all__ = ["ERROR_LIMIT", "Errors", "as_exact", "errors", "reference"]

Errors = dict[str, float | None]
ERROR_LIMIT = 1.5
"""How many times the peer's error ours may be before a ratio stops counting."""
_SAMPLES = 2048
"""Samples at a time: the tape of a solve at 1e-12 holds hundreds of evaluations."""


def reference(problem: Problem, mode: str) -> Answer:
    """The same problem in float64 by torchdiffeq's dopri8 at 1e-12, far below every error that is compared with it.

    Only what `errors` compares: the outputs up to `problem.checked_until`, and forward the first 2048 samples.
    """
    import torchdiffeq

    def double(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.to(torch.float64)

    weights = tuple(weight.to(torch.float64) for weight in problem.weights)
    field = type(problem.field)(weights) if isinstance(problem.field, nn.Module) else problem.field
    ts = problem.ts[: _outputs(problem)].to(torch.float64)
    exact = replace(problem, y0=double(problem.y0), ts=ts, args=double(problem.args), field=field)
    integrate = partial(torchdiffeq.odeint, method="dopri8", rtol=1e-12, atol=1e-12)
    answers = []
    for start in range(0, len(problem.y0) if mode != "forward" else 1, _SAMPLES):
        rows = slice(start, start + _SAMPLES)
        part = replace(exact, y0=exact.y0[rows], args=None if exact.args is None else exact.args[rows])
        clock = part.ts.to(part.y0.device)
        found = torch_call(part, mode, lambda y0, part=part, clock=clock: integrate(part.bound, y0, clock))()
        answers.append(read_torch(found, lambda ys: ys, lambda ys: None))
    return _joined(answers)


def _joined(answers: list[Answer]) -> Answer:
    """Answers of parts of a batch as one: the gradients of shared weights are sums."""
    ys = np.concatenate([answer.ys for answer in answers], 1)
    if not answers[0].gradients:
        return Answer(ys, (), None)
    to_y0 = np.concatenate([answer.gradients[0] for answer in answers])
    to_weights = [np.sum(parts, 0) for parts in zip(*(answer.gradients[1:] for answer in answers), strict=True)]
    return Answer(ys, (to_y0, *to_weights), None)


def _outputs(problem: Problem) -> int:
    if problem.checked_until is None:
        return len(problem.ts)
    return int((problem.ts <= problem.checked_until).sum())


def errors(answer: Answer, exact: Answer) -> Errors:
    """Root mean square and largest entry of ys - exact, over what the exact answer has, and the gradients' error.

    The last is |g - exact| / |exact| over all gradients together, None in forward mode.
    """
    outputs, samples = exact.ys.shape[:2]
    difference = np.abs(answer.ys[:outputs, :samples] - exact.ys)
    gradient = None
    if exact.gradients:
        flat, true = (np.concatenate([g.ravel() for g in found.gradients]) for found in (answer, exact))
        gradient = float(np.linalg.norm(flat - true) / np.linalg.norm(true))
    return {
        "error": float(np.sqrt(np.mean(difference**2))),
        "error_max": float(difference.max()),
        "gradient_error": gradient,
    }


def as_exact(ours: float | None, theirs: float | None) -> bool:
    """Whether our error is small enough for a ratio to count; so it is where there is nothing to compare."""
    return ours is None or theirs is None or ours <= ERROR_LIMIT * theirs
