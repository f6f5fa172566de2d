"""Splits: disjoint, exhaustive, in proportion, and a function of the seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciode.data import Split, official, stratified

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=9)


def labels_of(sizes: list[int]) -> np.ndarray:
    labels = np.repeat([f"class {i}" for i in range(len(sizes))], sizes)
    return np.random.default_rng(0).permutation(labels)


def parts(split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return split.train, split.validation, split.test


@given(SIZES, st.integers(0, 10_000))
def test_the_parts_are_disjoint_and_exhaustive(sizes, seed) -> None:
    labels = labels_of(sizes)
    together = np.concatenate(parts(stratified(labels, seed)))
    assert sorted(together.tolist()) == list(range(len(labels)))


@given(SIZES, st.integers(0, 10_000))
def test_each_class_is_in_proportion_to_within_one_case(sizes, seed) -> None:
    labels = labels_of(sizes)
    split = stratified(labels, seed)
    for i, size in enumerate(sizes):
        counts = [int((labels[part] == f"class {i}").sum()) for part in parts(split)]
        if size < 3:
            assert counts == [size, 0, 0]
        elif size == 3:
            assert counts == [1, 1, 1]
        else:
            assert np.abs(np.array(counts) - size * np.array([0.70, 0.15, 0.15])).max() <= 1 + 1e-9
            assert min(counts) >= 1


@given(st.lists(st.integers(7, 60), min_size=1, max_size=20), st.integers(0, 10_000))
def test_roundings_of_many_classes_do_not_add_up(sizes, seed) -> None:
    split = stratified(labels_of(sizes), seed)
    wanted = sum(sizes) * np.array([0.70, 0.15, 0.15])
    assert np.abs(np.array([len(part) for part in parts(split)]) - wanted).max() <= 2


def test_the_paper_s_split_of_eighty_cases_in_four_classes() -> None:
    split = stratified(np.repeat(list("abcd"), 20), 0)
    assert [len(part) for part in parts(split)] == [56, 12, 12]


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    labels = labels_of([20, 30])
    assert all(
        np.array_equal(a, b) for a, b in zip(parts(stratified(labels, 1)), parts(stratified(labels, 1)), strict=True)
    )
    assert not np.array_equal(np.sort(stratified(labels, 1).test), np.sort(stratified(labels, 2).test))


def test_names_of_the_classes_do_not_matter_as_long_as_their_order_stays() -> None:
    codes = labels_of([10, 10]) == "class 1"
    by_number, by_name = stratified(codes.astype(int), 3), stratified(np.where(codes, "walk", "run"), 3)
    assert all(np.array_equal(a, b) for a, b in zip(parts(by_number), parts(by_name), strict=True))


def test_the_official_split_leaves_the_test_cases_alone() -> None:
    labels = np.concatenate([np.repeat(list("ab"), 20), np.repeat(list("ab"), 5)])
    split = official(labels, 40, seed=0)
    assert split.test.tolist() == list(range(40, 50))
    assert sorted([*split.train, *split.validation]) == list(range(40))
    assert len(split.validation) == 6 and (labels[split.validation] == "a").sum() == 3
    assert official(labels, 40, seed=0, validation=0.0).validation.size == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stratified([], 0), "one label for each case"),
        (lambda: stratified([[1, 2]], 0), "one label for each case"),
        (lambda: stratified([1, 2], 0, (0.5, 0.5, 0.5)), "sum to 1"),
        (lambda: stratified([1, 2], 0, (0.0, 0.5, 0.5)), "train above 0"),
        (lambda: stratified([1, 2], 0, (1.5, -0.5, 0.0)), "sum to 1"),
        (lambda: stratified([1, 2], -1), "non-negative"),
        (lambda: stratified(["a", float("nan")] * 4, 0), "labels holds NaN, infinite or missing labels: remove those"),
        (lambda: stratified(np.array([1, "a"] * 4, dtype=object), 0), "without a common order .* turn all into text"),
        (lambda: official([1, 2], 2, 0), "n_train is 2"),
        (lambda: official([1, 2], 1, 0, validation=1.0), "validation is 1.0"),
    ],
)
def test_bad_arguments_are_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
