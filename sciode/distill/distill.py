"""`distill`: sample a field, fit a formula, and score it on held-out samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from sciode.distill.formula import Distilled, Sum, written
from sciode.distill.library import evaluate, polynomials
from sciode.distill.sparse import explained, fit_sparse, library_matrix
from sciode.distill.symbolic import search

__all__ = ["distill"]

Backend = Literal["sparse", "pysr"]


def distill(
    field: Callable[[Tensor, Tensor], Tensor],
    samples: Tensor,
    library: Sequence[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    backend: Backend = "sparse",
    held_out: float = 0.3,
    tolerance: float = 1e-3,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Distilled:
    """Return formulas of the field's components: dy_i/dt = sum_k c_ik term_k(y) with as few terms as explain it.

        found = distill(model, states, [*polynomials(["x", "v"], 3), "sin(x)"], names=["x", "v"])
        print(found)                 # [0] 1*v  (R² 1.0000) ...
        solve(found, y0, ts)

    Parameters
    ----------
    field: f(t, y) -> [N, m], any callable, a residual of other width than y too; called once, at t = 0, under no_grad.
    samples: y [N, D], where the formula shall hold: the states the field was trained on. Some hundred, at least
        three times as many as terms.
    library: terms as strings (`polynomials`, `trigonometric`, `products`, or written out: "v*abs(v)"); None =
        polynomials to degree 3. Terms that differ only outside the sampled range cannot be told apart by anyone.
    names: of the D components, Python names; None = y0, y1, ...
    backend: "sparse" (thresholded least squares on the library) or "pysr" (search over expressions, without library).
    held_out: share of the samples that chooses the threshold and gives the score. seed: of this split, and of PySR.
    tolerance: the held-out R² that a shorter formula may lose. 1e-3 suits exact and noisy fields; a learned field
        misses the truth by more than noise, and 1e-2 keeps a formula from following its errors.
    options: for PySRRegressor, on top of `sciode.distill.symbolic.OPTIONS`.

    Raises ValueError for misuse and values that are not finite, ImportError where PySR is missing.
    Source: Brunton, Proctor, Kutz: Discovering governing equations from data by sparse identification (PNAS 2016).
    """
    y = _checked(samples, held_out, backend)
    names = tuple(names) if names is not None else tuple(f"y{k}" for k in range(y.shape[1]))
    if len(set(names)) != y.shape[1] or len(names) != y.shape[1] or not all(name.isidentifier() for name in names):
        raise ValueError(f"names must be {y.shape[1]} different Python names, one a component, got {names}")
    values = _sampled(field, samples)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).to(y.device)
    count = max(2, round(held_out * len(y)))
    split = order[count:], order[:count]
    if backend == "pysr":
        return _by_search(y, values, names, split, seed, options or {})
    if options:
        raise ValueError('options are for backend="pysr"; the sparse backend has tolerance= and library=')
    return _by_terms(y, values, names, split, tuple(library or polynomials(names)), tolerance)


def _by_terms(
    y: Tensor,
    values: Tensor,
    names: tuple[str, ...],
    split: tuple[Tensor, Tensor],
    library: tuple[str, ...],
    tolerance: float,
) -> Distilled:
    if len(set(library)) != len(library):
        raise ValueError("library: a term stands in it twice; make them unique, e.g. by dict.fromkeys(terms)")
    if len(split[0]) < len(library):
        raise ValueError(f"{len(split[0])} samples to fit {len(library)} terms: sample more, or shorten the library")
    matrix = library_matrix([evaluate(term, y, names) for term in library])
    weights, scores = [], []
    for target in values.unbind(-1):
        train, held = ((matrix[rows], target[rows]) for rows in split)
        fit = fit_sparse(train, held, tolerance)
        weights.append({library[k]: weight for k, weight in zip(fit.columns, fit.weights, strict=True)})
        scores.append(fit.score)
    functions = tuple(Sum(terms, names) for terms in weights)
    return Distilled(tuple(map(written, weights)), tuple(weights), tuple(scores), names, functions)


def _by_search(
    y: Tensor,
    values: Tensor,
    names: tuple[str, ...],
    split: tuple[Tensor, Tensor],
    seed: int,
    options: Mapping[str, Any],
) -> Distilled:
    train, held = split
    found = [search(y[train], target[train], names, seed, options) for target in values.unbind(-1)]
    scores = [
        explained(target[held], (target[held] - one.function(y[held])).square())
        for target, one in zip(values.unbind(-1), found, strict=True)
    ]
    texts, functions = tuple(one.expression for one in found), tuple(one.function for one in found)
    return Distilled(texts, tuple({} for _ in found), tuple(scores), names, functions)


def _checked(samples: Tensor, held_out: float, backend: str) -> Tensor:
    """The samples in float64: least squares on a library is worse conditioned than training is."""
    if backend not in ("sparse", "pysr"):
        raise ValueError(f'backend must be "sparse" or "pysr", got {backend!r}')
    if samples.ndim != 2 or len(samples) < 4:
        raise ValueError(f"samples must be states [N, D] with N >= 4, got {tuple(samples.shape)}: flatten(0, -2)")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must lie in (0, 1), got {held_out}")
    if not bool(samples.isfinite().all()):
        raise ValueError("samples must be finite: leave out states after a failed or padded time (Solution.valid)")
    return samples.detach().double()


def _sampled(field: Callable[[Tensor, Tensor], Tensor], samples: Tensor) -> Tensor:
    with torch.no_grad():
        values = field(samples.new_zeros(len(samples), 1), samples)
    if values.ndim != 2 or len(values) != len(samples):
        raise ValueError(f"the field must return [N, m] for samples [N, D], got {tuple(values.shape)}")
    if not bool(values.isfinite().all()):
        raise ValueError("the field is not finite on all samples: leave out those where it is not")
    return values.detach().double()
