"""What a table of classifiers is measured by: MiniRocket on interpolated series, and the most frequent class."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciode.data import IrregularSeries

__all__ = ["filled", "majority", "minirocket"]


def filled(series: IrregularSeries, length: int) -> NDArray[np.float64]:
    """Return [n, C, length]: gaps closed by straight lines, ends held, each series stretched to `length` points.

    A channel without any reading is 0. Stretching is what the authors of the stable SDEs do with unequal lengths.
    """
    out = np.zeros((len(series), series.channels, length))
    for i, (values, clock) in enumerate(zip(series.values, series.times, strict=True)):
        wanted = np.linspace(clock[0], clock[-1], length)
        for channel, column in enumerate(values.T):
            seen = ~np.isnan(column)
            if seen.any():
                out[i, channel] = np.interp(wanted, clock[seen], column[seen])
    return out


def minirocket(
    train: IrregularSeries,
    labels: NDArray[Any],
    test: IrregularSeries,
    length: int,
    seed: int,
    kernels: int = 10_000,
) -> NDArray[Any]:
    """Return aeon's MiniRocket's classes of the test series; ImportError without the extra `lab`."""
    try:
        from aeon.classification.convolution_based import MiniRocketClassifier
    except ImportError as error:
        raise ImportError('aeon is missing: pip install "sciode[lab]"') from error

    classifier = MiniRocketClassifier(n_kernels=kernels, random_state=seed, n_jobs=1)
    with warnings.catch_warnings(), _numpys_stream_kept():
        # Of numba's cache and of ridge regression on few series: neither says anything about the accuracy.
        warnings.simplefilter("ignore")
        classifier.fit(filled(train, length), labels)
        return np.asarray(classifier.predict(filled(test, length)))


@contextmanager
def _numpys_stream_kept() -> Iterator[None]:
    """Restore numpy's global stream afterwards: aeon seeds it."""
    before = np.random.get_state()  # noqa: NPY002 - the stream of others is what we guard
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def majority(labels: NDArray[Any], count: int) -> NDArray[Any]:
    """Return the most frequent label [count] (the first in order, of several)."""
    classes, counts = np.unique(labels, return_counts=True)
    return np.repeat(classes[counts.argmax()], count)
