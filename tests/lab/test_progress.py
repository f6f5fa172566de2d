"""The progress bar shows itself to a person and to nobody else, and never changes what is iterated."""

from __future__ import annotations

import sys

import pytest

from sciode import lab


@pytest.fixture(autouse=True)
def full_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCIODE_FAST", raising=False)


def _watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


def test_every_item_comes_once_and_in_order() -> None:
    assert list(lab.progress(range(5), "counting")) == [0, 1, 2, 3, 4]


def test_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    list(lab.progress(range(3), "counting"))
    assert capsys.readouterr().err == ""


def test_drawn_in_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _watched(monkeypatch)
    list(lab.progress(range(3), "counting", leave=True))
    shown = capsys.readouterr().err
    assert "counting" in shown and "3/3" in shown


def test_silent_in_fast_mode(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _watched(monkeypatch)
    monkeypatch.setenv("SCIODE_FAST", "1")
    list(lab.progress(range(3), "counting"))
    assert capsys.readouterr().err == ""


def test_moved_by_hand(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _watched(monkeypatch)
    with lab.progress(total=4, description="by hand", leave=True) as bar:
        bar.update(4)
    assert "4/4" in capsys.readouterr().err
