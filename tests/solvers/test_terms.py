"""Terms: what callers may hand to `solve`, and torchsde's convention of one time for the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciode import ODETerm, SDETerm, solve
from sciode.solvers.terms import as_term


class OneClock:
    """A torchsde object whose functions need t to be 0-d: [B, 1] would not broadcast against [B, 3, 2]."""

    noise_type, sde_type = "additive", "ito"

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        assert t.ndim == 0
        return torch.where(y > 50, torch.nan, t - y)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return t * torch.ones(len(y), 3, 2, dtype=y.dtype)


def test_a_callable_a_term_and_a_torchsde_object_are_terms() -> None:
    assert isinstance(as_term(lambda t, y: y), ODETerm)
    term = ODETerm(lambda t, y: y)
    assert as_term(term) is term
    taken = as_term(OneClock())
    assert isinstance(taken, SDETerm) and (taken.noise, taken.calculus, taken.one_clock) == ("additive", "ito", True)


@pytest.mark.parametrize("ts", [[0.0, 1.0], [1.0, 0.0]], ids=["forward", "backward"])
def test_a_failed_sample_does_not_hold_the_batchs_one_time_back(ts: list[float]) -> None:
    y0 = torch.ones(4, 3, dtype=torch.float64)
    healthy = solve(OneClock(), y0, ts, dt=0.1, seed=2)
    sick = solve(OneClock(), torch.cat((torch.full_like(y0[:1], 60.0), y0[1:])), ts, dt=0.1, seed=2, throw=False)
    assert sick.status.tolist() == [3, 0, 0, 0]
    assert torch.equal(sick.ys[:, 1:], healthy.ys[:, 1:])


def test_times_of_their_own_are_refused_for_a_batch_with_one_time() -> None:
    with pytest.raises(ValueError, match="ts: this SDE takes one time for the whole batch"):
        solve(OneClock(), torch.ones(2, 3), torch.tensor([[0.0, 0.0], [1.0, 2.0]]), dt=0.1, seed=0)
