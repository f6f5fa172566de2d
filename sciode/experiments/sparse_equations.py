"""Equations by sparse regression on derivatives of one trajectory: ours, and pysindy's."""

from __future__ import annotations

import importlib
import itertools
import warnings
from typing import Any

import numpy as np
import torch
from scipy.signal import savgol_filter
from torch import Tensor

from sciode.distill.sparse import fit_sparse
from sciode.prose import Expression, constant
from sciode.prose.search import DEGREE, library

__all__ = ["by_pysindy", "by_sparse_regression", "imported"]

_THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def by_sparse_regression(times: Tensor, values: Tensor) -> tuple[Expression, ...]:
    """By `sciode.distill`'s regression. Slopes and states by Savitzky-Golay, the window that foretells best.

    times: [T], even; values: [T, d]. The last quarter of the frames chooses window and terms.
    """
    terms, gap = library(values.shape[1]), float(times[1] - times[0])
    best: tuple[float, tuple[Expression, ...]] | None = None
    for window in (5, 9, 15):
        smooth, slope = (
            torch.tensor(np.asarray(savgol_filter(values.numpy(), window, 3, deriv=order, delta=gap, axis=0)))
            for order in (0, 1)
        )
        matrix = torch.stack([torch.as_tensor(one.at(smooth.unbind(-1))).expand(len(times)) for one in terms], -1)
        matrix, middle = matrix.double(), slice(window // 2, len(times) - window // 2)
        matrix, slope = matrix[middle], slope[middle]
        cut = 3 * len(matrix) // 4
        fits = [fit_sparse((matrix[:cut], y[:cut]), (matrix[cut:], y[cut:]), 1e-3) for y in slope.unbind(-1)]
        found = tuple(_sum(terms, fit.columns, fit.weights) for fit in fits)
        score = sum(fit.score for fit in fits)
        if best is None or score > best[0]:
            best = score, found
    assert best is not None
    return best[1]


def imported() -> Any:
    """pysindy; ImportError, naming the extra, without it. numpy's stream, which its import moves, is put back."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        return importlib.import_module("pysindy")
    except ImportError as fault:
        raise ImportError('pysindy is not installed: pip install "sciode[prose]"') from fault
    finally:
        np.random.set_state(state)  # noqa: NPY002


def by_pysindy(times: Tensor, values: Tensor) -> tuple[Expression, ...]:
    """By pysindy's STLSQ; threshold and differentiation by the score on the last quarter of the frames.

    Raises ImportError, naming the extra, where pysindy is not installed.
    """
    pysindy = imported()
    t, x = times.numpy(), values.numpy()
    cut = 3 * len(t) // 4
    best: tuple[float, Any] | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for threshold, smooth in itertools.product(_THRESHOLDS, (False, True)):
            differentiate = pysindy.SmoothedFiniteDifference() if smooth else pysindy.FiniteDifference(order=4)
            features = pysindy.PolynomialLibrary(DEGREE) + pysindy.FourierLibrary(1)
            model = pysindy.SINDy(pysindy.STLSQ(threshold=threshold), features, differentiate)
            model.fit(x[:cut], t=t[:cut])
            score = float(model.score(x[cut:], t=t[cut:]))
            if np.isfinite(score) and (best is None or score > best[0]):
                best = score, (threshold, smooth)
        threshold, smooth = best[1] if best else (_THRESHOLDS[0], True)
        differentiate = pysindy.SmoothedFiniteDifference() if smooth else pysindy.FiniteDifference(order=4)
        features = pysindy.PolynomialLibrary(DEGREE) + pysindy.FourierLibrary(1)
        model = pysindy.SINDy(pysindy.STLSQ(threshold=threshold), features, differentiate).fit(x, t=t)
    terms = library(values.shape[1])
    return tuple(_sum(terms, list(range(len(terms))), row) for row in np.asarray(model.coefficients()).tolist())


def _sum(terms: list[Expression], columns: list[int], weights: list[float]) -> Expression:
    found: Expression | None = None
    for column, weight in zip(columns, weights, strict=True):
        if weight and np.isfinite(weight):
            own = constant(weight) if terms[column].symbols == (1.0,) else weight * terms[column]
            found = own if found is None else found + own
    return constant(0.0) if found is None else found
