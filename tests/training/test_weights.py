"""Weights of penalties: their ends, their rate, and what is refused."""

from __future__ import annotations

import itertools

import pytest

from sciode.training import decaying, growing


def test_a_decaying_weight_joins_its_ends_by_equal_ratios() -> None:
    weight = decaying(100.0, 10.0, 4)
    values = [weight(k) for k in range(7)]
    assert values[0] == pytest.approx(100.0)
    assert values[4:] == pytest.approx([10.0] * 3)
    ratios = [b / a for a, b in itertools.pairwise(values[:5])]
    assert ratios == pytest.approx([10 ** (-1 / 4)] * 4)


def test_a_growing_weight_stays_at_zero_until_its_offset_and_ends_near_one() -> None:
    weight = growing(0.99, 10)
    assert [weight(k) for k in (0, 9, 10)] == [0.0, 0.0, 0.0]
    assert weight(11) == pytest.approx(0.01)
    assert 1 - weight(2000) < 1e-8


def test_weights_that_no_exponential_joins_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        decaying(1.0, 0.0, 10)
    with pytest.raises(ValueError, match="rate"):
        growing(1.0)
