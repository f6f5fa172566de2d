"""Products with the Hessian of arms' losses: by differences of gradients, and some points at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sciode.pde import Box
from sciode.pinn import Face, Names, Network, Numbers, Problem, dirichlet, strips
from sciode.pinn.loss import Loss
from sciode.pinn.representation import representation_of
from sciode.pinn.terms import groups_of

BOX, REAL = Box((0, 0), (1, 1)), torch.zeros((), dtype=torch.float64)
NUMBERS = Numbers(64, 16, 16)


@pytest.mark.parametrize("chunk", [None, 7])
def test_products_are_differences_of_gradients_and_take_no_more_points_at_a_time_than_a_chunk(
    chunk: int | None,
) -> None:
    """With weights of the equation's points, and an arm that leaves a condition out."""
    most: list[int] = []

    def equation(d: Any, p: Any) -> Tensor:
        most.append(d.u_t.shape[-1])
        return d.u_t + d.u * d.u_x

    start = dirichlet(Face("t", -1), lambda x: torch.sin(2 * math.pi * x[..., :1]), name="initial")
    problem = Problem("moving", Names(("x", "t"), ("u",)), BOX, equation, (start,))
    of = representation_of(problem, strips(BOX, 1, [0.5]), Network(8, 2), REAL)
    loss = Loss(groups_of(of, ("average", "flux", "residual")), chunk)
    theta = of.initial([1, 2], REAL)
    samples = loss.draw(NUMBERS, 0, theta)
    weights = torch.ones(2, len(loss.names), dtype=torch.float64)
    weights[1, -1] = 0.0
    generator = torch.Generator().manual_seed(0)
    multiplier = torch.rand(2, *samples[0].data["share"].shape[1:], generator=generator, dtype=torch.float64)
    vector = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
    most.clear()
    found = loss.curvature(theta, samples, weights, multiplier)(vector)
    assert max(most) == (chunk or NUMBERS.inside)
    step = 1e-5
    ahead, behind = (
        loss.measure(theta + sign * step * vector, samples, weights, multiplier).gradient for sign in (1, -1)
    )
    torch.testing.assert_close(found, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-6)
