"""What tests of several engines share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sciode.solvers.engines import choice, machine, walk, witness
from sciode.solvers.engines.repeat import step_by_step


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops, there and back, are traced and repeated, but not compiled: seconds become milliseconds."""
    for module in (machine, walk):
        monkeypatch.setattr(
            module, "loop_of", lambda engine, device, once, uses, first, spare=None: step_by_step(once, first)
        )


@pytest.fixture
def forgetful() -> Iterator[None]:
    """What one test traced or compiled does not serve the next."""
    yield
    witness._lifts.clear()
    choice._past.clear()
