"""Predicts the score of a recipe from those that were evaluated: the mean of a Gaussian process."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Predictor"]

Array = NDArray[np.float64]

_WIDTHS = (0.5, 1.0, 2.0)
"""Of the kernel, in units of the median distance."""
_NOISES = (1e-3, 1e-2, 1e-1)


class Predictor(NamedTuple):
    """Kernel regression with exp(-|a - b|^2 / 2 width^2); width and noise by leaving one out, in closed form."""

    features: Array
    weights: Array
    mean: float
    width: float
    left_out: float

    @staticmethod
    def fitted(features: Array, values: Array) -> Predictor:
        """To values [n] at features [n, d]; left_out: root mean square error when each is predicted by the others."""
        squares = _squares(features, features)
        typical = float(np.sqrt(np.median(squares[squares > 0]))) if (squares > 0).any() else 1.0
        mean = float(values.mean())
        best: Predictor | None = None
        for width in _WIDTHS:
            kernel = np.exp(-squares / (2 * (width * typical) ** 2))
            for noise in _NOISES:
                inverse = np.linalg.inv(kernel + noise * np.eye(len(values)))
                weights = inverse @ (values - mean)
                error = float(np.sqrt(np.mean((weights / np.diag(inverse)) ** 2)))
                if best is None or error < best.left_out:
                    best = Predictor(features, weights, mean, width * typical, error)
        assert best is not None
        return best

    def __call__(self, features: Array) -> Array:
        """Predicted values [m]."""
        return self.mean + np.exp(-_squares(features, self.features) / (2 * self.width**2)) @ self.weights


def _squares(a: Array, b: Array) -> Array:
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0.0)
