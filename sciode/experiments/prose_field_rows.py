"""Rows of `sciode train prose_fields` on a few samples a family: equations solved as they are written, and fitted."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import product
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sciode.experiments.prose_rows import chosen
from sciode.prose import FAMILIES, Expression, Pool, Reading, RefinedField, refine_field
from sciode.prose.circle import variables_in
from sciode.prose.fields import ORDERS
from sciode.prose.metrics import Terms, coefficient_error, terms_of
from sciode.prose.objective import predicted, relative_l2
from sciode.prose.pool import Batch
from sciode.prose.samples import Drawing

__all__ = ["Few", "few_of", "few_row", "same_terms", "true_equations", "true_row"]

_ROUNDS = 6
Equations = Sequence[Expression]


class Few(NamedTuple):
    """Places of samples in a pool, what is read of them, and their true equations."""

    rows: Tensor
    batch: Batch
    names: list[str]
    times: Tensor
    true: list[tuple[Expression, ...]]


def few_of(test: Pool, each: int, reading: Reading) -> Few:
    """`each` samples a family; the same noise whatever is asked of them."""
    rows = chosen(test, each)
    batch = test.rows(rows, reading, torch.Generator(test.values.device).manual_seed(8))
    names = [test.names[k] for k in test.system[rows].tolist()]
    return Few(rows, batch, names, test.times.cpu(), true_equations(test, rows))


def true_equations(test: Pool, rows: Tensor) -> list[tuple[Expression, ...]]:
    """Those of some samples, in the family's own units."""
    return [test.vocabulary.decoded([one for one in ids if one]) for ids in test.targets[test.owner[rows]].tolist()]


def same_terms(found: Equations, true: Equations) -> bool:
    """Whether all terms are right, and no others written."""
    try:
        return Terms.between(terms_of(found, 1e-9), terms_of(true)).exact
    except (TypeError, ValueError):  # a number divided by zero has no terms
        return False


def few_row(few: Few, model: nn.Module | None, written: Sequence[Equations] | None, cores: int) -> dict[str, Any]:
    """Errors of the operator (no model: of the last frame) and of the solutions of what it wrote, where it wrote.

    Where an equation has no solution, the operator answers.
    """
    batch = few.batch
    with torch.no_grad():
        own = batch.values[:, -1:].expand_as(batch.answers) if model is None else predicted(model, batch)
    row: dict[str, Any] = {"few": float(relative_l2(own, batch.answers).mean()), "few_samples": len(few.rows)}
    if written is None:
        return row
    found = _solved(few, written, (0, _ROUNDS), cores)
    plain, fits = found[: len(written)], found[len(written) :]
    right = [same_terms(a, b) for a, b in zip(written, few.true, strict=True)]
    pairs = [(a, f.equations, b) for a, f, b, fine in zip(written, fits, few.true, right, strict=True) if f and fine]
    known = [one for one in fits if one]
    return row | {
        "few_written": _error(few, plain, own),
        "few_fitted": _error(few, fits, own),
        "few_reached": sum(one.solved for one in known) / len(fits),
        "few_right": sum(right) / len(right),
        "coefficients": median(coefficient_error(a, b) for a, _, b in pairs) if pairs else None,
        "coefficients_fitted": median(coefficient_error(f, b) for _, f, b in pairs) if pairs else None,
        "data": median(one.before for one in known) if known else None,
        "data_fitted": median(one.after for one in known) if known else None,
        "raised": sum(one.after > one.before for one in known) / len(fits),
    }


def true_row(few: Few, cores: int) -> dict[str, Any]:
    """The error of the true equations, solved from the first frame less waves that noise drowns."""
    found = _solved(few, few.true, (0,), cores)
    return {"few": _error(few, found, few.batch.answers), "few_samples": len(few.rows)}


def _error(few: Few, found: Sequence[RefinedField | None], instead: Tensor) -> float:
    rows = [
        own if one is None else torch.from_numpy(one.values[:, 0]).to(own)
        for one, own in zip(found, instead, strict=True)
    ]
    values = torch.stack(rows)
    fine = values.isfinite().flatten(1).all(1)[:, None, None]
    return float(relative_l2(torch.where(fine, values, instead), few.batch.answers).mean())


def _solved(few: Few, equations: Sequence[Equations], rounds: Sequence[int], cores: int) -> list[RefinedField | None]:
    """All of them with so many rounds, one number after another, on the CPU."""
    readings, tasks = few.batch.values.double().cpu(), []
    for many, (name, own, values) in product(rounds, zip(few.names, equations, readings, strict=True)):
        family, points = FAMILIES[name], values.shape[1]
        x = family.length * torch.arange(points, dtype=torch.float64) / points
        times = few.times * (family.end / Drawing.end)
        tasks.append((tuple(own), x, times[: len(values)], values, times[len(values) :], many))
    return list(map(_fit, tasks) if cores == 1 else _side_by_side(cores).map(_fit, tasks))


@cache
def _side_by_side(cores: int) -> ProcessPoolExecutor:
    """Processes that stay for the next rows; spawned, because a forked one cannot use CUDA."""
    return ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,))


def _fit(task: tuple[Any, ...]) -> RefinedField | None:
    """Nothing for equations that read a field which has none of its own: the grammar knows two, whatever there are."""
    equations, *given, rounds = task
    read = [one for tree in equations for one in variables_in(tree)]
    if max(read, default=0) >= ORDERS * len(equations):
        return None
    return refine_field(equations, *given, rounds=rounds)
