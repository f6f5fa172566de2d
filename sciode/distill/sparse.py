"""Sparse regression: the shortest sum of library terms that explains held-out samples as well as the best one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Fit", "explained", "fit_sparse"]

ROUNDING = 1e-12
"""Share of the target's mean square below which a squared error is rounding."""


BLIND = 1e-12
"""Squared share of a term's length that is rounding: so little of its own, or of what samples cannot see, is none."""


class Fit(NamedTuple):
    """The chosen terms (columns of the library's matrix), their coefficients, and the held-out R²."""

    columns: list[int]
    weights: list[float]
    score: float


class Candidate(NamedTuple):
    """One support, its weights, its squared error over the fitted samples, and that of each held-out sample."""

    columns: list[int]
    weights: Tensor
    loss: float
    errors: Tensor


def fit_sparse(train: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], tolerance: float) -> Fit:
    """Fit target = matrix @ weights with few weights; train and held are (matrix [N, K], target [N]) in float64.

    Sequentially thresholded least squares: fit, drop what is below the threshold, fit again. One term goes at a time,
    and its size is what the fit loses without it (the rise of the residual's square when the others are fitted again),
    not the bare coefficient, which is arbitrary where terms are nearly collinear, as x and x^3 on a small range are.
    A threshold is then a place on one nested path, from all terms to none.

    Going down may lose a true term while several others together still stand in for it (v for sin v and v^3), so a
    second path goes up from none, taking the term that gains most (orthogonal least squares).

    The place is chosen on the held-out samples: the shortest support of both paths whose error is not worse than the
    best one's by more than one standard error of their difference, or by `tolerance` of the target's variance.

    Sources: Brunton, Proctor, Kutz: SINDy (PNAS 2016); Boninsegna, Nüske, Clementi: Sparse learning of stochastic
    dynamical equations (2018) for the dropping one by one; Chen, Billings, Luo: Orthogonal least squares (1989).
    """
    matrix, target = train
    # Columns of unit mean square: the conditioning then is the library's own, not that of its units.
    scale = matrix.square().mean(0).sqrt()
    matrix = matrix / torch.where(scale > 0, scale, 1)
    usable = [k for k in range(matrix.shape[1]) if float(scale[k]) > 0]
    path = [_candidate(columns, matrix, target, scale, held) for columns in _down(matrix, target, usable)]
    path += [_candidate(columns, matrix, target, scale, held) for columns in _up(matrix, target)]
    best = min(path, key=lambda candidate: float(candidate.errors.mean()))
    slack = max(tolerance * float(held[1].var(correction=0)), ROUNDING * float(held[1].square().mean()))
    shortest_first = sorted(path, key=lambda candidate: (len(candidate.columns), candidate.loss))
    chosen = next(candidate for candidate in shortest_first if _as_good(candidate, best, slack))
    return Fit(chosen.columns, chosen.weights.tolist(), explained(held[1], chosen.errors))


def explained(target: Tensor, errors: Tensor) -> float:
    """Return R² = 1 - mean squared error / variance; for a constant target 1 if met to rounding, else 0."""
    error, spread = float(errors.mean()), float(target.var(correction=0))
    rounding = ROUNDING * float(target.square().mean())
    if spread <= rounding:
        return float(error <= rounding)
    return 1 - error / spread


def _as_good(candidate: Candidate, best: Candidate, slack: float) -> bool:
    worse = candidate.errors - best.errors
    standard_error = float(worse.std()) / len(worse) ** 0.5
    return float(worse.mean()) <= max(standard_error, slack)


def _down(matrix: Tensor, target: Tensor, columns: list[int]) -> Iterator[list[int]]:
    """Every support from all columns down to none, without the one that is missed least each time."""
    yield columns
    while columns:
        losses = _least_squares(matrix[:, columns], target)[1]
        smallest = int(losses.argmin())
        columns = [*columns[:smallest], *columns[smallest + 1 :]]
        yield columns


def _up(matrix: Tensor, target: Tensor) -> Iterator[list[int]]:
    """Every support from one column up to all, with the one that gains most each time."""
    columns: list[int] = []
    # What of each column, and of the target, the chosen columns do not span.
    rest, residual = matrix, target
    for _ in range(matrix.shape[1]):
        sizes = rest.square().sum(0)
        new = sizes > BLIND * len(target)
        if not bool(new.any()):
            return
        gains = torch.where(new, (rest.T @ residual).square() / torch.where(new, sizes, 1), -1)
        best = int(gains.argmax())
        unit = rest[:, best] / sizes[best].sqrt()
        residual = residual - unit * (unit @ residual)
        rest = rest - torch.outer(unit, unit @ rest)
        columns = [*columns, best]
        yield sorted(columns)


def _candidate(
    columns: list[int], matrix: Tensor, target: Tensor, scale: Tensor, held: tuple[Tensor, Tensor]
) -> Candidate:
    weights = _least_squares(matrix[:, columns], target)[0]
    loss = float((target - matrix[:, columns] @ weights).square().sum())
    weights = weights / scale[columns]
    return Candidate(columns, weights, loss, (held[1] - held[0][:, columns] @ weights).square())


def _least_squares(matrix: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The weights, and for each the rise of the squared residual without it: w_k² / ((A^T A)^-1)_kk."""
    if not matrix.shape[1]:
        return target.new_zeros(0), target.new_zeros(0)
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    # Directions that the samples do not tell apart get nothing (1, sin², cos² are one too many).
    seen = sizes > sizes[0] * len(target) * torch.finfo(target.dtype).eps
    inverse = torch.where(seen, 1 / torch.where(seen, sizes, 1), 0)
    weights = right.T @ (inverse * (left.T @ target))
    # A term that others can replace altogether has an infinite variance: losing it costs nothing.
    replaceable = right.T[:, ~seen].square().sum(1) > BLIND
    variance = right.T.square() @ inverse.square()
    return weights, torch.where(replaceable, 0, weights.square() / variance)


def library_matrix(values: Sequence[Tensor]) -> Tensor:
    """Return the terms' values [N] as columns, [N, K]."""
    return torch.stack(list(values), -1)
