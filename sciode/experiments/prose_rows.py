"""Rows of `sciode train prose`: how well answers and equations do on a pool of tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sciode.experiments.sparse_equations import by_pysindy, by_sparse_regression
from sciode.prose import Expression, Fit, Grammar, Programs, Transformer, Writing, misfit, refine, write
from sciode.prose.guesses import KNOWN, NOTHING, WRONG, Told
from sciode.prose.memory import Memory
from sciode.prose.metrics import Terms, right_hand_error, solved, start_of, terms_of
from sciode.prose.objective import predicted, relative_l2
from sciode.prose.pool import Batch, Pool, Reading

__all__ = ["EQUATIONS", "TOLD", "chosen", "equation_row", "operator_row"]

TOLD: Mapping[str, Told] = {"known": KNOWN, "wrong": WRONG, "nothing": NOTHING}
"""What is told of equations, by name."""

Systems = list[tuple[Expression, ...]]

EQUATIONS: Mapping[str, Callable[[Tensor, Tensor], tuple[Expression, ...]]] = {
    "sparse regression": by_sparse_regression,
    "SINDy": by_pysindy,
}
"""times [T] and values [T, d] of one trajectory -> equations: ways that learn nothing beforehand."""

_POINTS = 50
_CHUNK = 256


def operator_row(model: nn.Module | None, test: Pool, reading: Reading) -> dict[str, Any]:
    """Relative L2 errors over the frames that are not read; no model: the last frame that is read stays."""
    errors, near = [], []
    for place, rows in enumerate(torch.arange(len(test), device=test.values.device).split(_CHUNK)):
        batch = test.rows(rows, reading, _generator(test, place))
        with torch.no_grad():
            found = batch.values[:, -1:].expand_as(batch.answers) if model is None else predicted(model, batch)
        errors.append(relative_l2(found, batch.answers))
        quarter = found.shape[1] // 4
        near.append(relative_l2(found[:, :quarter], batch.answers[:, :quarter]))
    return {**_errors(torch.cat(errors), test.system, test.names), "near": float(torch.cat(near).mean())}


def _errors(errors: Tensor, system: Tensor, names: Sequence[str]) -> dict[str, Any]:
    own = {name: float(errors[system == k].mean()) for k, name in enumerate(names) if bool((system == k).any())}
    return {
        "l2": float(errors.mean()),
        "standard_error": float(errors.std(correction=0) / len(errors) ** 0.5),
        "median": float(errors.median()),
        "systems": own,
        "samples": len(errors),
    }


def _generator(test: Pool, place: int) -> torch.Generator:
    return torch.Generator(test.values.device).manual_seed(1000 + place)


class _Candidates(NamedTuple):
    """Of each sample its systems [B][beams], before and after the fit, and data errors [B, beams] of both."""

    written: list[Systems]
    fitted: list[Systems]
    before: Tensor
    after: Tensor


def equation_row(
    line: str, model: nn.Module | None, test: Pool, reading: Reading, each: int, beams: int, iterations: int
) -> dict[str, Any]:
    """What is written of `each` samples a system: terms, right-hand sides, data errors, and what solving it gives."""
    rows = chosen(test, each)
    batch = test.rows(rows, reading, _generator(test, 0))
    times = test.times[: reading.frames]
    true = [test.vocabulary.decoded(_told(ids)) for ids in test.targets[test.owner[rows]].tolist()]
    if line in EQUATIONS:
        found = _regressed(EQUATIONS[line], times, batch)
    else:
        assert isinstance(model, Transformer)
        found = _written(model, times, batch, beams, iterations)
    best = found.after.nan_to_num(torch.inf).argmin(1).tolist()
    top = [own[0] for own in found.written]
    picked = [own[place] for own, place in zip(found.fitted, best, strict=True)]
    row = _judged(top, picked, true, test.values[rows].double())
    after = found.after[torch.arange(len(best)), torch.tensor(best)]
    row |= {"misfit": float(found.before[:, 0].median()), "misfit_fitted": float(after.median())}
    row["data_raised"] = float((found.after > found.before).double().mean())
    return row | _solutions(model, picked, test.times[reading.frames - 1 :], batch, test.system[rows], test.names)


def chosen(test: Pool, each: int) -> Tensor:
    """Places of `each` samples a system (all, if there are fewer), spread over its sets of numbers."""
    rows = []
    for k in range(len(test.names)):
        own = (test.system == k).nonzero()[:, 0]
        count = min(each, len(own))
        rows.append(own[torch.arange(count, device=own.device) * len(own) // max(count, 1)])
    return torch.cat(rows)


def _told(ids: Sequence[int]) -> list[int]:
    return [one for one in ids if one != 0]


def _judged(top: Systems, chosen: Systems, true: Systems, whole: Tensor) -> dict[str, Any]:
    points = whole[:, torch.linspace(0, whole.shape[1] - 1, _POINTS).long()]
    before, after = (right_hand_error(one, true, points).cpu() for one in (top, chosen))
    terms = [Terms.between(terms_of(one, 1e-3), terms_of(right)) for one, right in zip(chosen, true, strict=True)]
    return {
        "samples": len(true),
        "valid": float(before.isfinite().double().mean()),
        "exact": sum(one.exact for one in terms) / len(terms),
        "precision": sum(one.found for one in terms) / max(sum(one.written for one in terms), 1),
        "recall": sum(one.found for one in terms) / sum(one.true for one in terms),
        "rhs": float(before.median()),
        "rhs_fitted": float(after.median()),
        "rhs_mean": float(before.clamp(max=10).mean()),
        "rhs_fitted_mean": float(after.clamp(max=10).mean()),
        "rhs_gain": float((before / after.clamp(min=1e-12)).median()),
        "rhs_worse": float((after > before).double().mean()),
    }


def _solutions(
    model: nn.Module | None, chosen: Systems, ahead: Tensor, batch: Batch, system: Tensor, names: Sequence[str]
) -> dict[str, Any]:
    """Errors of the equations' own solutions; where one stops or grows too large, of the model or the last frame.

    instead: of the model's, or the last frame's, on the same samples. middle: of the mean of both.
    """
    values = batch.values.double()
    found = solved(chosen, start_of(chosen, ahead[:2], values), ahead)
    answers = found.values[:, 1:]
    with torch.no_grad():
        other = batch.values[:, -1:].expand_as(batch.answers) if model is None else predicted(model, batch)
    largest = 10 * values.abs().flatten(1).amax(1)
    fine = answers.isfinite().flatten(1).all(1) & (answers.abs().flatten(1).amax(1) < largest)
    answers = torch.where(fine[:, None, None], answers, other.double())
    errors = relative_l2(answers, batch.answers.double())
    quarter = answers.shape[1] // 4
    near = relative_l2(answers[:, :quarter], batch.answers[:, :quarter].double())
    own = _errors(errors, system, names)
    beside = relative_l2(other.double(), batch.answers.double())
    middle = relative_l2((answers + other.double()) / 2, batch.answers.double())
    return {
        **own,
        "near": float(near.mean()),
        "reached": float(fine.double().mean()),
        "instead": float(beside.mean()),
        "middle": float(middle.mean()),
    }


def _written(model: Transformer, times: Tensor, batch: Batch, beams: int, iterations: int) -> _Candidates:
    with torch.no_grad():
        fused = model.read(batch.times, batch.values, batch.symbols, batch.components)
        memory = Memory(model, fused, beams)
        grammar = Grammar(model.vocabulary, batch.values.device)
        found = write(memory.scores, grammar, batch.components, Writing(beams), follow=memory.follow).equations
    flat = [one for own in found for one in own]
    values = batch.values.double().repeat_interleave(beams, 0)
    fitted = refine(flat, times, values, Fit(iterations))
    parts = [fitted.equations[k : k + beams] for k in range(0, len(flat), beams)]
    before, after = (one.view(-1, beams).cpu() for one in (fitted.before, fitted.after))
    return _Candidates(found, parts, before, after)


def _regressed(way: Callable[[Tensor, Tensor], tuple[Expression, ...]], times: Tensor, batch: Batch) -> _Candidates:
    values = batch.values.double()
    found: list[Systems] = [
        [way(times.cpu(), own[:, :count].cpu())] for own, count in zip(values, batch.components.tolist(), strict=True)
    ]
    programs = Programs([own[0] for own in found], values.shape[-1], values)
    error = misfit(programs, times, values, Fit())[:, None].cpu()
    return _Candidates(found, found, error, error)
