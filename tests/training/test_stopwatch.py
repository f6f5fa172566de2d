"""A stopwatch counts what lies between its pauses."""

from __future__ import annotations

import pytest

from sciode.training import Stopwatch


def test_pauses_are_left_out_also_where_they_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [50.0]
    monkeypatch.setattr(Stopwatch, "_now", lambda self: now[0])
    watch = Stopwatch(before=3.0)
    now[0] += 2.0
    with watch.paused():
        now[0] += 1000.0
    with pytest.raises(KeyError), watch.paused():
        now[0] += 1000.0
        raise KeyError
    assert watch.spent() == pytest.approx(5.0)
    now[0] += 1.0
    assert watch.spent() == pytest.approx(6.0)
