"""What is recorded for a card is not disturbed by Python's garbage. The card itself is left out here."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch

from sciode.solvers.engines.recording import recording


class Node:
    """Part of a cycle, which only the collector frees; it tells when."""

    def __init__(self, freed: list[str], name: str) -> None:
        self.freed, self.name, self.itself = freed, name, self

    def __del__(self) -> None:
        self.freed.append(self.name)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "graph", lambda *given, **how: nullcontext())


@contextmanager
def restless() -> Iterator[None]:
    """The collector runs at every object that is made."""
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@pytest.mark.usefixtures("eager")
def test_cycles_are_freed_before_a_recording_and_not_in_it() -> None:
    freed: list[str] = []
    graph: Any = None
    gc.disable()
    Node(freed, "before")
    gc.enable()
    with recording(graph), restless():
        assert freed == ["before"]
        Node(freed, "inside")
        kept = [[] for _ in range(1000)]
        assert freed == ["before"]
    del kept
    gc.collect()
    assert freed == ["before", "inside"]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_afterwards_as_it_was_even_if_a_recording_fails(on: bool) -> None:
    graph: Any = None
    (gc.enable if on else gc.disable)()
    try:
        with pytest.raises(RuntimeError, match="unsound"), recording(graph):
            assert not gc.isenabled()
            raise RuntimeError("unsound")
        assert gc.isenabled() == on
    finally:
        gc.enable()
