"""One solve for many clocks: what is read between grid times, at each series' own end, and of series that fail."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sciode import SDETerm, SolveError, Status
from sciode.timeseries import Batch
from sciode.timeseries.schedule import Grid, euler, schedule, solved

B, DT = 4, 0.25


def batch(ends: list[float]) -> Batch:
    empty = torch.zeros(len(ends), 1, 1).double()
    return Batch(empty, empty[..., 0], None, DT, torch.tensor(ends, dtype=torch.float64))


def start() -> Tensor:
    return torch.randn(B, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


QUERIES = torch.tensor(
    [[0.0, 0.3, 0.25, torch.nan], [2.0, 0.1, 0.1, 1.0], [torch.nan] * 4, [3.3, 0.0, 0.75, 3.25]], dtype=torch.float64
)
ENDS = [1.0, 0.6, 2.25, 0.25]
TERM = SDETerm(lambda t, z: torch.sin(z) - t, lambda t, z: 0.3 * torch.cos(z))


@pytest.mark.parametrize("queries", [None, QUERIES], ids=["ends", "queries"])
def test_stepping_together_gives_what_a_clock_for_each_series_gives(queries: Tensor | None) -> None:
    b = batch(ENDS)
    how: Any = {"seed": torch.arange(B), "engine": "eager"}
    together, _ = euler(TERM, start(), b, queries, **how)
    apart = solved(TERM, start(), schedule(b, queries, step=DT), dt=DT, method="euler", **how)
    torch.testing.assert_close(together.states, apart.states, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(together.last, apart.last, rtol=1e-12, atol=1e-13)
    assert torch.equal(together.nfe, apart.nfe) and torch.equal(together.status, apart.status)


def test_what_is_asked_is_found_in_the_schedule() -> None:
    plan = schedule(batch(ENDS), QUERIES)
    wanted = torch.cat((QUERIES, batch(ENDS).ends.unsqueeze(1)), 1)
    for i in range(B):
        for k in range(5):
            row = int(plan.at[i, k])
            assert (row == -1) if wanted[i, k].isnan() else plan.ts[row, i] == wanted[i, k]
    assert (plan.ts[0] == 0).all()
    shared = schedule(batch([1.0, 1.0]), torch.tensor([[0.5], [0.5]]).double())
    assert shared.ts.tolist() == [0.0, 0.5, 1.0]


def test_a_time_on_a_row_is_read_from_no_row_after_it() -> None:
    """Even if the time is off by rounding, and even if what comes after is not a number."""
    times = torch.tensor([[3 * 0.1, 0.1 + 0.2, 0.0]], dtype=torch.float64)
    grid = Grid.of(times, 0.1)
    assert grid.upper.tolist() == [[3, 3, 0]] and grid.weight.tolist() == [[1.0, 1.0, 1.0]]
    rows = torch.tensor([1.0, 2.0, 4.0, 8.0, torch.nan]).double().view(5, 1, 1)
    states, last = grid.read(rows)
    assert states.flatten().tolist() == [8.0, 8.0] and last.tolist() == [[1.0]]


def test_only_what_happens_up_to_its_own_end_is_a_series_own_affair() -> None:
    """z' = z^2 from 1 is infinite at 1 and overflows soon after: series that end before are well, gradients too."""
    term = SDETerm(lambda t, z: z**2, lambda t, z: torch.zeros_like(z))
    z = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    found, _ = euler(term, z, batch([0.5, 9.0]), None, seed=0, engine="eager")
    assert found.status.tolist() == [int(Status.SUCCESS), int(Status.NONFINITE)]
    (gradient,) = torch.autograd.grad(found.last[0].sum(), z)
    # Two steps z <- z + z^2 / 4 from 1.
    assert found.last[0].item() == pytest.approx(1.25 + 1.25**2 / 4)
    assert gradient.flatten().tolist() == pytest.approx([1.5 * (1 + 1.25 / 2), 0.0])
    with pytest.raises(SolveError, match="NaN or infinite"):
        euler(term, z, batch([0.5, 9.0]), None, seed=0, engine="eager", throw=True)
    euler(term, z, batch([0.5, 0.5]), None, seed=0, engine="eager", throw=True)


@pytest.mark.parametrize("ends", [[1.0, 1.0], [1.0, 0.5], [0.9, 0.9]])
def test_the_end_is_the_same_whether_rows_before_it_are_kept_or_not(ends: list[float]) -> None:
    """Series that end together on a row are solved without the rows before it; a query makes these be kept."""
    term = SDETerm(lambda t, z: -z, lambda t, z: 0.3 * z)
    z = torch.ones(2, 3, dtype=torch.float64)
    seed = torch.tensor([3, 4])
    alone, final = euler(term, z, batch(ends), None, seed=seed, engine="eager")
    asked = torch.tensor([[0.25], [0.5]], dtype=torch.float64)
    among, other = euler(term, z, batch(ends), asked, seed=seed, engine="eager")
    assert alone.states.shape == (2, 0, 3) and among.states.shape == (2, 1, 3)
    assert torch.equal(alone.last, among.last) and torch.equal(final, other)
    assert torch.equal(alone.nfe, among.nfe) and torch.equal(alone.status, among.status)


def test_the_control_s_reach_is_held_to() -> None:
    with pytest.raises(ValueError, match="make it longer"):
        euler(TERM, start(), batch(ENDS), QUERIES, seed=0, reach=3.0)
    with pytest.raises(ValueError, match="make it longer"):
        schedule(batch(ENDS), QUERIES, reach=3.0)
    with pytest.raises(ValueError, match="finite"):
        euler(TERM, start(), batch(ENDS), QUERIES.nan_to_num(nan=torch.inf), seed=0)
