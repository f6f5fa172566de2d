"""`Purity` sees what it says it sees, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sciode.testing import Purity


@pytest.mark.parametrize(
    ("act", "complaint"),
    [
        (lambda x: x.clone().add_(1), "writes in place"),
        (lambda x: torch.add(x, x, out=torch.empty_like(x)), "writes in place"),
        (lambda x: x.sum().item(), "waits for the device"),
        (lambda x: bool(x.any()), "waits for the device"),
        (lambda x: x.nonzero(), "waits for the device"),
        (lambda x: torch.equal(x, x), "waits for the device"),
        (lambda x: x[x > 0], "waits for the device"),
    ],
)
def test_impure_operations_are_seen(act: Callable[[torch.Tensor], Any], complaint: str) -> None:
    with Purity() as seen:
        act(torch.arange(3.0))
    assert [found.complaint for found in seen.found] == [complaint]


def test_draws_are_seen() -> None:
    with torch.random.fork_rng(devices=[]), Purity() as seen:
        torch.rand_like(torch.ones(3))
    assert [found.complaint for found in seen.found] == ["draws from the global random stream"]


def test_pure_operations_pass_and_keep_their_values() -> None:
    x, index = torch.arange(6.0).reshape(2, 3), torch.tensor([1, 0])
    with Purity() as seen:
        y = torch.where(x > 2, x.sin(), 0.0)[index] @ x.T + x.amax()
    assert seen.found == []
    torch.testing.assert_close(y, torch.where(x > 2, x.sin(), 0.0)[index] @ x.T + x.amax(), rtol=0, atol=0)
