"""What a velocity brings to a place: orders in time, walls, rings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sciode.insr.splitting import traced
from sciode.pde import problem_of


@pytest.mark.parametrize(("trace", "order"), [("euler", 2), ("midpoint", 3)])
def test_a_trace_is_of_its_order_where_the_flow_turns(trace: str, order: int) -> None:
    """What a rotation brings to x was at x turned back."""
    x, gaps = torch.tensor([0.4, 0.2], dtype=torch.float64), []
    for dt in (0.1, 0.05):
        exact = torch.stack((math.cos(dt) * x[0] + math.sin(dt) * x[1], math.cos(dt) * x[1] - math.sin(dt) * x[0]))
        turning = traced(lambda at: at, lambda at: torch.stack((-at[1], at[0])), dt, trace, problem_of("taylorgreen"))
        gaps.append(float((turning(x) - exact).norm()))
    assert abs(np.log2(gaps[0] / gaps[1]) - order) < 0.1, gaps


def test_a_trace_ends_at_the_walls_and_goes_round_a_ring() -> None:
    x = torch.tensor([0.9, 0.0], dtype=torch.float64)
    for problem, end in ((problem_of("taylorgreen"), 1.0), (problem_of("burgers"), 1.4)):
        brought = traced(lambda at: at, lambda at: torch.stack((-torch.ones_like(at[0]), at[1])), 0.5, "euler", problem)
        torch.testing.assert_close(brought(x), torch.tensor([end, 0.0], dtype=torch.float64))
