"""Which series train, which choose the model, which judge it: stratified by class, or in order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import checked_labels


@dataclass(frozen=True)
class Split:
    """Three disjoint arrays of positions (in random order, if the split is random) that together are 0 .. n - 1."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def stratified(labels: ArrayLike, seed: int, fractions: tuple[float, float, float] = (0.70, 0.15, 0.15)) -> Split:
    """Split n cases into train, validation and test with every class in proportion.

    A class of m >= 4 cases gives each part its share of m to within one case; a class of three gives one to each; a
    class of one or two goes to training whole, so no part ever holds a class that training has not seen. The default
    is the 70/15/15 split of the pooled archive sets in Oh, Lim and Kim (ICLR 2024).

    Args:
        labels: [n] class labels of any kind numpy can compare.
        seed: a non-negative int; another seed gives another split.
        fractions: shares of train, validation and test: none negative, train positive, sum 1. A part of share 0 stays
            empty.

    Raises:
        ValueError: labels that are not one-dimensional, empty, missing or without order, bad fractions, negative seed.
    """
    classes = _classes(labels)
    shares = _shares(fractions)
    rng = _generator(seed)
    parts: tuple[list[NDArray[np.int64]], ...] = ([], [], [])
    owed = np.zeros(3)
    for members in classes:
        counts = _counts(members.size, shares, owed)
        owed += members.size * shares - counts
        for part, piece in zip(parts, np.split(rng.permutation(members), np.cumsum(counts)[:2]), strict=True):
            part.append(piece)
    return Split(*(rng.permutation(np.concatenate(part)) for part in parts))


def official(labels: ArrayLike, n_train: int, seed: int, validation: float = 0.15) -> Split:
    """The archive's own split of pooled cases: the first ``n_train`` train, the rest test.

    A validation part is taken from the archive's training cases, stratified; the test part is untouched and in order.

    Args:
        labels: [n] labels of the pooled cases, train before test, as :func:`sciode.data.load` gives for "all".
        n_train: the archive's number of training cases, ``manifests()[name].shape.train``.
        seed: of the validation part.
        validation: share of the training cases, in [0, 1).

    Raises:
        ValueError: n_train outside 1 .. n - 1, validation outside [0, 1).
    """
    pooled = np.asarray(labels)
    if not 0 < n_train < len(pooled):
        raise ValueError(f"n_train is {n_train}: give the number of training cases, 1 .. {len(pooled) - 1}")
    if not 0 <= validation < 1:
        raise ValueError(f"validation is {validation}: give a share of the training cases, 0 <= validation < 1")
    inner = stratified(pooled[:n_train], seed, (1 - validation, validation, 0.0))
    return Split(inner.train, inner.validation, np.arange(n_train, len(pooled)))


def in_order(count: int, fractions: tuple[float, float, float] = (0.70, 0.15, 0.15)) -> Split:
    """Split cases 0 .. count - 1 by their order: the first train, the next validate, the last test.

    Raises:
        ValueError: fractions as in :func:`stratified`, or a count that leaves training empty.
    """
    shares = _shares(fractions)
    first, second = (int(np.floor(count * share + 1e-9)) for share in np.cumsum(shares)[:2])
    if first < 1:
        raise ValueError(f"{count} cases leave none to train on")
    return Split(np.arange(first), np.arange(first, second), np.arange(second, count))


def _shares(fractions: tuple[float, float, float]) -> NDArray[np.float64]:
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.shape != (3,) or (shares < 0).any() or shares[0] <= 0 or abs(shares.sum() - 1) > 1e-9:
        raise ValueError(f"fractions is {fractions}: give three shares that sum to 1, with train above 0")
    return shares


def _generator(seed: int) -> np.random.Generator:
    if seed < 0:
        raise ValueError(f"seed is {seed}: give a non-negative int")
    return np.random.default_rng(seed)


def _classes(labels: ArrayLike) -> list[NDArray[np.int64]]:
    """Positions of each class, in the order of the sorted labels."""
    found = checked_labels(labels, "labels")
    if found.ndim != 1 or found.size == 0:
        raise ValueError(f"labels has shape {found.shape}: give one label for each case, [n]")
    _, codes = np.unique(found, return_inverse=True)
    return [np.flatnonzero(codes == code) for code in range(int(codes.max()) + 1)]


def _counts(size: int, shares: NDArray[np.float64], owed: NDArray[np.float64]) -> NDArray[np.int64]:
    """Cases of one class for each part: its share rounded down or up, the ups going where most is owed so far."""
    if size < 3:
        return np.array([size, 0, 0])
    # The slack keeps 20 * 0.15 = 3.0000000000000004 from being rounded up to 4.
    counts = np.floor(size * shares + 1e-9).astype(np.int64)
    remainder = size * shares - counts
    for part in np.argsort(-(remainder + owed) + 10 * (remainder < 1e-9), kind="stable")[: size - counts.sum()]:
        counts[part] += 1
    for part in (1, 2):
        if shares[part] > 0 and counts[part] == 0:
            counts[part] += 1
            counts[np.argmax(counts)] -= 1
    return counts
