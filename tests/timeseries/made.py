"""Series of known law that the tests of estimators share."""

from __future__ import annotations

import numpy as np

from sciode.data import IrregularSeries


def sines(count: int, seed: int, noise: float = 0.2) -> IrregularSeries:
    """Sines of period 3 and of any phase on clocks of uneven steps, 25 to 39 readings with Gaussian noise."""
    rng = np.random.default_rng(seed)
    values, times = [], []
    for _ in range(count):
        clock = np.cumsum(rng.uniform(0.1, 0.5, rng.integers(25, 40)))
        signal = np.sin(2 * np.pi * clock / 3 + rng.uniform(0, 2 * np.pi))
        values.append((signal + noise * rng.standard_normal(clock.shape))[:, None])
        times.append(clock)
    return IrregularSeries(values, times)


def ornstein(count: int, seed: int, length: int = 12) -> IrregularSeries:
    """Ornstein-Uhlenbeck processes of unit rate and variance: x(t + s) given x(t) is N(x e^-s, 1 - e^-2s)."""
    rng = np.random.default_rng(seed)
    values, times = [], []
    for _ in range(count):
        gaps = rng.uniform(0.05, 0.6, length)
        value, path = rng.standard_normal(), []
        for gap in gaps:
            value = value * np.exp(-gap) + np.sqrt(1 - np.exp(-2 * gap)) * rng.standard_normal()
            path.append([5.0 + 2.0 * value])
        values.append(np.array(path))
        times.append(np.cumsum(gaps))
    return IrregularSeries(values, times)
