"""Curves of error over seconds: levels, least errors, paces and duels, on curves that are made up."""

from __future__ import annotations

import math

import pytest

from sciode.experiments.curves import Entry, duel, least, pace, reached, together

FAST = [Entry(0, 0, 0.0, 1.0), Entry(0, 10, 2.0, 0.2), Entry(1, 5, 3.0, 0.01), Entry(1, 10, 4.0, 0.03)]
SLOW = [Entry(0, 0, 0.0, 1.0), Entry(0, 10, 5.0, 0.1), Entry(1, 20, 15.0, 0.02)]


def test_a_level_is_reached_at_the_first_look_at_or_below_it() -> None:
    assert reached(FAST, 0.2) == 2.0 and reached(FAST, 0.03) == 3.0
    assert reached(FAST, 1.0) == 0.0 and reached(FAST, 0.009) is None


def test_an_error_that_is_no_number_reaches_nothing() -> None:
    broken = [Entry(0, 1, 1.0, math.nan), Entry(0, 2, 2.0, 0.5)]
    assert reached(broken, 0.5) == 2.0 and least(broken) == 0.5
    assert least(broken[:1]) == math.inf and duel([broken[:1]], [SLOW]) is None


def test_several_curves_reach_a_level_when_each_does() -> None:
    assert together([FAST, SLOW], 0.1) == 4.0
    assert together([FAST, SLOW], 0.01) is None and together([], 0.1) is None


def test_a_duel_is_fought_at_the_least_error_that_all_curves_reach() -> None:
    found = duel([FAST], [SLOW])
    assert found is not None and found == (0.02, 3.0, 15.0) and found.ratio == pytest.approx(0.2)
    # A second seed of the rival that ends higher moves the level up to where it ends.
    found = duel([FAST], [SLOW, SLOW[:2]])
    assert found is not None and found == (0.1, 3.0, 5.0) and found.ratio == pytest.approx(0.6)
    assert duel([SLOW], [FAST], 0.01) is None


def test_who_wins_does_not_hang_on_who_is_asked() -> None:
    one, other = duel([FAST], [SLOW]), duel([SLOW], [FAST])
    assert one is not None and other is not None and one.ratio * other.ratio == pytest.approx(1.0)


def test_a_pace_is_that_of_its_own_stage() -> None:
    assert pace(FAST, 0) == pytest.approx(0.2) and pace(FAST, 1) == pytest.approx(0.2)
    assert pace(SLOW, 1) == pytest.approx(0.5)
    assert pace(SLOW[:2], 1) is None and pace(SLOW[:1], 0) is None
