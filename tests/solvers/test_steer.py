"""Random end times: their law, their order, and what they leave alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sciode import steer


def test_the_end_is_uniform_around_the_last_time_and_nothing_else_moves() -> None:
    ends = []
    for seed in range(500):
        moved = steer([0.0, 0.4, 1.0], 0.5, seed)
        assert moved[:2].tolist() == [0.0, 0.4]
        ends.append(float(moved[-1]))
    assert stats.kstest((torch.tensor(ends).numpy() - 0.5) / 1.0, "uniform").pvalue > 1e-3


@given(st.lists(st.floats(1e-3, 10), min_size=1, max_size=8), st.floats(0, 0.5), st.integers(0, 2**62), st.booleans())
def test_gaps_keep_the_order_and_the_first_time(gaps: list[float], spread: float, seed: int, back: bool) -> None:
    ts = torch.tensor([0.0, *gaps], dtype=torch.float64).cumsum(0) * (-1 if back else 1)
    moved = steer(ts, spread, seed, "gaps")
    assert moved[0] == ts[0]
    assert bool(((moved.diff() * ts.diff().sign()) >= 0).all())
    assert bool(((moved - ts).abs()[1:] <= spread * ts.diff().abs() + 1e-12).all())


def test_a_generator_goes_on_and_a_seed_repeats() -> None:
    draw = torch.Generator().manual_seed(0)
    assert not torch.equal(steer([0, 1], 0.5, draw), steer([0, 1], 0.5, draw))
    assert torch.equal(steer([0, 1], 0.5, 3), steer([0, 1], 0.5, 3))


@pytest.mark.parametrize(("spread", "which"), [(0.7, "end"), (0.6, "gaps"), (-0.1, "end"), (0.1, "ends")])
def test_what_could_change_the_order_is_refused(spread: float, which: str) -> None:
    with pytest.raises(ValueError, match=r"order|which"):
        steer([0.0, 0.4, 1.0], spread, 0, which)  # type: ignore[arg-type]
