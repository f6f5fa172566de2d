"""Calls take turns, in an order that rotates, and only the turns after the warm-up are timed."""

from __future__ import annotations

import gc
from functools import partial

import pytest

from sciode.bench.timing import interleaved, machine


def test_calls_take_turns_and_nobody_always_goes_first() -> None:
    order: list[str] = []
    found = interleaved({name: partial(order.append, name) for name in "abc"}, repeats=2, warmup=1)
    assert "".join(order) == "abcbcacab"
    assert list(found) == ["a", "b", "c"]


def test_quartiles_enclose_the_median() -> None:
    timing = interleaved({"count": lambda: sum(range(1000))}, repeats=5)["count"]
    assert 0 < timing.low <= timing.median <= timing.high


def test_a_failing_call_leaves_the_collector_as_it_was() -> None:
    before = gc.get_freeze_count()
    with pytest.raises(ZeroDivisionError):
        interleaved({"fails": lambda: 1 / 0}, repeats=1)
    assert gc.get_freeze_count() == before


@pytest.mark.parametrize(("repeats", "warmup"), [(0, 0), (1, -1)])
def test_nothing_to_time_is_misuse(repeats: int, warmup: int) -> None:
    with pytest.raises(ValueError, match="repeats"):
        interleaved({}, repeats=repeats, warmup=warmup)


def test_the_machine_is_described_in_full() -> None:
    assert all(machine().values())
