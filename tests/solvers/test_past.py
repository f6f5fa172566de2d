"""What is remembered of earlier solves: enough for `auto` to choose by, and never more than so much."""

from __future__ import annotations

import pytest
import torch

from sciode import solve
from sciode.solvers.engines import choice

pytestmark = pytest.mark.usefixtures("forgetful")


def decayed(size: int) -> None:
    solve(lambda t, y: -y, torch.ones(2, size), [0.0, 1.0], method="euler", dt=1.0, batch_dims=1)


def test_kinds_of_solves_are_forgotten_when_others_have_come_since(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_KEPT", 4)
    for size in range(1, 10):
        decayed(1)
        decayed(size)
        assert len(choice._past) <= 4
    # The one that kept coming is known through and through; of the others the latest are.
    assert sorted(past.solves for past in choice._past.values()) == [1, 1, 1, 10]
    decayed(9)
    decayed(2)
    assert sorted(past.solves for past in choice._past.values()) == [1, 1, 2, 10]
